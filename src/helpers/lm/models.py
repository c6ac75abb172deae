"""Base models in memory, and LoRA adapters to put on them and take off again."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file
from torch import nn
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from helpers.base.errors import ModelError
from helpers.base.files import write_atomic, write_json
from helpers.base.rng import torch_stream
from helpers.lm import exact
from helpers.lm.folders import check_architecture, check_rope, custom_code, refuse_incomplete
from helpers.lm.foreign import foreign_errors
from helpers.lm.model_facts import device_of, dtype_of, facts
from helpers.lm.model_files import fingerprint, local_folder, locate
from helpers.lm.modes import Modes
from helpers.lm.targets import find_targets
from helpers.system import provenance

__all__ = [
    "LoadedModel",
    "attach_lora",
    "check_targets",
    "choose_threads",
    "detach",
    "facts",
    "fingerprint",
    "load",
    "local_folder",
    "refuse_emulated",
    "save_adapter",
    "threads",
]

BF16 = frozenset({"amx_bf16", "avx512_bf16"})
"""The instruction sets with which a CPU multiplies bf16 numbers; without one of them it emulates that."""
_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"


@dataclass(frozen=True)
class LoadedModel:
    """A base model in memory, frozen and in eval mode, and what a run record says about it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    source: str
    revision: str | None
    sha256: str
    parameters: int
    dtype: str
    device: str

    @property
    def rows(self) -> str:
        """How rows of it are computed, and why not packed where they are not (see ``exact``)."""
        return str(exact.ways_of(self.model))


def load(name: str, *, revision: str | None = None, device: str = "auto", dtype: str = "auto") -> LoadedModel:
    """Load ``name``: a preset (``pocket``, ``smollm2``, ``paper``), a local folder or a hub id at ``revision``.

    ``device``: ``auto`` (CUDA when there is one, else the CPU) or a torch device. ``dtype``: ``auto``, ``float32`` or
    ``bfloat16``, the type of the base weights; adapters, their optimiser, logits and sums are fp32. Raises
    ``ModelError`` if a file is missing or cut short, the hub cannot provide the model, or this CPU has no bf16.
    """
    device = device_of(device)
    kind = dtype_of(name, dtype, device)
    refuse_emulated(kind, device)
    located = locate(name, revision)
    check_architecture(located.folder)
    tokenizer, model = _read(located.folder, getattr(torch, kind))
    # PEFT copies this into adapter_config.json, and a path of this machine does not belong in a record.
    model.name_or_path = located.source
    model = model.to(device).eval().requires_grad_(False)
    count = sum(parameter.numel() for parameter in model.parameters())
    sha256 = fingerprint(name, revision)["sha256"]
    ways = exact.settle(model, sha256)
    if ways.why:
        tqdm.write(f"{name}: rows: {ways}", file=sys.stderr)
    return LoadedModel(model, tokenizer, name, located.source, located.revision, sha256, count, kind, device)


def _read(folder: Path, dtype: torch.dtype) -> tuple[PreTrainedTokenizerBase, Any]:
    """Return tokenizer and model in ``folder``, every tensor of which is there, has a place and is finite."""
    code = custom_code()
    with foreign_errors(f"The model in {folder} cannot be loaded", "Fetch it again, or use another"):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=code)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, output_loading_info=True, trust_remote_code=code
        )
    model, report = loaded
    refuse_incomplete(report, folder)
    check_rope(folder, model)
    for name, tensor in model.named_parameters():
        if not bool(tensor.isfinite().all()):
            raise ModelError(
                f"{name} of the model in {folder} holds numbers that are not finite. Fetch the model again, or ask "
                "whoever trained it."
            )
    return tokenizer, model


def refuse_emulated(dtype: str, device: str) -> None:
    """Raise ``ModelError`` if ``device`` is a CPU that has no instructions for the number type ``dtype``."""
    on_cpu = torch.device(device).type == "cpu"
    if on_cpu and dtype == "bfloat16" and BF16.isdisjoint(provenance.instruction_sets() or ()):
        raise ModelError(
            f"dtype is bfloat16, but this CPU has neither {' nor '.join(sorted(BF16))} and would be many times slower "
            "than in float32. Use float32."
        )


def choose_threads() -> int:
    """Give torch as many threads as cores are free now (at least one), and return the number.

    A thread on a busy core makes all others wait at every operation, so that beside another busy process two threads
    can be slower than one. ``CLAIMBOOK_THREADS`` fixes the number. How a sum is split over threads decides its last
    bits, so a replay asks for as many threads as the record had.
    """
    fixed = os.environ.get("CLAIMBOOK_THREADS")
    if fixed:
        torch.set_num_threads(int(fixed))
        return int(fixed)
    mine = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(psutil.cpu_count() or 1)
    load = psutil.cpu_percent(interval=0.2, percpu=True)
    busy = sum(load[core] for core in mine if core < len(load)) / 100
    threads = max(1, round(len(mine) - busy))
    torch.set_num_threads(threads)
    return threads


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Give torch ``count`` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def attach_lora(
    model: nn.Module,
    *,
    r: int,
    alpha: int,
    dropout: float = 0.0,
    rslora: bool = False,
    targets: str | Sequence[str] = "auto",
    seed: int,
) -> PeftModel:
    """Put a new LoRA adapter (Hu et al. 2021, 2106.09685) on ``model``, in place, and return the wrapped model.

    The update is ``scale * B A`` with scale ``alpha / r``, or ``alpha / sqrt(r)`` under ``rslora`` (Kalajdzievski 2023,
    2312.03732). B starts at zero; each A is drawn from the stream ("lora", its layer) of ``seed``. Adapters are fp32.
    ``targets`` are as in ``find_targets``. Raises ``ModelError`` where the model lacks one, or PEFT refuses it.
    """
    check_bare(model)
    config = LoraConfig(
        r=r, lora_alpha=alpha, lora_dropout=dropout, use_rslora=rslora, target_modules=find_targets(model, targets),
        task_type="CAUSAL_LM",
    )  # fmt: skip
    with foreign_errors(f"PEFT cannot put LoRA on the targets {targets} of {type(model).__name__}", "Name others"):
        wrapped = wrap(model, config)
    for path, parameter in wrapped.named_parameters():
        if "lora_A" in path:
            bound = parameter.shape[1] ** -0.5
            drawn = torch.rand(parameter.shape, generator=torch_stream(seed, "lora", path)) * 2 - 1
            parameter.data.copy_(drawn * bound)
    return wrapped


def check_targets(model: nn.Module, targets: str | Sequence[str]) -> None:
    """Raise ``ModelError`` where no LoRA adapter can be put on ``targets`` of ``model``, or the model then fails."""
    wrapped: Any = attach_lora(model, r=1, alpha=1, targets=targets, seed=0)
    device = next(model.parameters()).device
    try:
        with torch.no_grad(), foreign_errors(f"{type(model).__name__} fails with LoRA on {targets}", "Name others"):
            wrapped(input_ids=torch.tensor([[1, 2]], device=device), use_cache=False)
    finally:
        detach(wrapped)


def check_bare(model: nn.Module) -> None:
    """Raise ``ModelError`` if ``model`` has an adapter."""
    if isinstance(model, PeftModel) or any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise ModelError("The model already has an adapter. Take it off with detach() first.")


def wrap(model: nn.Module, config: PeftConfig) -> PeftModel:
    """Put new adapters on ``model`` without changing its train or eval mode; its own weights need no gradients."""
    modes = Modes(model)
    # PEFT draws initial weights, overwritten later, from the global generator. It must end in the state it had.
    with torch.random.fork_rng():
        wrapped = get_peft_model(model, config).train(model.training)
    vars(wrapped)["base_modes"] = modes  # past the setter of nn.Module, which is typed for tensors and modules
    return wrapped


def detach(model: PeftModel) -> nn.Module:
    """Take the adapter off and return the base model with its own weights and modes: nothing is merged.

    ``model`` comes from ``attach_lora`` or ``load_adapter``.
    """
    base = model.unload()
    model.base_modes.restore()
    return base


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Write ``adapter_model.safetensors`` and ``adapter_config.json``, which PEFT and vLLM read, into ``folder``."""
    # Left on "auto", PEFT asks the hub whether the base model's vocabulary was resized.
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
    write_atomic(folder / _WEIGHTS, lambda path: save_file(state, path, metadata={"format": "pt"}))
    config: dict[str, Any] = model.active_peft_config.to_dict() | {"inference_mode": True}
    # PEFT keeps names in a set, whose order differs between processes; a pattern is a string.
    targets = config["target_modules"]
    write_json(folder / _CONFIG, config | {"target_modules": targets if isinstance(targets, str) else sorted(targets)})

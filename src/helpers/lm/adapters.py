"""Saved adapters: put on a base model and taken off again, or merged into a copy of it where a switch is not exact."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn

from helpers.base.errors import ModelError
from helpers.lm.exact import differs
from helpers.lm.folders import ADAPTER, check_safetensors, read_json
from helpers.lm.foreign import foreign_errors
from helpers.lm.models import check_bare, detach, wrap

WEIGHTS = "adapter_model.safetensors"
_TRIED = (3, 5, 7, 11, 13, 17)
"""Tokens on which a merged model is compared with PEFT's own."""
_KEEPS_BASE = (True, False, "gaussian", "eva", "orthogonal")
"""Values of ``init_lora_weights`` that leave the base weights as they are."""


def obstacle(folder: Path) -> str:
    """Return what of the adapter in ``folder`` a switch of low-rank layers would leave on the base; mostly empty.

    Trained biases, replaced modules and DoRA's magnitudes are no part of the low-rank update, and PiSSA and its like
    rewrite the base weights when they are attached.
    """
    config = _config(folder)
    if config.get("peft_type") != "LORA":
        return f"peft_type {config.get('peft_type')}"
    if config.get("bias", "none") != "none":
        return f"bias {config['bias']!r}"
    if config.get("init_lora_weights", True) not in _KEEPS_BASE:
        return f"init_lora_weights {config['init_lora_weights']!r}"
    names = ("use_dora", "modules_to_save", "trainable_token_indices", "layer_replication", "alora_invocation_tokens")
    return next((name for name in names if config.get(name)), "")


def _config(folder: Path) -> dict[str, Any]:
    if not (folder / ADAPTER).is_file():
        raise ModelError(f"{folder / ADAPTER} is missing, so {folder} is not a complete adapter. Copy it again.")
    return read_json(folder / ADAPTER)


def load_adapter(model: nn.Module, folder: Path) -> PeftModel:
    """Put the adapter saved in ``folder`` on ``model``, frozen. Raises ``ModelError`` unless every tensor fits."""
    check_bare(model)
    folder = Path(folder)
    what = obstacle(folder)
    if what:
        raise ModelError(
            f"The adapter in {folder} has {what}, which cannot be switched off exactly. Merge it into its base model "
            "with PEFT, and give the merged folder."
        )
    check_safetensors(folder / WEIGHTS)
    state = _without_base(load_file(folder / WEIGHTS), model, folder)
    config = LoraConfig.from_pretrained(str(folder))
    config.base_model_name_or_path = None
    wrapped = wrap(model, config)
    try:
        _check_fit(wrapped, state, folder)
    except ModelError:
        detach(wrapped)
        raise
    set_peft_model_state_dict(wrapped, state)
    return wrapped.requires_grad_(False).eval()


def _check_fit(wrapped: PeftModel, state: Mapping[str, Tensor], folder: Path) -> None:
    """Raise ``ModelError`` unless ``state`` holds every tensor of the adapter on ``wrapped``, and no other."""
    own: dict[str, Tensor] = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    expected = {key: tensor.shape for key, tensor in own.items()}
    saved = {key: tensor.shape for key, tensor in state.items()}
    if expected != saved:
        odd = sorted(key for key in expected.keys() | saved.keys() if expected.get(key) != saved.get(key))
        raise ModelError(
            f"The adapter in {folder} was made for another model: {odd[0]} does not fit ({len(odd)} tensors in all). "
            "Load the model that it was trained on."
        )


def _without_base(state: dict[str, Tensor], model: nn.Module, folder: Path) -> dict[str, Tensor]:
    """Leave out the base's own weights, which PEFT saves beside LoRA on embeddings and head.

    Raises ``ModelError`` if they are not those of ``model``.
    """
    own, kept = dict(model.named_parameters(remove_duplicate=False)), dict(state)
    for key, tensor in state.items():
        name = key.removeprefix("base_model.model.").replace(".base_layer.", ".")
        if "lora_" not in key and name in own:
            del kept[key]
            if not torch.equal(own[name].cpu(), tensor.to(own[name].dtype)):
                raise ModelError(
                    f"The adapter in {folder} brings its own {name}, which differs from that of the model. Load the "
                    "model that it was trained on, or merge the adapter."
                )
    return kept


def merged(model: nn.Module, folder: Path) -> nn.Module:
    """Return a copy of ``model`` with the adapter in ``folder`` merged into its weights by PEFT.

    Raises ``ModelError`` for an adapter that has no merged twin, or whose twin computes something else.
    """
    check_bare(model)
    config = _config(folder)
    check_safetensors(folder / WEIGHTS)
    with foreign_errors(f"The adapter in {folder} cannot be put on its base model", "Give the merged model"):
        kind = PeftConfig.from_pretrained(str(folder))
        if kind.is_prompt_learning:
            raise ModelError(
                f"The adapter in {folder} is of type {config['peft_type']}, which trains a prompt and leaves no "
                "weights to merge. Use LoRA or a full fine-tune."
            )
        wrapped = PeftModel.from_pretrained(copy.deepcopy(model), str(folder)).eval()
    _check_fit(wrapped, load_file(folder / WEIGHTS), folder)
    row = torch.tensor([_TRIED], device=next(model.parameters()).device)
    with torch.no_grad(), foreign_errors(f"PEFT cannot merge the adapter in {folder}", "Give the merged model"):
        wanted = wrapped(input_ids=row, use_cache=False).logits[0]
        tuned: Any = wrapped.merge_and_unload().eval().requires_grad_(False)
        why = differs(tuned, [wanted], lambda: [tuned(input_ids=row, use_cache=False).logits[0]])
    if why:
        raise ModelError(f"Merged, the adapter in {folder} is not what it was: {why}. Give the model merged by hand.")
    return tuned


@contextlib.contextmanager
def adapter(model: nn.Module, folder: Path) -> Iterator[PeftModel]:
    """Put the adapter saved in ``folder`` on ``model`` inside the block."""
    before = _contents(model)
    wrapped = load_adapter(model, folder)
    try:
        yield wrapped
    finally:
        detach(wrapped)
        after = _contents(model)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if changed:
        raise ModelError(
            f"The base model is not what it was before the adapter in {folder}: {changed[0]} differs "
            f"({len(changed)} tensors in all). Report this kind of adapter; nothing computed since then holds."
        )


def _contents(model: nn.Module) -> dict[str, int]:
    """Return a checksum of the bits of every tensor of ``model``."""
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return {
        name: int(tensor.detach().contiguous().view(whole[tensor.element_size()]).sum(dtype=torch.int64))
        for name, tensor in model.state_dict().items()
    }

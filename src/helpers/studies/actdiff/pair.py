"""A base model and its fine-tune. A LoRA pair is one copy of the weights with the adapter off and on."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import Tensor, nn

from helpers.base import files
from helpers.base.errors import ModelError
from helpers.lm import adapters, models
from helpers.lm.folders import check_safetensors
from helpers.lm.parts import bare_parts, blocks
from helpers.records import runs

Side = Literal["base", "tuned"]
SIDES: tuple[Side, Side] = ("base", "tuned")
CHANGE = "change.safetensors"
"""The file of a full fine-tune, stored as differences from its base model, by parameter name."""


@dataclass(frozen=True)
class Pair:
    """``base`` and ``tuned`` of one architecture. ``tuned`` may be ``base`` under PEFT, or ``base`` itself (no change).

    Raises ``ModelError`` if vocabulary, width or depth differ, because then activations cannot be subtracted.
    """

    base: nn.Module
    tuned: nn.Module

    def __post_init__(self) -> None:
        shapes = [_shape(model) for model in (self.base, self.tuned)]
        for name, ours, theirs in zip(("vocabulary", "hidden size", "number of layers"), *shapes, strict=True):
            if ours != theirs:
                raise ModelError(
                    f"The pair differs in {name} (base {ours}, tuned {theirs}). Give a model and a fine-tune of it."
                )

    @property
    def is_adapter(self) -> bool:
        """Whether both sides share their weights and differ by an adapter only."""
        return isinstance(self.tuned, PeftModel) and self.tuned.get_base_model() is self.base

    @contextlib.contextmanager
    def side(self, which: Side) -> Iterator[nn.Module]:
        """Yield one side of the pair. With an adapter, ``base`` is valid only inside the block."""
        if which == "tuned" or not self.is_adapter:
            yield self.tuned if which == "tuned" else self.base
            return
        # PEFT's own disable_adapter() scans the whole model at each call, a quarter of a small model's time.
        required = [parameter.requires_grad for parameter in self._weights]
        for layer in self.adapted:
            layer.enable_adapters(False)
        try:
            yield self.base
        finally:
            for layer in self.adapted:
                layer.enable_adapters(True)  # this makes every weight of the adapter require gradients
            for parameter, requires_grad in zip(self._weights, required, strict=True):
                parameter.requires_grad_(requires_grad)

    @functools.cached_property
    def adapted(self) -> list[LoraLayer]:
        """The layers with an adapter; none for two separate models."""
        return [module for module in self.tuned.modules() if isinstance(module, LoraLayer)]

    @functools.cached_property
    def _weights(self) -> list[nn.Parameter]:
        modules = [layer for layer in self.adapted if isinstance(layer, nn.Module)]
        return [parameter for module in modules for parameter in module.parameters()]

    @property
    def depth(self) -> int:
        """The number of decoder layers. Layer l is the residual stream after block l, counted from 0."""
        return len(blocks(self.base))

    def check_layer(self, layer: int) -> int:
        """Return ``layer``. Raises ``ModelError`` if the model has no such layer."""
        if not 0 <= layer < self.depth:
            raise ModelError(f"Layer {layer} is out of range. Choose one of 0 to {self.depth - 1}.")
        return layer

    def check_moves(self, tokens: Sequence[Sequence[int]]) -> None:
        """Raise ``ModelError`` if both sides give the same logits on ``tokens``."""
        row = torch.tensor([list(tokens[0])], device=next(self.base.parameters()).device)
        logits: list[Tensor] = []
        for which in SIDES:
            with torch.inference_mode(), self.side(which) as model:
                logits.append(model(input_ids=row, use_cache=False).logits)
        if torch.equal(*logits):
            raise ModelError(
                "The logits of base and tuned are equal, so there is no difference to read. The adapter is zero or was "
                "not attached. Check which fine-tune is named."
            )


def _shape(model: nn.Module) -> tuple[int, int, int]:
    _, head = bare_parts(model)
    return head.weight.shape[0], head.weight.shape[1], len(blocks(model))


@contextlib.contextmanager
def open_pair(base: models.LoadedModel, tuned: str | Path) -> Iterator[Pair]:
    """Pair ``base`` with the fine-tune ``tuned`` inside the block.

    ``tuned``: an adapter folder, a folder with the differences of a full fine-tune, or any fine-tuned model that
    ``models.load`` takes (folder or hub id). An adapter that cannot be switched off exactly is merged into a
    second copy of the weights.
    """
    folder = tuned_folder(tuned)
    if folder and (folder / "adapter_config.json").is_file():
        if adapters.obstacle(folder):
            yield Pair(base.model, adapters.merged(base.model, folder))
            return
        with adapters.adapter(base.model, folder) as model:
            yield Pair(base.model, model)
    elif folder and (folder / CHANGE).is_file():
        yield Pair(base.model, _changed(base.model, folder / CHANGE))
    else:
        other = models.load(str(tuned), device=base.device, dtype=base.dtype)
        yield Pair(base.model, other.model)


def tuned_record(tuned: str, base_sha256: str) -> runs.Record | None:
    """Return the run record that ``tuned`` names (``"sweep/<run id>"``), or None if it names none.

    Raises ``ModelError`` for a fine-tune of another base model than that with the content hash ``base_sha256``.
    """
    roots = (files.outputs_root(), files.published_root())
    if not any(files.is_there(root / tuned / "run.json") for root in roots):
        return None
    record = runs.load(Path(tuned) if Path(tuned).is_absolute() else tuned)
    if record.model["sha256"] != base_sha256:
        raise ModelError(
            f"{record.ref} was trained on {record.model['name']} (content {record.model['sha256'][:8]}), and the "
            f"base given has content {base_sha256[:8]}. Set the parameter model to the record's own base."
        )
    return record


def tuned_folder(tuned: str | Path) -> Path | None:
    """Return the local folder that ``tuned`` names, or None for a hub id."""
    folder = files.from_root(tuned)
    return folder if folder.is_dir() else None


def _changed(base: nn.Module, path: Path) -> nn.Module:
    """Return a copy of ``base`` plus the differences in ``path``. Raises ``ModelError`` unless every tensor fits."""
    check_safetensors(path)
    change, tuned = load_file(path), copy.deepcopy(base)
    ours = dict(tuned.named_parameters())
    odd = sorted(name for name in ours.keys() ^ change.keys())
    odd += [name for name in ours.keys() & change.keys() if ours[name].shape != change[name].shape]
    if odd:
        raise ModelError(
            f"{path} was made for another model: {odd[0]} does not fit ({len(odd)} tensors in all). Use its own base."
        )
    with torch.no_grad():
        for name, parameter in ours.items():
            parameter.add_(change[name].to(parameter.device, parameter.dtype))
    return tuned


@contextlib.contextmanager
def interpolated(pair: Pair, share: float) -> Iterator[Pair]:
    """Yield the pair with tuned weights base + ``share`` * (tuned - base) inside the block.

    An adapter is scaled in place and restored; a full fine-tune needs a third copy of the weights.
    """
    if pair.is_adapter:
        kept = [dict(layer.scaling) for layer in pair.adapted]
        for layer in pair.adapted:
            layer.scaling = {name: value * share for name, value in layer.scaling.items()}
        try:
            yield pair
        finally:
            for layer, scaling in zip(pair.adapted, kept, strict=True):
                layer.scaling = scaling
        return
    between = copy.deepcopy(pair.tuned)
    start = dict(pair.base.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for name, ours in between.named_parameters():  # a tune may have untied what the base shares
            ours.copy_(torch.lerp(start[name], ours, share))
    yield Pair(pair.base, between)

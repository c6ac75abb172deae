"""A base model and its fine-tune, of which a LoRA pair is one copy of the weights with the adapter off and on."""

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
from helpers.lm import models
from helpers.lm.folders import check_safetensors
from helpers.lm.models import decoder_and_head
from helpers.records import runs

Side = Literal["base", "tuned"]
SIDES: tuple[Side, Side] = ("base", "tuned")
CHANGE = "change.safetensors"
"""File of a full fine-tune kept as differences from its base model, by parameter name."""


@dataclass(frozen=True)
class Pair:
    """``base`` and ``tuned`` of one architecture. ``tuned`` may be ``base`` under PEFT, or ``base`` itself (no change).

    Raises ``ModelError`` when vocabulary, width or depth differ: such a pair has no difference of activations.
    """

    base: nn.Module
    tuned: nn.Module

    def __post_init__(self) -> None:
        shapes = [_shape(model) for model in (self.base, self.tuned)]
        for name, ours, theirs in zip(("vocabulary", "hidden size", "number of layers"), *shapes, strict=True):
            if ours != theirs:
                raise ModelError(
                    f"The pair differs in {name} (base {ours}, tuned {theirs}): give a model and a fine-tune of it."
                )

    @property
    def is_adapter(self) -> bool:
        """Whether both sides share their weights and differ by an adapter that is switched."""
        return isinstance(self.tuned, PeftModel) and self.tuned.get_base_model() is self.base

    @contextlib.contextmanager
    def side(self, which: Side) -> Iterator[nn.Module]:
        """One side of the pair; for an adapter, ``base`` holds only inside the block."""
        if which == "tuned" or not self.is_adapter:
            yield self.tuned if which == "tuned" else self.base
            return
        # PEFT's own disable_adapter() surveys the whole model at each call, a quarter of the time of a small model.
        asked = [parameter.requires_grad for parameter in self._weights]
        for layer in self.adapted:
            layer.enable_adapters(False)
        try:
            yield self.base
        finally:
            for layer in self.adapted:
                layer.enable_adapters(True)  # which has every weight of the adapter ask for gradients
            for parameter, asks in zip(self._weights, asked, strict=True):
                parameter.requires_grad_(asks)

    @functools.cached_property
    def adapted(self) -> list[LoraLayer]:
        """The layers that carry the adapter; none for two separate models."""
        return [module for module in self.tuned.modules() if isinstance(module, LoraLayer)]

    @functools.cached_property
    def _weights(self) -> list[nn.Parameter]:
        return [parameter for layer in self.adapted for parameter in layer.parameters()]

    @property
    def depth(self) -> int:
        """Number of decoder layers; layer l is the residual stream after block l, counted from 0."""
        return len(decoder_and_head(self.base)[0].layers)

    def check_layer(self, layer: int) -> int:
        """``layer`` itself; ``ModelError`` when the model has no such layer."""
        if not 0 <= layer < self.depth:
            raise ModelError(f"Layer {layer} is out of range: the pair has layers 0 to {self.depth - 1}.")
        return layer

    def check_moves(self, tokens: Sequence[Sequence[int]]) -> None:
        """Raise ``ModelError`` when both sides give the same logits on ``tokens``: nothing was trained or attached."""
        row = torch.tensor([list(tokens[0])], device=next(self.base.parameters()).device)
        logits: list[Tensor] = []
        for which in SIDES:
            with torch.inference_mode(), self.side(which) as model:
                logits.append(model(input_ids=row, use_cache=False).logits)
        if torch.equal(*logits):
            raise ModelError(
                "The logits of base and tuned are equal, so there is no difference to read: the adapter is zero or was "
                "not attached; check which fine-tune is named."
            )


def _shape(model: nn.Module) -> tuple[int, int, int]:
    decoder, head = decoder_and_head(model)
    return head.weight.shape[0], head.weight.shape[1], len(decoder.layers)


@contextlib.contextmanager
def open_pair(base: models.LoadedModel, tuned: str | Path) -> Iterator[Pair]:
    """Pair ``base`` with what ``tuned`` names, for the length of the block.

    ``tuned``: an adapter folder, a folder with the differences of a full fine-tune, or any fine-tuned model that
    ``models.load`` takes (folder or hub id).
    """
    folder = tuned_folder(tuned)
    if folder and (folder / "adapter_config.json").is_file():
        with models.adapter(base.model, folder) as model:
            yield Pair(base.model, model)
    elif folder and (folder / CHANGE).is_file():
        yield Pair(base.model, _changed(base.model, folder / CHANGE))
    else:
        other = models.load(str(tuned), device=base.device, dtype=base.dtype)
        yield Pair(base.model, other.model)


def tuned_record(tuned: str, base_sha256: str) -> runs.Record | None:
    """The run record that ``tuned`` names (``"sweep/<run id>"``); None when it names none.

    Raises ``ModelError`` for a fine-tune of another base model than that with the content hash ``base_sha256``.
    """
    roots = (files.outputs_root(), files.published_root())
    if not any(files.is_there(root / tuned / "run.json") for root in roots):
        return None
    record = runs.load(Path(tuned) if Path(tuned).is_absolute() else tuned)
    if record.model["sha256"] != base_sha256:
        raise ModelError(
            f"{record.ref} was trained on {record.model['name']} (content {record.model['sha256'][:8]}), and the "
            f"base given has content {base_sha256[:8]}: set the parameter model to the record's own base."
        )
    return record


def tuned_folder(tuned: str | Path) -> Path | None:
    """The folder on this machine that ``tuned`` names; None for a hub id."""
    folder = files.from_root(tuned)
    return folder if folder.is_dir() else None


def _changed(base: nn.Module, path: Path) -> nn.Module:
    """A copy of ``base`` plus the differences in ``path``; ``ModelError`` unless every tensor fits."""
    check_safetensors(path)
    change, tuned = load_file(path), copy.deepcopy(base)
    ours = dict(tuned.named_parameters())
    odd = sorted(name for name in ours.keys() ^ change.keys())
    odd += [name for name in ours.keys() & change.keys() if ours[name].shape != change[name].shape]
    if odd:
        raise ModelError(f"{path} was made for another model: {odd[0]} does not fit ({len(odd)} tensors in all).")
    with torch.no_grad():
        for name, parameter in ours.items():
            parameter.add_(change[name].to(parameter.device, parameter.dtype))
    return tuned


@contextlib.contextmanager
def interpolated(pair: Pair, share: float) -> Iterator[Pair]:
    """The pair whose tuned weights are base + ``share`` * (tuned - base), for the length of the block.

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
    with torch.no_grad():
        for ours, start in zip(between.parameters(), pair.base.parameters(), strict=True):
            ours.copy_(torch.lerp(start, ours, share))
    yield Pair(pair.base, between)

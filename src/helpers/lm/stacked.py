"""Train several LoRA adapters on the same rows, over one frozen base model, in one forward pass.

The packed rows are repeated for every adapter, end to end in one sequence. The base sees one long batch, and attention
keeps the copies apart like any other rows. Only the low-rank updates know which copy belongs to which adapter. Each
adapter has its own weight tensors, so optimiser, gradient norm and schedule are those of an adapter trained alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional

from helpers.base.errors import ModelError
from helpers.lm import forward, models
from helpers.lm.exact import ways_of
from helpers.lm.exact_training import own_loss, settle_training
from helpers.lm.forward import Layout
from helpers.lm.modes import restored
from helpers.lm.packed import logits_at, nll
from helpers.lm.parts import decoder_and_head

ADAPTER = "default"
"""PEFT's name for the adapter that ``models.attach_lora`` makes."""


@dataclass
class _Active:
    """The adapters of the next forward pass, shared by all layers."""

    adapters: list[int]


class _StackedLinear(nn.Module):
    """A frozen linear layer and the updates of several adapters, on rows [1, A T, in], one adapter after the other.

    ``y_a = base(x_a) + scale * drop(x_a) A_a' B_a'``. All adapters share one dropout mask, the one that each would draw
    alone from the same stream.
    """

    def __init__(self, base: nn.Module, lora: LoraLayer, count: int, active: _Active):
        super().__init__()
        self.base, self.active = base, active
        self.scale = lora.scaling[ADAPTER]
        dropout = lora.lora_dropout[ADAPTER]
        self.dropout = dropout.p if isinstance(dropout, nn.Dropout) else 0.0
        down, up = (weight.detach() for weight in _weights(lora))
        self.down = nn.ParameterList(down.clone() for _ in range(count))
        self.up = nn.ParameterList(up.clone() for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        adapters = self.active.adapters
        down_ari = torch.stack([self.down[a] for a in adapters])
        up_aor = torch.stack([self.up[a] for a in adapters])
        x_ati = x.reshape(len(adapters), -1, x.shape[-1]).to(down_ari.dtype)
        if self.training and self.dropout:
            x_ati = x_ati * functional.dropout(x_ati.new_ones(1, *x_ati.shape[1:]), self.dropout)
        update = torch.bmm(torch.bmm(x_ati, down_ari.transpose(1, 2)), up_aor.transpose(1, 2)) * self.scale
        result = self.base(x)
        return (result + update.view(result.shape)).to(result.dtype)


@dataclass
class Stack:
    """``count`` equal new adapters on ``model``. They replace its linear layers until ``stacked`` ends."""

    model: nn.Module
    count: int
    lora: dict[str, Any]
    layers: dict[str, _StackedLinear] = field(default_factory=dict)
    active: _Active = field(default_factory=lambda: _Active([]))

    def parameters(self, adapter: int) -> list[nn.Parameter]:
        """Return the weights of one adapter: A and B of each layer, in the order of the layers."""
        return [part[adapter] for layer in self.layers.values() for part in (layer.down, layer.up)]

    @contextlib.contextmanager
    def only(self, *adapters: int) -> Iterator[nn.Module]:
        """Run the model with these adapters only inside the block. With one adapter it is an ordinary model."""
        before, self.active.adapters = self.active.adapters, list(adapters)
        try:
            yield self.model
        finally:
            self.active.adapters = before

    def losses(
        self, rows: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], adapters: Sequence[int]
    ) -> Tensor:
        """Return the mean NLL [A] in nats over the positions ``targets`` of ``rows`` under each of ``adapters``."""
        wanted = torch.tensor([tokens[p] for tokens, ps in zip(rows, targets, strict=True) for p in ps])
        if ways_of(self.model).for_rows(max(map(len, rows))) != "packed":
            return torch.stack([self._loss(rows, targets, wanted, number) for number in adapters])
        single = Layout.of(rows, next(self.model.parameters()).device)
        with self.only(*adapters):
            hidden = forward.packed(self.model, single.repeated(len(adapters)))
        row = torch.tensor([r for r, ps in enumerate(targets) for _ in ps], device=single.index.device)
        before = torch.tensor([p - 1 for ps in targets for p in ps], device=single.index.device)
        hidden_atc = hidden.view(len(adapters), len(single.tokens), -1)
        _, head = decoder_and_head(self.model)
        logits = head(hidden_atc[:, single.index[row, before]]).flatten(0, 1).float()
        return nll(logits, wanted.repeat(len(adapters))).view(len(adapters), -1).mean(1)

    def settle(self) -> None:
        """Find out how rows are computed while the adapters train (see ``exact_training``); two stand for all."""
        some = range(min(2, self.count))

        def own(rows: Sequence[Sequence[int]]) -> Tensor:
            losses = []
            for adapter in some:
                with self.only(adapter) as model:
                    losses.append(own_loss(model, rows))
            return torch.stack(losses).mean()

        settle_training(self.model, "stacked", lambda rows, targets: self.losses(rows, targets, some).mean(), own)

    def _loss(
        self, rows: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], wanted: Tensor, adapter: int
    ) -> Tensor:
        """Return the mean NLL under one adapter, computed by itself."""
        with self.only(adapter) as model:
            return nll(logits_at(model, rows, targets), wanted).mean()

    def save(self, adapter: int, folder: Path) -> None:
        """Write one adapter into ``folder``, as ``models.save_adapter`` does. Call it after ``stacked`` has ended."""
        if any(isinstance(module, _StackedLinear) for module in self.model.modules()):
            raise ModelError("The adapters are still stacked on the model. Call save after the block of stacked().")
        wrapped = models.attach_lora(self.model, **self.lora)
        try:
            for path, lora in _lora_layers(wrapped).items():
                down, up = _weights(lora)
                down.data.copy_(self.layers[path].down[adapter])
                up.data.copy_(self.layers[path].up[adapter])
            models.save_adapter(wrapped, folder)
        finally:
            models.detach(wrapped)


@contextlib.contextmanager
def stacked(model: nn.Module, count: int, **lora: Any) -> Iterator[Stack]:
    """Put ``count`` adapters on ``model`` inside the block, each made by ``models.attach_lora(model, **lora)``."""
    if count < 1:
        raise ModelError(f"count is {count}, but a stack has at least one adapter. Raise count.")
    ways_of(model)
    decoder_and_head(model)  # both are tried on the bare model
    stack = Stack(model, count, lora)
    wrapped = models.attach_lora(model, **lora)
    places = _lora_layers(wrapped)
    models.detach(wrapped)
    linears = {path: model.get_submodule(path) for path in places}
    with restored(model):
        model.requires_grad_(False)
        for path, lora_layer in places.items():
            stack.layers[path] = _StackedLinear(linears[path], lora_layer, count, stack.active).train(model.training)
            model.set_submodule(path, stack.layers[path])
        try:
            yield stack
        finally:
            for path, linear in linears.items():
                model.set_submodule(path, linear)


def _lora_layers(model: PeftModel) -> dict[str, LoraLayer]:
    return {path: part for path, part in model.get_base_model().named_modules() if isinstance(part, LoraLayer)}


def _weights(lora: LoraLayer) -> tuple[nn.Parameter, nn.Parameter]:
    """Return A [r, in] and B [out, r] of one layer."""
    return lora.lora_A[ADAPTER].get_parameter("weight"), lora.lora_B[ADAPTER].get_parameter("weight")

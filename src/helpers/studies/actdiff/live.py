"""Change one layer's output inside a block."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from helpers.lm.parts import blocks, residual
from helpers.studies.actdiff.capture import run_layers
from helpers.studies.actdiff.pair import SIDES, Pair

Edit = Callable[[Tensor], Tensor]


@contextlib.contextmanager
def edited(model: nn.Module, layer: int, edit: Edit) -> Iterator[nn.Module]:
    """Yield the model, whose layer ``layer`` passes on ``edit(h_btd)`` instead of its output."""

    def hook(_module: nn.Module, _inputs: object, output: Tensor | Sequence[Any]) -> Tensor | tuple[Any, ...]:
        state = residual(output)
        changed = edit(state).to(state.dtype)
        return changed if isinstance(output, Tensor) else (changed, *output[1:])

    handle = blocks(model)[layer].register_forward_hook(hook)
    try:
        yield model
    finally:
        handle.remove()


def single_token_difference(pair: Pair, token: int, layer: int) -> Tensor:
    """Return the difference [D] after ``layer`` on the input ``token`` alone, without any context."""
    outputs: list[Tensor] = []
    row = torch.tensor([[token]], device=next(pair.base.parameters()).device)
    for which in SIDES:
        with torch.inference_mode(), pair.side(which) as model:
            run_layers(model, row, [pair.check_layer(layer)], lambda _, h_btd: outputs.append(h_btd[0, 0].cpu()))
    return outputs[1] - outputs[0]

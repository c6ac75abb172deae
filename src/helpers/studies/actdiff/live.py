"""Reaching into a forward pass: change one layer's output for the length of a block."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from helpers.lm.models import decoder_and_head
from helpers.studies.actdiff.capture import run_layers
from helpers.studies.actdiff.pair import SIDES, Pair

Edit = Callable[[Tensor], Tensor]


@contextlib.contextmanager
def edited(model: nn.Module, layer: int, edit: Edit) -> Iterator[nn.Module]:
    """The model whose layer ``layer`` hands on ``edit(h_btd)`` instead of its output."""

    def hook(_module: nn.Module, _inputs: object, output: Tensor | tuple) -> Tensor | tuple:
        if isinstance(output, tuple):
            return (edit(output[0]).to(output[0].dtype), *output[1:])
        return edit(output).to(output.dtype)

    handle = decoder_and_head(model)[0].layers[layer].register_forward_hook(hook)
    try:
        yield model
    finally:
        handle.remove()


def single_token_difference(pair: Pair, token: int, layer: int) -> Tensor:
    """Difference [D] after ``layer`` on an input of ``token`` alone, with no context at all."""
    found: list[Tensor] = []
    row = torch.tensor([[token]], device=next(pair.base.parameters()).device)
    for which in SIDES:
        with torch.inference_mode(), pair.side(which) as model:
            run_layers(model, row, [pair.check_layer(layer)], lambda _, h_btd: found.append(h_btd[0, 0].cpu()))
    return found[1] - found[0]

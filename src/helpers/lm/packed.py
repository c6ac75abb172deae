"""Logits of rows of different lengths, packed where the model allows it, and the one place where a loss is computed.

No label is ever given to a library: a causal LM shifts ``labels`` itself, and if the caller shifts them too, the model
learns token t+2. Here targets are addressed by position.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from helpers.base.errors import ModelError
from helpers.lm import forward
from helpers.lm.exact import ways_of
from helpers.lm.forward import Layout
from helpers.lm.parts import decoder_and_head


def hidden_states(model: nn.Module, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Layout]:
    """Return the last hidden states [T, C] of ``rows``, packed, and their layout."""
    layout = Layout.of(rows, next(model.parameters()).device)
    return forward.packed(model, layout), layout


def logits_at(model: nn.Module, rows: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]) -> Tensor:
    """Return the fp32 logits [P, V] that predict token ``positions[r][i]`` of row r, for position 1 or later.

    They are those of the model's own forward on each row alone, computed in the way that ``exact`` found to give them.
    The head runs at these positions only; at every token it would cost more than the rest of a small model.
    """
    if any(p < 1 for ps in positions for p in ps):
        raise ModelError("Nothing precedes token 0 of a row, so no logits predict it. Leave position 0 out.")
    _, head = decoder_and_head(model)
    way = ways_of(model).for_rows(max(map(len, rows)))
    if way == "single":
        alone = [forward.padded(model, [row])[0, [p - 1 for p in ps]] for row, ps in zip(rows, positions, strict=True)]
        return head(torch.cat(alone)).float()
    if way == "padded":
        hidden_btc, places = forward.padded(model, rows), None
    else:
        hidden_tc, layout = hidden_states(model, rows)
        hidden_btc, places = hidden_tc, layout.index
    row = torch.tensor([r for r, ps in enumerate(positions) for _ in ps], device=hidden_btc.device)
    before = torch.tensor([p - 1 for ps in positions for p in ps], device=hidden_btc.device)
    return head(hidden_btc[row, before] if places is None else hidden_btc[places[row, before]]).float()


def nll(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the negative log-likelihood [P] in nats of ``targets`` [P] under ``logits`` [P, V], without any shift."""
    return functional.cross_entropy(logits.float(), targets.to(logits.device), reduction="none")

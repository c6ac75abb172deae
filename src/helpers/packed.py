"""Forward passes without padding, and the one place where a loss is computed from logits.

Rows of different lengths are laid end to end in one sequence ``[1, T]``. Every linear layer then works on real
tokens only; the attention of each row is kept apart by laying q, k and v out as right-padded rows for that one
operation, where causality alone keeps a row's tokens from seeing its padding (no mask is needed).

No label is ever handed to a library: a causal LM that is given ``labels`` shifts them itself, and a second shift by
the caller is how a model comes to be trained on token t+2. Targets here are addressed by position.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from helpers.errors import ModelError
from helpers.models import decoder_and_head

IMPLEMENTATION = "claimbook"


@dataclass(frozen=True)
class Layout:
    """Where each token of a packed sequence stands: ``row`` and ``position`` [T], for ``rows`` rows of ``longest``."""

    row: Tensor
    position: Tensor
    rows: int
    longest: int

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device | str = "cpu") -> Layout:
        """Layout of rows with these ``lengths`` laid end to end."""
        row = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
        position = torch.cat([torch.arange(length) for length in lengths])
        return cls(row.to(device), position.to(device), len(lengths), max(lengths))

    def spread(self, packed_htd: Tensor) -> Tensor:
        """[H, T, D] -> [rows, H, longest, D], zeros where a row has ended."""
        heads, _, width = packed_htd.shape
        rows = packed_htd.new_zeros(self.rows, self.longest, heads, width)
        rows = rows.index_put((self.row, self.position), packed_htd.transpose(0, 1))
        return rows.transpose(1, 2)

    def gather(self, rows_bhtd: Tensor) -> Tensor:
        """[rows, H, longest, D] -> [T, H, D], the inverse of ``spread``."""
        return rows_bhtd.transpose(1, 2)[self.row, self.position]


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    layout: Layout | None = None,
    key_mask: Tensor | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """Attention for packed rows (``layout``), for a left-padded prefill and for cached decoding (``key_mask`` [B, S]).

    q [B, H, T, D]; k, v [B, G, S, D] with G dividing H (grouped queries). Returns [B, T, H, D].
    """
    window = getattr(module, "sliding_window", None)
    if (window is not None and key.shape[2] > window) or kwargs.get("softcap") is not None:
        raise ModelError(
            f"{type(module).__name__} uses a sliding window shorter than these {key.shape[2]} tokens, or soft-capped "
            "logits, which the packed forward does not compute: use a model without them or shorter rows."
        )
    if layout is not None:
        q, k, v = (layout.spread(states[0]) for states in (query, key, value))
        out = functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, dropout_p=dropout, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
        )
        return layout.gather(out).unsqueeze(0), None
    if query.shape[2] == 1:
        return _decode(query, key, value, key_mask, scaling), None
    length = query.shape[2]
    causal = torch.ones(length, key.shape[2], dtype=torch.bool, device=query.device).tril(key.shape[2] - length)
    # A padding token sees itself: a row of the softmax that is masked everywhere would be NaN and spread.
    mask = (causal & key_mask[:, None, :]) | torch.eye(length, key.shape[2], dtype=torch.bool, device=query.device)
    out = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask[:, None], scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
    )
    return out.transpose(1, 2), None


def _decode(query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None, scaling: float | None) -> Tensor:
    """One query a row, by group: keys and values are read where they lie, never repeated for each query head."""
    batch, heads, _, width = query.shape
    groups = key.shape[1]
    q = query.reshape(batch, groups, heads // groups, width)
    scores = torch.matmul(q, key.transpose(2, 3)) * (width**-0.5 if scaling is None else scaling)
    if key_mask is not None:
        scores = scores.masked_fill(~key_mask[:, None, None, :], float("-inf"))
    weights = torch.softmax(scores.float(), dim=-1).to(value.dtype)
    return torch.matmul(weights, value).reshape(batch, 1, heads, width)


ALL_ATTENTION_FUNCTIONS.register(IMPLEMENTATION, attention)


@contextlib.contextmanager
def packed_attention(model: nn.Module) -> Iterator[nn.Module]:
    """Give the decoder of ``model`` the attention above for the length of the block; yields the decoder."""
    decoder, _ = decoder_and_head(model)
    config = decoder.config
    before = config._attn_implementation
    config._attn_implementation = IMPLEMENTATION
    try:
        yield decoder
    finally:
        config._attn_implementation = before


def hidden_states(model: nn.Module, rows: Sequence[Sequence[int]]) -> tuple[Tensor, list[int]]:
    """Last hidden states [T, C] of ``rows`` laid end to end, and the offset at which each row starts."""
    lengths = [len(row) for row in rows]
    offsets = [0]
    for length in lengths[:-1]:
        offsets.append(offsets[-1] + length)
    with packed_attention(model) as decoder:
        device = next(decoder.parameters()).device
        layout = Layout.of(lengths, device)
        tokens = torch.tensor([token for row in rows for token in row], device=device)
        output = decoder(input_ids=tokens[None], position_ids=layout.position[None], use_cache=False, layout=layout)
    return output.last_hidden_state[0], offsets


def logits_at(model: nn.Module, rows: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]) -> Tensor:
    """fp32 logits [P, V] that predict token ``positions[r][i]`` of row r; position 0 is refused: nothing precedes it.

    The head is applied at these positions only: at every token it would cost more than the rest of a small model.
    """
    hidden, offsets = hidden_states(model, rows)
    wanted = [offset + p - 1 for offset, ps in zip(offsets, positions, strict=True) for p in ps]
    if any(p < 1 for ps in positions for p in ps):
        raise ModelError("Nothing precedes token 0 of a row, so no logits predict it: leave position 0 out.")
    _, head = decoder_and_head(model)
    return head(hidden[torch.tensor(wanted, device=hidden.device)]).float()


def nll(logits: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood [P] in nats of ``targets`` [P] under ``logits`` [P, V], which are aligned: no shift."""
    return functional.cross_entropy(logits.float(), targets.to(logits.device), reduction="none")

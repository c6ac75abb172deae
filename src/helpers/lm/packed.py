"""Forward passes without padding, and the one place where a loss is computed from logits.

Rows of different lengths lie end to end in one sequence ``[1, T]``. Prefixes that rows share (a persona's system
prompt) are stored once, so linear layers process every real token exactly once. Only for attention are q, k and v laid
out as right-padded rows; causality hides the padding, so no mask is needed. Losses and gradients equal those of the
rows one by one. Under dropout, rows share the mask of their shared prefix.

No label is ever given to a library: a causal LM shifts ``labels`` itself, and if the caller shifts them too, the model
learns token t+2. Here targets are addressed by position.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from helpers.base.errors import ModelError
from helpers.lm.models import decoder_and_head

IMPLEMENTATION = "claimbook"


@dataclass(frozen=True)
class Layout:
    """Where the tokens of several rows lie in one packed sequence of T tokens.

    A token is computed once for all rows that agree up to and including it, because causal attention gives it the same
    activations in each. ``index`` [rows, longest] maps each (row, position) to its packed place, ``home`` [T] maps each
    packed token to one flattened (row, position), and ``position`` [T] is its position within its rows.
    """

    tokens: Tensor
    position: Tensor
    index: Tensor
    home: Tensor

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> Layout:
        """Lay out ``rows`` with shared prefixes merged. Places past the end of a row point at its last token."""
        longest = max(map(len, rows))
        places: dict[tuple[int, int], int] = {}
        tokens, position, home, index = [], [], [], []
        for number, row in enumerate(rows):
            last, path = -1, []
            for at, token in enumerate(row):
                if (last, token) not in places:
                    places[last, token] = len(tokens)
                    tokens.append(token)
                    position.append(at)
                    home.append(number * longest + at)
                last = places[last, token]
                path.append(last)
            index.append(path + [last] * (longest - len(row)))
        return cls(*(torch.tensor(values, device=device) for values in (tokens, position, index, home)))

    def spread(self, packed_htd: Tensor) -> Tensor:
        """Unpack [H, T, D] into rows [rows, H, longest, D]."""
        heads, _, width = packed_htd.shape
        rows = packed_htd.index_select(1, self.index.flatten())
        return rows.view(heads, *self.index.shape, width).transpose(0, 1)

    def gather(self, rows_bhtd: Tensor) -> Tensor:
        """Pack [rows, H, longest, D] into [T, H, D], taking a shared token from the first row that has it."""
        rows = rows_bhtd.transpose(1, 2)
        return rows.reshape(-1, *rows.shape[2:]).index_select(0, self.home)


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
    """Attend over packed rows (``layout``), or in a left-padded prefill or cached decoding (``key_mask`` [B, S]).

    q [B, H, T, D]; k, v [B, G, S, D] with G dividing H (grouped queries). Returns [B, T, H, D].
    """
    window = getattr(module, "sliding_window", None)
    if (window is not None and key.shape[2] > window) or kwargs.get("softcap") is not None:
        raise ModelError(
            f"{type(module).__name__} uses soft-capped logits or a sliding window shorter than these {key.shape[2]} "
            "tokens, and the packed forward pass supports neither. Use another model, or shorter rows."
        )
    if layout is not None:
        q, k, v = (layout.spread(states[0]) for states in (query, key, value))
        out = functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, dropout_p=dropout, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
        )
        return layout.gather(out).unsqueeze(0), None
    if key_mask is None:
        raise ModelError(
            "Attention was called with neither a layout of packed rows nor a mask of the keys. Run the model inside "
            "hidden_states or generate."
        )
    if query.shape[2] == 1:
        return _decode(query, key, value, key_mask, scaling), None
    length = query.shape[2]
    causal = torch.ones(length, key.shape[2], dtype=torch.bool, device=query.device).tril(key.shape[2] - length)
    # A padding token attends to itself: a softmax row that is masked everywhere would be NaN, and NaN spreads.
    mask = (causal & key_mask[:, None, :]) | torch.eye(length, key.shape[2], dtype=torch.bool, device=query.device)
    out = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask[:, None], scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
    )
    return out.transpose(1, 2), None


def _decode(query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor, scaling: float | None) -> Tensor:
    """Attend with one query per row. Keys and values are read in place, not repeated for the query heads of a group."""
    batch, heads, _, width = query.shape
    groups = key.shape[1]
    q = query.reshape(batch, groups, heads // groups, width)
    scores = torch.matmul(q, key.transpose(2, 3)) * (width**-0.5 if scaling is None else scaling)
    scores = scores.masked_fill(~key_mask[:, None, None, :], float("-inf"))
    weights = torch.softmax(scores.float(), dim=-1).to(value.dtype)
    return torch.matmul(weights, value).reshape(batch, 1, heads, width)


ALL_ATTENTION_FUNCTIONS.register(IMPLEMENTATION, attention)


@contextlib.contextmanager
def packed_attention(model: nn.Module) -> Iterator[PreTrainedModel]:
    """Give the decoder of ``model`` the attention above inside the block; yield the decoder."""
    decoder, _ = decoder_and_head(model)
    config = decoder.config
    before = config._attn_implementation
    config._attn_implementation = IMPLEMENTATION
    try:
        yield decoder
    finally:
        config._attn_implementation = before


def hidden_states(model: nn.Module, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Layout]:
    """Return the last hidden states [T, C] of ``rows``, packed, and their layout."""
    with packed_attention(model) as decoder:
        layout = Layout.of(rows, next(decoder.parameters()).device)
        output = decoder(
            input_ids=layout.tokens[None], position_ids=layout.position[None], use_cache=False, layout=layout
        )
    return output.last_hidden_state[0], layout


def logits_at(model: nn.Module, rows: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]) -> Tensor:
    """Return the fp32 logits [P, V] that predict token ``positions[r][i]`` of row r, for position 1 or later.

    The head runs at these positions only; at every token it would cost more than the rest of a small model.
    """
    if any(p < 1 for ps in positions for p in ps):
        raise ModelError("Nothing precedes token 0 of a row, so no logits predict it. Leave position 0 out.")
    hidden, layout = hidden_states(model, rows)
    row = torch.tensor([r for r, ps in enumerate(positions) for _ in ps], device=hidden.device)
    before = torch.tensor([p - 1 for ps in positions for p in ps], device=hidden.device)
    _, head = decoder_and_head(model)
    return head(hidden[layout.index[row, before]]).float()


def nll(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the negative log-likelihood [P] in nats of ``targets`` [P] under ``logits`` [P, V], without any shift."""
    return functional.cross_entropy(logits.float(), targets.to(logits.device), reduction="none")

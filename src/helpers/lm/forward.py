"""Forward passes without padding: the layout of packed rows, and the attention that keeps them apart.

Rows of different lengths are laid end to end in one sequence ``[1, T]``, and beginnings that rows share (a persona's
system prompt) are laid down once. Every linear layer then works on real tokens only, each once; for attention alone q,
k and v are laid out as right-padded rows, where causality keeps a row's tokens from seeing its padding (no mask is
needed). Whether a model computes such rows as it computes each alone is settled in ``exact``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from helpers.base.errors import ModelError
from helpers.lm.parts import bare_parts, decoder_and_head

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

    def repeated(self, count: int) -> Layout:
        """Return the layout of the same rows ``count`` times, each copy with tokens of its own."""
        tokens, rows = len(self.tokens), self.index.numel()
        shift = torch.arange(count, device=self.tokens.device)
        return Layout(
            tokens=self.tokens.repeat(count),
            position=self.position.repeat(count),
            index=(self.index + tokens * shift[:, None, None]).flatten(0, 1),
            home=(self.home + rows * shift[:, None]).flatten(),
        )

    def spread(self, packed_htd: Tensor) -> Tensor:
        """Unpack [H, T, D] into rows [rows, H, longest, D]."""
        heads, _, width = packed_htd.shape
        rows = packed_htd.index_select(1, self.index.flatten())
        return rows.view(heads, *self.index.shape, width).transpose(0, 1)

    def gather(self, rows_bhtd: Tensor) -> Tensor:
        """Pack [rows, H, longest, D] into [T, H, D], taking a shared token from the first row that has it."""
        rows = rows_bhtd.transpose(1, 2)
        return rows.reshape(-1, *rows.shape[2:]).index_select(0, self.home)


_IMPLIED = {"position_ids", "cache_position", "use_cache", "output_attentions", "output_hidden_states", "return_dict"}
"""Arguments that change nothing here: positions are in q and k already, and the rest is about what is returned."""


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

    q [B, H, T, D]; k, v [B, G, S, D] with G dividing H (grouped queries). Returns [B, T, H, D]. Under a sliding window
    of w tokens, a token sees itself and the w - 1 before it. Raises ``ModelError`` for any other argument, because
    nobody knows what it would change.
    """
    window = kwargs.pop("sliding_window", getattr(module, "sliding_window", None))
    _refuse_unknown(module, attention_mask, kwargs)
    if not isinstance(window, int | None):
        raise ModelError(f"{type(module).__name__} has a sliding window of {window!r}, which is no number of tokens.")
    if layout is not None:
        q, k, v = (layout.spread(states[0]) for states in (query, key, value))
        longest = q.shape[2]
        band = None if window is None or longest <= window else _causal(longest, longest, window, q.device)
        out = _attend(q, k, v, attn_mask=band, is_causal=band is None, dropout_p=dropout, scale=scaling)
        return layout.gather(out).unsqueeze(0), None
    if key_mask is None:
        raise ModelError(
            f"{type(module).__name__} is handed neither the layout of packed rows nor a mask of the keys. Run "
            "it inside hidden_states or generate; where its layers pass nothing on, compute rows by its own forward."
        )
    length, keys = query.shape[2], key.shape[2]
    if length == 1:
        if window is not None and keys > window:
            key_mask = key_mask & (torch.arange(keys, device=query.device) >= keys - window)
        return _decode(query, key, value, key_mask, scaling), None
    causal = _causal(length, keys, window, query.device)
    # A padding token attends to itself: a softmax row that is masked everywhere would be NaN, and NaN spreads.
    mask = (causal & key_mask[:, None, :]) | torch.eye(length, keys, dtype=torch.bool, device=query.device)
    return _attend(query, key, value, attn_mask=mask[:, None], scale=scaling).transpose(1, 2), None


def _attend(query: Tensor, key: Tensor, value: Tensor, **how: Any) -> Tensor:
    """Attend as PyTorch does. On a CPU its bf16 kernel is slower than that of fp32, above all backward."""
    q, k, v = query, key, value
    if query.device.type == "cpu" and query.dtype == torch.bfloat16:
        q, k, v = q.float(), k.float(), v.float()
    grouped = q.shape[1] != k.shape[1]
    return functional.scaled_dot_product_attention(q, k, v, enable_gqa=grouped, **how).to(query.dtype)


def _refuse_unknown(module: nn.Module, attention_mask: Tensor | None, kwargs: dict[str, object]) -> None:
    given = {name: value for name, value in kwargs.items() if value is not None and name not in _IMPLIED}
    if given.pop("is_causal", True) is not True or getattr(module, "is_causal", True) is False:
        given["is_causal"] = False
    if attention_mask is not None:
        given["attention_mask"] = attention_mask
    if given:
        raise ModelError(
            f"{type(module).__name__} asks attention for {' and '.join(sorted(given))}, which packed rows do not have. "
            "Compute its rows by the model's own forward."
        )


def _causal(length: int, keys: int, window: int | None, device: torch.device) -> Tensor:
    """Return which of ``keys`` each of the last ``length`` tokens sees, [length, keys]."""
    seen = torch.ones(length, keys, dtype=torch.bool, device=device).tril(keys - length)
    return seen if window is None else seen.triu(keys - length - window + 1)


def _decode(query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor, scaling: float | None) -> Tensor:
    """Attend with one query per row. Keys and values are read in place, not repeated for the query heads of a group."""
    batch, heads, _, width = query.shape
    groups = key.shape[1]
    q = query.reshape(batch, groups, heads // groups, width)
    scores = torch.matmul(q, key.transpose(2, 3)) * (width**-0.5 if scaling is None else scaling)
    scores = scores.masked_fill(~key_mask[:, None, None, :], float("-inf"))
    weights = torch.softmax(scores.float(), dim=-1).to(value.dtype)
    return torch.matmul(weights, value).reshape(batch, 1, heads, value.shape[-1])


ALL_ATTENTION_FUNCTIONS.register(IMPLEMENTATION, attention)


@contextlib.contextmanager
def packed_attention(model: nn.Module) -> Iterator[PreTrainedModel]:
    """Give the decoder of ``model`` the attention above inside the block; yield the decoder."""
    decoder, _ = decoder_and_head(model)  # tried under the model's own attention
    config = decoder.config
    before = config._attn_implementation
    config._attn_implementation = IMPLEMENTATION
    try:
        yield decoder
    finally:
        config._attn_implementation = before


def packed(model: nn.Module, layout: Layout) -> Tensor:
    """Return the last hidden states [T, C] of the packed rows of ``layout``."""
    with packed_attention(model) as decoder:
        output = decoder(
            input_ids=layout.tokens[None], position_ids=layout.position[None], use_cache=False, layout=layout
        )
    return output.last_hidden_state[0]


def padded(model: nn.Module, rows: Sequence[Sequence[int]]) -> Tensor:
    """Return the last hidden states [rows, longest, C] of right-padded rows, computed by the model's own attention."""
    decoder, _ = bare_parts(model)
    device, longest = next(decoder.parameters()).device, max(map(len, rows))
    tokens = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
    return decoder(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state

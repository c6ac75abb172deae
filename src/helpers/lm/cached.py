"""Cached generation: a left-padded prefill, then one token a step, with keys and values written in place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from helpers.lm.forward import packed_attention
from helpers.lm.parts import decoder_and_head

STEPS = 3
"""Cached steps on which a model is tried."""


class _RoomyLayer(DynamicLayer):
    """A cache layer with room for the whole completion. Steps write in place; concatenation would copy everything."""

    length: int = 0

    def __init__(self, room: int):
        super().__init__()
        self.room = room

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values [B, G, t, D]; return views of all so far, [B, G, S, D]."""
        batch, groups, new, width = key_states.shape
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.key_room = key_states.new_empty(batch, groups, self.room, width)
            self.value_room = value_states.new_empty(batch, groups, self.room, value_states.shape[-1])
        end = self.length + new
        self.key_room[:, :, self.length : end] = key_states
        self.value_room[:, :, self.length : end] = value_states
        self.length = end
        return self._show()

    def _show(self) -> tuple[Tensor, Tensor]:
        keys, values = self.key_room[:, :, : self.length], self.value_room[:, :, : self.length]
        self.keys, self.values = keys, values
        return keys, values

    def take(self, rows: Tensor, room: int) -> None:
        """Keep ``rows`` of the batch (repeats allowed), with room for ``room`` tokens in all."""
        for name in ("key_room", "value_room"):
            old = getattr(self, name)
            new = old.new_empty(len(rows), old.shape[1], room, old.shape[3])
            new[:, :, : self.length] = old[rows, :, : self.length]
            setattr(self, name, new)
        self._show()


class RoomyCache(Cache):
    """The keys and values of one batch, in roomy layers."""

    def __init__(self, layers: int, room: int):
        self.roomy = [_RoomyLayer(room) for _ in range(layers)]
        super().__init__(layers=list(self.roomy))

    def take(self, rows: Tensor, room: int) -> None:
        for layer in self.roomy:
            layer.take(rows, room)


def prefill(
    decoder: PreTrainedModel, prompts: list[list[int]], device: torch.device
) -> tuple[Tensor, Tensor, RoomyCache]:
    """Run the left-padded prompts; return last hidden states [P, C], the mask of real tokens [P, T] and the cache."""
    longest = max(map(len, prompts))
    tokens = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros(len(prompts), longest, dtype=torch.bool)
    for i, prompt in enumerate(prompts):
        tokens[i, longest - len(prompt) :] = torch.tensor(prompt)
        mask[i, longest - len(prompt) :] = True
    cache = RoomyCache(decoder.config.num_hidden_layers, longest)
    mask = mask.to(device)
    output = decoder(
        input_ids=tokens.to(device),
        position_ids=(mask.long().cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        key_mask=mask,
    )
    return output.last_hidden_state[:, -1], mask, cache


def step_on(decoder: PreTrainedModel, token: Tensor, position: Tensor, cache: RoomyCache, mask: Tensor) -> Tensor:
    """Run one more token [B] of every row, at ``position`` [B]; ``mask`` [B, S] has it. Return hidden states [B, C]."""
    output = decoder(
        input_ids=token[:, None], position_ids=position[:, None], past_key_values=cache, use_cache=True, key_mask=mask
    )
    return output.last_hidden_state[:, -1]


def logits(model: nn.Module, rows: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return logits [STEPS + 1, V] behind the last tokens of each of ``rows``, by prefill and cached steps."""
    with packed_attention(model) as decoder:
        device = next(decoder.parameters()).device
        hidden, mask, cache = prefill(decoder, [list(row[:-STEPS]) for row in rows], device)
        position, found = mask.sum(1), [hidden]
        cache.take(torch.arange(len(rows), device=device), mask.shape[1] + STEPS)
        for at in range(STEPS, 0, -1):
            token = torch.tensor([row[-at] for row in rows], device=device)
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            found.append(step_on(decoder, token, position, cache, mask))
            position = position + 1
    _, head = decoder_and_head(model)
    return list(head(torch.stack(found, dim=1)))

"""Sample from a chat model. Every completion has an address and a finish reason.

A completion's address is its prompt key and sample index. It names the stream of uniform numbers from which tokens are
drawn by inverse CDF. So a completion does not depend on its batch, on the batch size or on where a killed run resumed.

Prompts shared by n samples are prefilled once, keys and values are written in place instead of being concatenated at
every step, and rows that have finished leave the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from helpers.base.errors import DataError
from helpers.base.rng import numpy_stream
from helpers.lm.models import decoder_and_head
from helpers.lm.modes import evaluating
from helpers.lm.packed import packed_attention

CACHE_BYTES = 1 << 30
"""Memory for the keys and values of one batch. It limits how many rows decode together."""
MOST_ROWS = 256
"""More rows than this gain nothing on a CPU: arithmetic is then the limit, and a wide cache no longer fits in L2."""

COMPACT = 0.85
"""Finished rows are dropped when at most this share is unfinished. Dropping copies the cache, so not at every row."""
FEW = 256
"""How many of the best tokens are tried before the whole vocabulary is sorted."""


@dataclass(frozen=True)
class Prompt:
    """Token ids of one prompt and the key that names its random stream."""

    key: str
    tokens: list[int]


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. Temperature 0 is greedy; ``top_p`` keeps the smallest set of tokens with that mass."""

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0


@dataclass(frozen=True)
class Completion:
    """One sample of one prompt. ``tokens`` exclude the stop token; ``finish`` is ``stop`` or ``length``."""

    key: str
    index: int
    tokens: list[int]
    finish: str


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


class _RoomyCache(Cache):
    """The keys and values of one batch, in roomy layers."""

    def __init__(self, layers: int, room: int):
        self.roomy = [_RoomyLayer(room) for _ in range(layers)]
        super().__init__(layers=list(self.roomy))

    def take(self, rows: Tensor, room: int) -> None:
        for layer in self.roomy:
            layer.take(rows, room)


def generate(
    model: nn.Module,
    prompts: Sequence[Prompt],
    *,
    n: int,
    sampling: Sampling,
    stop: Sequence[int],
    seed: int,
    names: Sequence[str | int] = (),
    label: str = "generate",
) -> list[Completion]:
    """Draw ``n`` completions of every prompt; return them in the order of the prompts, samples 0..n-1 within each.

    ``stop`` holds the token ids that end a completion; ``seed`` and ``names`` address the random streams.
    """
    check_request(prompts, n, sampling, stop)
    decoder, head = decoder_and_head(model)
    done: dict[tuple[str, int], Completion] = {}
    bar = tqdm(total=len(prompts) * n, desc=label, leave=False)
    with bar, evaluating(model), torch.inference_mode(), packed_attention(model):
        for batch in _batches(decoder.config, decoder.dtype, prompts, n, sampling):
            for completion in _decode_batch(decoder, head, batch, sampling, frozenset(stop), seed, names):
                done[completion.key, completion.index] = completion
                bar.update()
    return [done[prompt.key, index] for prompt in prompts for index in range(n)]


def check_request(prompts: Sequence[Prompt], n: int, sampling: Sampling, stop: Sequence[int]) -> None:
    """Raise ``DataError`` if nothing, or nothing sensible, could be drawn."""
    if not prompts or n < 1:
        raise DataError(
            f"There is nothing to generate from {len(prompts)} prompts and n = {n}. Both must be at least 1."
        )
    if len({prompt.key for prompt in prompts}) < len(prompts):
        raise DataError("Two prompts share a key, so their samples would be the same. Give each prompt its own key.")
    if any(not prompt.tokens for prompt in prompts):
        raise DataError("A prompt has no tokens. Check the chat template.")
    if not stop:
        raise DataError(
            "No stop token is given, so every completion would run into the limit. Name the token that ends a turn."
        )
    if sampling.max_new_tokens < 1 or sampling.temperature < 0 or not 0 < sampling.top_p <= 1:
        raise DataError(f"{sampling} is out of bounds: max_new_tokens >= 1, temperature >= 0, 0 < top_p <= 1.")


def _batches(
    config: PreTrainedConfig, dtype: torch.dtype, prompts: Sequence[Prompt], n: int, sampling: Sampling
) -> list[list[tuple[Prompt, list[int]]]]:
    """Group prompts of similar length, for little padding, into batches of (prompt, sample indices)."""
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    token_bytes = 2 * config.num_hidden_layers * config.num_key_value_heads * width * dtype.itemsize
    longest = max(len(prompt.tokens) for prompt in prompts) + sampling.max_new_tokens
    rows = int(np.clip(CACHE_BYTES // (token_bytes * longest), 1, MOST_ROWS))
    batches, room = [[]], rows
    for prompt in sorted(prompts, key=lambda prompt: len(prompt.tokens)):
        indices = list(range(n))
        while indices:
            if room == 0:
                batches.append([])
                room = rows
            batches[-1].append((prompt, indices[:room]))
            taken = len(indices[:room])
            indices, room = indices[taken:], room - taken
    return batches


def _decode_batch(
    decoder: PreTrainedModel,
    head: nn.Module,
    batch: list[tuple[Prompt, list[int]]],
    sampling: Sampling,
    stop: frozenset[int],
    seed: int,
    names: Sequence[str | int],
) -> list[Completion]:
    device = next(decoder.parameters()).device
    hidden, mask, cache = _prefill(decoder, [prompt.tokens for prompt, _ in batch], device)
    rows = [(prompt.key, index) for prompt, indices in batch for index in indices]
    parent = torch.tensor([i for i, (_, indices) in enumerate(batch) for _ in indices], device=device)
    room = mask.shape[1] + sampling.max_new_tokens
    uniform = np.stack([numpy_stream(seed, *names, *row).random(sampling.max_new_tokens) for row in rows])
    uniform = torch.from_numpy(uniform).to(device=device, dtype=torch.float32)
    cache.take(parent, room)
    hidden, mask, position = hidden[parent], mask[parent], mask.sum(1)[parent]
    drawn: list[list[int]] = [[] for _ in rows]
    finish: dict[int, str] = {}
    slots = torch.arange(len(rows), device=device)
    for step in range(sampling.max_new_tokens):
        token = draw(head(hidden).float(), uniform[slots, step], sampling)
        for row, value in zip(slots.tolist(), token.tolist(), strict=True):
            if row not in finish and value in stop:
                finish[row] = "stop"
            elif row not in finish:
                drawn[row].append(value)
        going = [slot for slot, row in enumerate(slots.tolist()) if row not in finish]
        if not going or step == sampling.max_new_tokens - 1:
            break
        if len(going) <= COMPACT * len(slots):
            keep = torch.tensor(going, device=device)
            slots, token, mask, position = slots[keep], token[keep], mask[keep], position[keep]
            cache.take(keep, room)
        mask = torch.cat([mask, mask.new_ones(len(slots), 1)], dim=1)
        output = decoder(
            input_ids=token[:, None],
            position_ids=position[:, None],
            past_key_values=cache,
            use_cache=True,
            key_mask=mask,
        )
        hidden, position = output.last_hidden_state[:, -1], position + 1
    return [Completion(*rows[i], drawn[i], finish.get(i, "length")) for i in range(len(rows))]


def _prefill(
    decoder: PreTrainedModel, prompts: list[list[int]], device: torch.device
) -> tuple[Tensor, Tensor, _RoomyCache]:
    """Run the left-padded prompts; return last hidden states [P, C], the mask of real tokens [P, T] and the cache."""
    longest = max(map(len, prompts))
    tokens = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros(len(prompts), longest, dtype=torch.bool)
    for i, prompt in enumerate(prompts):
        tokens[i, longest - len(prompt) :] = torch.tensor(prompt)
        mask[i, longest - len(prompt) :] = True
    cache = _RoomyCache(decoder.config.num_hidden_layers, longest)
    mask = mask.to(device)
    output = decoder(
        input_ids=tokens.to(device),
        position_ids=(mask.long().cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        key_mask=mask,
    )
    return output.last_hidden_state[:, -1], mask, cache


def draw(logits: Tensor, uniform: Tensor, sampling: Sampling) -> Tensor:
    """Draw token ids [B] from fp32 ``logits`` [B, V] by inverse CDF at ``uniform`` [B] in [0, 1).

    Nucleus sampling (Holtzman et al. 2020, 1904.09751): a token is kept if the mass of all more probable
    tokens is below ``top_p``. The best ``FEW`` tokens nearly always suffice; otherwise the whole vocabulary is sorted.
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    probabilities = torch.softmax(logits / sampling.temperature, dim=-1)
    if sampling.top_p < 1 and logits.shape[-1] > 4 * FEW:
        best, ids = probabilities.topk(FEW, dim=-1)
        flat = (best.sum(-1) < sampling.top_p).nonzero().squeeze(-1)
        token = _inverse_cdf(best, ids, uniform, sampling.top_p)
        if len(flat):
            token[flat] = _inverse_cdf(*probabilities[flat].sort(-1, descending=True), uniform[flat], sampling.top_p)
        return token
    return _inverse_cdf(*probabilities.sort(-1, descending=True), uniform, sampling.top_p)


def _inverse_cdf(best: Tensor, ids: Tensor, uniform: Tensor, top_p: float) -> Tensor:
    """Draw from the nucleus of tokens ``ids`` [B, K], whose probabilities ``best`` [B, K] are in falling order."""
    mass = best.cumsum(-1)
    kept = best * (mass - best < top_p)
    mass = kept.cumsum(-1)
    choice = torch.searchsorted(mass, (uniform * mass[:, -1])[:, None], right=True)
    # Rounding can push u * mass past the last step of the CDF. Then the last kept token is drawn.
    last = (kept > 0).sum(-1, keepdim=True) - 1
    return ids.gather(-1, torch.minimum(choice, last)).squeeze(-1)

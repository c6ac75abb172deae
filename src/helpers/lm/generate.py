"""Sample from a chat model. Every completion has an address and a finish reason.

A completion's address is its prompt key and sample index. It names the stream of uniform numbers from which tokens are
drawn by inverse CDF. So a completion does not depend on its batch, on the batch size or on where a killed run resumed.

Prompts shared by n samples are prefilled once, keys and values are written in place instead of being concatenated at
every step, and rows that have finished leave the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import GenerationConfig, LogitsProcessor, PreTrainedConfig, PreTrainedModel

from helpers.base.errors import DataError
from helpers.base.rng import numpy_stream
from helpers.lm.cached import prefill, step_on
from helpers.lm.exact import ways_of
from helpers.lm.forward import packed_attention
from helpers.lm.modes import evaluating
from helpers.lm.parts import base_of, decoder_and_head
from helpers.lm.prompts import Completion, Prompt, Sampling

CACHE_BYTES = 1 << 30
"""Memory for the keys and values of one batch. It limits how many rows decode together."""
MOST_ROWS = 256
"""More rows than this gain nothing on a CPU: arithmetic is then the limit, and a wide cache no longer fits in L2."""

OWN_ROWS = 64
"""Rows of one call of transformers' own ``generate``."""

COMPACT = 0.85
"""Finished rows are dropped when at most this share is unfinished. Dropping copies the cache, so not at every row."""
FEW = 256
"""How many of the best tokens are tried before the whole vocabulary is sorted."""


def generate(
    model: nn.Module,
    prompts: Sequence[Prompt],
    *,
    n: int,
    sampling: Sampling,
    stop: Sequence[int],
    seed: int,
    names: Sequence[str | int] = (),
    first: int = 0,
    label: str = "generate",
) -> list[Completion]:
    """Draw ``n`` completions of every prompt; return them in the order of the prompts, samples ``first``.. within each.

    ``stop`` holds the token ids that end a completion; ``seed`` and ``names`` address the random streams.
    """
    check_request(prompts, n, sampling, stop)
    done: dict[tuple[str, int], Completion] = {}
    ways = ways_of(model)
    samples = range(first, first + n)
    batches = _cached(model, prompts, samples, sampling, stop, seed, names)
    if ways.for_generation(max(len(prompt.tokens) for prompt in prompts) + sampling.max_new_tokens) == "own":
        batches, label = _own(model, prompts, samples, sampling, stop, seed, names), f"{label} (rows: {ways})"
    bar = tqdm(total=len(prompts) * n, desc=label, leave=False)
    with bar, evaluating(model), torch.inference_mode():
        for batch in batches:
            for completion in batch:
                done[completion.key, completion.index] = completion
                bar.update()
    return [done[prompt.key, index] for prompt in prompts for index in samples]


def _cached(
    model: nn.Module,
    prompts: Sequence[Prompt],
    samples: range,
    sampling: Sampling,
    stop: Sequence[int],
    seed: int,
    names: Sequence[str | int],
) -> Iterator[list[Completion]]:
    """Draw batch by batch with our own cache."""
    decoder, head = decoder_and_head(model)
    with packed_attention(model):
        for batch in _batches(decoder.config, decoder.dtype, prompts, samples, sampling):
            yield _decode_batch(decoder, head, batch, sampling, frozenset(stop), seed, names)


class _Draws(LogitsProcessor):
    """Draws our own token at each step of transformers' ``generate`` and makes it the only one that can follow."""

    def __init__(self, uniform: Tensor, sampling: Sampling):
        self.uniform, self.sampling = uniform, sampling
        self.drawn: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        token = draw(scores.float(), self.uniform[:, len(self.drawn)], self.sampling)
        self.drawn.append(token)
        return torch.full_like(scores, float("-inf")).scatter(1, token[:, None], 0.0)


def _own(
    model: nn.Module,
    prompts: Sequence[Prompt],
    samples: range,
    sampling: Sampling,
    stop: Sequence[int],
    seed: int,
    names: Sequence[str | int],
) -> Iterator[list[Completion]]:
    """Draw by transformers' own ``generate``, prompts of one length at a time, so that nothing is padded."""
    base = base_of(model)
    device, config = next(base.parameters()).device, base.generation_config
    by_length: dict[int, list[tuple[Prompt, int]]] = {}
    for prompt in prompts:
        by_length.setdefault(len(prompt.tokens), []).extend((prompt, index) for index in samples)
    # Penalties and other settings of the model's own would change the logits that tokens are drawn from.
    base.generation_config = GenerationConfig()
    how = GenerationConfig(
        do_sample=False, max_new_tokens=sampling.max_new_tokens, eos_token_id=list(stop), pad_token_id=int(stop[0])
    )
    try:
        for rows in by_length.values():
            for start in range(0, len(rows), OWN_ROWS):
                part = rows[start : start + OWN_ROWS]
                draws = _Draws(_uniform([(p.key, index) for p, index in part], sampling, seed, names, device), sampling)
                tokens = torch.tensor([prompt.tokens for prompt, _ in part], device=device)
                base.generate(
                    input_ids=tokens, attention_mask=torch.ones_like(tokens), generation_config=how,
                    logits_processor=[draws],
                )  # fmt: skip
                drawn = torch.stack(draws.drawn, dim=1).tolist()
                yield [_cut(prompt.key, index, ids, stop) for (prompt, index), ids in zip(part, drawn, strict=True)]
    finally:
        base.generation_config = config


def _cut(key: str, index: int, drawn: list[int], stop: Sequence[int]) -> Completion:
    """Return a completion that ends before the first of the ``stop`` tokens in ``drawn``."""
    end = next((at for at, token in enumerate(drawn) if token in stop), None)
    return Completion(key, index, drawn[:end], "length" if end is None else "stop")


def _uniform(
    rows: Sequence[tuple[str, int]], sampling: Sampling, seed: int, names: Sequence[str | int], device: torch.device
) -> Tensor:
    """Return the uniform numbers [rows, max_new_tokens] of completions, each from the stream of its address."""
    numbers = np.stack([numpy_stream(seed, *names, *row).random(sampling.max_new_tokens) for row in rows])
    return torch.from_numpy(numbers).to(device=device, dtype=torch.float32)


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


def token_bytes(config: PreTrainedConfig, dtype: torch.dtype) -> int:
    """Return the bytes of the keys and values of one token in all layers."""
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return 2 * config.num_hidden_layers * groups * width * dtype.itemsize


def _batches(
    config: PreTrainedConfig, dtype: torch.dtype, prompts: Sequence[Prompt], samples: range, sampling: Sampling
) -> list[list[tuple[Prompt, list[int]]]]:
    """Group prompts of similar length, for little padding, into batches of (prompt, sample indices)."""
    longest = max(len(prompt.tokens) for prompt in prompts) + sampling.max_new_tokens
    rows = int(np.clip(CACHE_BYTES // (token_bytes(config, dtype) * longest), 1, MOST_ROWS))
    batches, room = [[]], rows
    for prompt in sorted(prompts, key=lambda prompt: len(prompt.tokens)):
        indices = list(samples)
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
    hidden, mask, cache = prefill(decoder, [prompt.tokens for prompt, _ in batch], device)
    rows = [(prompt.key, index) for prompt, indices in batch for index in indices]
    parent = torch.tensor([i for i, (_, indices) in enumerate(batch) for _ in indices], device=device)
    room = mask.shape[1] + sampling.max_new_tokens
    uniform = _uniform(rows, sampling, seed, names, device)
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
        hidden, position = step_on(decoder, token, position, cache, mask), position + 1
    return [Completion(*rows[i], drawn[i], finish.get(i, "length")) for i in range(len(rows))]


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

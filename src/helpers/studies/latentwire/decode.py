"""Decode from embeddings, alike for every channel: greedily, except that the first token may be sampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from helpers.base.rng import numpy_stream
from helpers.lm.generate import draw
from helpers.lm.prompts import Sampling
from helpers.studies.latentwire.lms import FrozenLM
from helpers.studies.latentwire.opening import Opening


@dataclass(frozen=True)
class Decoding:
    """Settings of one run, for text and latents alike."""

    max_new_tokens: int
    eos_ban_steps: int = 0
    first_token_temperature: float = 0.0
    first_token_top_p: float = 1.0


@dataclass(frozen=True)
class Decoded:
    """One answer: tokens without the end, how it finished, and the probability of an end at step one before any ban."""

    tokens: list[int]
    finish: str
    p_end: float


def decode(
    lm: FrozenLM, context_bcd: Tensor, lengths_b: Tensor, how: Decoding, *, seed: int, keys: Sequence[str],
    opening: Opening | None = None,
) -> list[Decoded]:  # fmt: skip
    """Decode after right-padded contexts [B, C, D] of ``lengths_b`` tokens; ``keys`` name the random streams.

    ``opening``: what the reader has read before all contexts. Rows of one length are then decoded together, because
    padding between the two would count as tokens of a sliding window.
    """
    if opening is None:
        return _decode(lm, context_bcd, lengths_b, how, seed, keys, None)
    decoded: dict[int, Decoded] = {}
    for length in lengths_b.unique().tolist():
        rows = (lengths_b == length).nonzero()[:, 0]
        these = [keys[int(row)] for row in rows]
        answers = _decode(lm, context_bcd[rows, :length], lengths_b[rows], how, seed, these, opening)
        decoded |= dict(zip(rows.tolist(), answers, strict=True))
    return [decoded[row] for row in range(len(keys))]


def _decode(
    lm: FrozenLM, context_bcd: Tensor, lengths_b: Tensor, how: Decoding, seed: int, keys: Sequence[str],
    opening: Opening | None,
) -> list[Decoded]:  # fmt: skip
    h_bcd, mask = _left_padded(context_bcd, lengths_b)
    read = opening.length if opening else 0
    mask = torch.cat([mask.new_ones(len(mask), read), mask], dim=1)
    uniform = torch.tensor([numpy_stream(seed, "first token", key).random() for key in keys], dtype=torch.float32)
    first = Sampling(how.max_new_tokens, how.first_token_temperature, how.first_token_top_p)
    tokens: list[list[int]] = [[] for _ in keys]
    finish: list[str | None] = [None] * len(keys)
    with torch.inference_mode():
        position = (mask.long().cumsum(1) - 1).clamp(min=0)
        past = opening.repeated(len(keys)) if opening else None
        out = lm.hidden(
            h_bcd, attention_mask=mask.long(), position_ids=position[:, read:], past_key_values=past, use_cache=True
        )
        logits = lm.head(out.last_hidden_state[:, -1]).float()
        ends = torch.tensor(list(lm.ends), device=logits.device)
        p_end = torch.softmax(logits, -1)[:, ends].sum(-1).tolist()
        for step in range(how.max_new_tokens):
            if step < how.eos_ban_steps:
                logits[:, ends] = float("-inf")
            token = draw(logits, uniform.to(logits.device), first) if step == 0 else logits.argmax(-1)
            for row, value in enumerate(token.tolist()):
                if finish[row] is None and value in lm.ends:
                    finish[row] = "stop"
                elif finish[row] is None:
                    tokens[row].append(value)
            if all(finish) or step + 1 == how.max_new_tokens:
                break
            mask = torch.cat([mask, mask.new_ones(len(keys), 1)], dim=1)
            position = position[:, -1:] + 1
            out = lm.hidden(
                lm.embed(token[:, None]), attention_mask=mask.long(), position_ids=position,
                past_key_values=out.past_key_values, use_cache=True,
            )  # fmt: skip
            logits = lm.head(out.last_hidden_state[:, -1]).float()
    return [Decoded(*row) for row in zip(tokens, [f or "length" for f in finish], p_end, strict=True)]


def _left_padded(context_bcd: Tensor, lengths_b: Tensor) -> tuple[Tensor, Tensor]:
    """Move rows to the right edge, so that all continue at one place; return them and the mask of real tokens."""
    longest = context_bcd.shape[1]
    at = torch.arange(longest, device=context_bcd.device)[None] - (longest - lengths_b)[:, None]
    mask = at >= 0
    rows = torch.arange(len(context_bcd), device=context_bcd.device)[:, None]
    return torch.where(mask[..., None], context_bcd[rows, at.clamp(min=0)], 0.0), mask


def answer_text(lm: FrozenLM, tokens: Sequence[int]) -> str:
    """Return the first line of decoded tokens, to be compared with the gold answers."""
    return lm.text(tokens).strip().partition("\n")[0].strip()

"""Evaluate the readers on the channels: the text, parts of it, nothing, or a prefix with or without information."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from helpers.base.rng import numpy_stream
from helpers.studies.latentwire.arms import TEXT_CHANNELS, WORDS
from helpers.studies.latentwire.compose import Composer
from helpers.studies.latentwire.decode import Decoding, answer_text, decode
from helpers.studies.latentwire.examples import Example
from helpers.studies.latentwire.lms import FrozenLM
from helpers.studies.latentwire.losses import teacher_logits, token_nll
from helpers.studies.latentwire.opening import Opening
from helpers.studies.latentwire.score import exact_match, f1


def text_middles(lm: FrozenLM, examples: Sequence[Example], channel: str, latents: int) -> list[Tensor]:
    """Return the part of each text that ``channel`` passes on, as embeddings [m, D].

    First and last parts have M tokens.
    """
    cut = {"text": slice(None), "first_tokens": slice(latents), "last_tokens": slice(-latents, None),
           "no_context": slice(0)}[channel]  # fmt: skip
    ids = [lm.ids(example.text)[cut] for example in examples]
    return [lm.embed(torch.tensor([row], dtype=torch.long))[0] for row in ids]


def partners(n: int, seed: int) -> list[int]:
    """Return for each example another one, whose latents it gets in the shuffled channel: a random cycle."""
    order = numpy_stream(seed, "shuffled").permutation(n).tolist()
    return [follower for _, follower in sorted(zip(order, order[1:] + order[:1], strict=True))]


def evaluate(
    lm: FrozenLM, composer: Composer, middles: Sequence[Tensor] | Tensor, examples: Sequence[Example], channel: str,
    how: Decoding, *, batch: int, seed: int, opening: Opening | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Return one row per example: the reader's answer, its scores, and the likelihood of the gold answer.

    NLL is in nats per token, teacher-forced, with labels shifted once (``nll``) or twice as in the log (``nll_twice``).
    ``first1`` and ``first5``: the gold answer's first token is the most likely one, or among the top five.
    ``opening``: what the reader has read before every text.
    """
    latent = channel not in TEXT_CHANNELS
    rows = []
    for start in range(0, len(examples), batch):
        some = list(range(start, min(start + batch, len(examples))))
        these = [middles[i] for i in some], [examples[i] for i in some]
        rows += _batch(lm, composer, *these, latent, how, seed, opening)
    table = pd.DataFrame(rows)
    table["question"], table["id"] = [e.text for e in examples], [e.id for e in examples]
    persona = f"reader {lm.side}, {WORDS[channel]}"
    return table.assign(index=range(len(examples)), persona=persona, role=channel, channel=channel, side=lm.side)


def _batch(
    lm: FrozenLM, composer: Composer, middles: Sequence[Tensor], examples: Sequence[Example], latent: bool,
    how: Decoding, seed: int, opening: Opening | None,
) -> list[dict[str, Any]]:  # fmt: skip
    with torch.inference_mode():
        context, lengths = composer.contexts(lm, middles, latent=latent, opened=opening is not None)
        gold = [composer.answer(lm, example.answers[0]) for example in examples]
        once, logits = _nll(lm, composer.aligned(), context, lengths, gold, opening)
        twice, _ = _nll(lm, composer.aligned("twice"), context, lengths, gold, opening)
        first = torch.tensor([ids[0] for ids in gold], device=logits.device)
        best = logits.topk(5, dim=-1).indices
    keys = [example.id for example in examples]
    written = decode(lm, context, lengths, how, seed=seed, keys=keys, opening=opening)
    return [
        {
            "text": (answer := answer_text(lm, one.tokens)), "gold": example.answers[0], "tokens": len(one.tokens),
            "finish": one.finish, "em": exact_match(answer, example.answers), "f1": f1(answer, example.answers),
            "first1": bool(top[0] == token), "first5": bool((top == token).any()), "nll": a, "nll_twice": b,
            "p_end": one.p_end,
        }
        for example, one, top, token, a, b in zip(examples, written, best, first, once, twice, strict=True)
    ]  # fmt: skip


def _nll(
    lm: FrozenLM, composer: Composer, context: Tensor, lengths: Tensor, gold: Sequence[Sequence[int]],
    opening: Opening | None,
) -> tuple[list[float], Tensor]:  # fmt: skip
    """Return the mean NLL of each row over its counted tokens, and the logits of the first position [B, V]."""
    labels = composer.labels(lm, gold)
    logits = teacher_logits(lm, context, lengths, labels, opening)
    nll_bs = torch.where(labels.counted, token_nll(logits, labels.targets), 0.0)
    return (nll_bs.sum(1) / labels.counted.sum(1)).tolist(), logits[:, 0]

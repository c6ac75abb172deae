"""Steering a model with a difference, at a strength that its perplexity on unrelated text can bear."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from helpers.base.errors import DataError
from helpers.lm import generate
from helpers.studies.actdiff.live import edited
from helpers.studies.actdiff.tune import Documents, document_losses

STRENGTHS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
BOUND = 1.5


def added(vector: Tensor, strength: float, norm: float):
    """Edit that adds ``strength * norm`` of the unit ``vector`` at every position."""
    step = torch.nn.functional.normalize(vector.float(), dim=0) * strength * norm
    return lambda h_btd: h_btd + step.to(h_btd.device, h_btd.dtype)


def perplexity_by_strength(
    model: nn.Module,
    vector: Tensor,
    layer: int,
    documents: Documents,
    *,
    norm: float,
    strengths: Sequence[float] = STRENGTHS,
) -> pd.DataFrame:
    """Perplexity on ``documents`` at each strength, 0 first: strength, perplexity.

    A strength is the length of what is added, in units of ``norm``, the usual length of an activation there.
    """
    rows = []
    for strength in (0.0, *strengths):
        with edited(model, layer, added(vector, strength, norm)):
            rows.append((strength, float(document_losses(model, documents).mean().exp())))
    return pd.DataFrame(rows, columns=["strength", "perplexity"])


def largest_strength(table: pd.DataFrame, bound: float = BOUND) -> float:
    """Largest strength up to which no perplexity exceeds ``bound`` times the unsteered one; ``DataError`` for none."""
    steered = table[table["strength"] > 0]
    over = steered.index[steered["perplexity"] / table["perplexity"][0] > bound]
    within = steered if over.empty else steered.loc[: over[0] - 1]
    if within.empty:
        raise DataError(
            f"Strength {steered['strength'].min()} already exceeds {bound} times the perplexity: try smaller."
        )
    return float(within["strength"].iloc[-1])


def continuations(
    model: nn.Module,
    vector: Tensor,
    layer: int,
    prompts: Sequence[Sequence[int]],
    *,
    strength: float,
    norm: float,
    stop: Sequence[int],
    new_tokens: int,
    samples: int,
    seed: int,
) -> pd.DataFrame:
    """Sampled continuations (temperature 1) under steering: prompt, index, tokens."""
    asked = [generate.Prompt(str(i), list(prompt)) for i, prompt in enumerate(prompts)]
    how = generate.Sampling(new_tokens, temperature=1.0)
    with edited(model, layer, added(vector, strength, norm)):
        # The same stream at every strength: what differs between rows is the steering, not the draw.
        found = generate.generate(
            model, asked, n=samples, sampling=how, stop=stop, seed=seed, names=("steer",), label="steer"
        )
    return pd.DataFrame([{"prompt": int(c.key), "index": c.index, "tokens": c.tokens} for c in found])

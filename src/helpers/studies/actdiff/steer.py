"""Steer a model with a difference, as strongly as its perplexity on unrelated text allows."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from helpers.base.errors import DataError
from helpers.lm import generate
from helpers.studies.actdiff.live import Edit, edited
from helpers.studies.actdiff.tune import Documents, document_losses

STRENGTHS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
BOUND = 1.5


def added(vector: Tensor, strength: float, norm: float) -> Edit:
    """Return the edit that adds ``strength * norm`` of the unit ``vector`` at every position."""
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
    """Return the perplexity on ``documents`` at each strength, 0 first: strength, perplexity.

    A strength is the length of the added vector in units of ``norm``, the usual length of an activation there.
    """
    rows = []
    for strength in (0.0, *strengths):
        with edited(model, layer, added(vector, strength, norm)):
            rows.append((strength, float(document_losses(model, documents).mean().exp())))
    return pd.DataFrame(rows, columns=["strength", "perplexity"])


def largest_strength(table: pd.DataFrame, bound: float = BOUND) -> float:
    """Return the largest strength up to which no perplexity exceeds ``bound`` times the unsteered one.

    Raises ``DataError`` if there is none.
    """
    steered = table[table["strength"] > 0]
    over = steered.index[steered["perplexity"] / table["perplexity"][0] > bound]
    within = steered if over.empty else steered.loc[: over[0] - 1]
    if within.empty:
        raise DataError(
            f"Strength {steered['strength'].min()} already exceeds {bound} times the perplexity. Try smaller strengths."
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
    """Sample continuations (temperature 1) under steering: prompt, index, tokens."""
    asked = [generate.Prompt(str(i), list(prompt)) for i, prompt in enumerate(prompts)]
    how = generate.Sampling(new_tokens, temperature=1.0)
    with edited(model, layer, added(vector, strength, norm)):
        # The same stream at every strength, so that rows differ by the steering and not by the draw.
        drawn = generate.generate(
            model, asked, n=samples, sampling=how, stop=stop, seed=seed, names=("steer",), label="steer"
        )
    return pd.DataFrame([{"prompt": int(c.key), "index": c.index, "tokens": c.tokens} for c in drawn])

"""Steering a model with a difference, at a strength that its perplexity on unrelated text can bear."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from helpers import generate, stats
from helpers.actdiff.live import edited
from helpers.actdiff.tune import Documents, document_losses
from helpers.errors import DataError
from helpers.rng import numpy_stream

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
    """Perplexity on ``documents`` at each strength (0 first), and its ratio to that at 0: strength, perplexity, ratio.

    A strength is the length of what is added, in units of ``norm``, the usual length of an activation there.
    """
    rows = []
    for strength in (0.0, *strengths):
        with edited(model, layer, added(vector, strength, norm)):
            rows.append((strength, float(document_losses(model, documents).mean().exp())))
    table = pd.DataFrame(rows, columns=["strength", "perplexity"])
    return table.assign(ratio=table["perplexity"] / table["perplexity"][0])


def largest_strength(table: pd.DataFrame, bound: float = BOUND) -> float:
    """Largest strength up to which no perplexity exceeds ``bound`` times the unsteered one; ``DataError`` for none."""
    steered = table[table["strength"] > 0]
    over = steered.index[steered["ratio"] > bound]
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


def domain_rate(table: pd.DataFrame, domain: Sequence[int], seed: int) -> stats.Interval:
    """Share of the continuations' tokens that belong to the domain, clustered by prompt."""
    wanted = set(domain)
    counts = table.assign(
        k=[sum(token in wanted for token in row) for row in table["tokens"]], n=table["tokens"].map(len)
    )
    clusters = counts.groupby("prompt")[["k", "n"]].sum()
    clusters = clusters[clusters["n"] > 0]
    return stats.rate(clusters["k"], clusters["n"], numpy_stream(seed, "domain_rate"))


def similarity(continued: Sequence[Sequence[int]], reference: Documents, broad: Documents) -> float:
    """Cosine of token frequencies with those of ``reference``, weighted by the log of a token's rarity in ``broad``."""
    common = Counter(token for document in broad for token in set(document))
    size = 1 + max(max(map(max, part)) for part in (reference, broad, [row for row in continued if len(row)]))
    weight = np.array([np.log((1 + len(broad)) / (1 + common[token])) for token in range(size)])
    vectors = [np.bincount(np.concatenate([np.asarray(row, dtype=int) for row in part]), minlength=size) * weight
               for part in (continued, reference)]  # fmt: skip
    lengths = [float(np.linalg.norm(vector)) for vector in vectors]
    if 0 in lengths:
        raise DataError("Only tokens that every broad document holds were generated, so the similarity is missing.")
    return float(vectors[0] @ vectors[1]) / (lengths[0] * lengths[1])

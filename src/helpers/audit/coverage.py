"""Simulate how often the intervals of `stats.clusters` hold what they should: the table behind their 95 %.

Clusters are drawn with rates from a Beta distribution of given mean and intra-class correlation, or all from one rate;
bounded means from shapes that the studies' seeds show. A cell of the table is the share of draws whose interval
holds the mean.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from helpers.base.rng import numpy_stream
from helpers.stats.clusters import bounded_mean, cluster_rate, crossed_rate
from helpers.stats.intervals import Interval

MEANS = (0.005, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99)
ALIKE = (0.0, 0.02, 0.1, 0.3)
SHAPES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "cosines near 1": lambda draw, n: 1 - 0.003 * draw.exponential(1, n).clip(0, 600),
    "cosines near .95": lambda draw, n: draw.normal(0.95, 0.02, n).clip(-1, 1),
    "cosines from .05 to .8": lambda draw, n: draw.uniform(0.05, 0.8, n),
    "cosines near 0, a tail above": lambda draw, n: (0.15 * draw.exponential(1, n) - 0.05).clip(-1, 1),
    "shares of 20": lambda draw, n: draw.binomial(20, draw.beta(4, 2, n)) / 20,
    "skewed shares": lambda draw, n: draw.beta(0.5, 6, n),
    "areas under curves": lambda draw, n: draw.beta(16, 4, n),
}
"""Values of one seed each, between -1 and 1, shaped as the published ones; means are taken from a million draws."""
COLLAPSES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "cosines of which three in ten collapse": lambda draw, n: np.where(
        draw.random(n) < 0.3, draw.normal(0.1, 0.02, n), draw.normal(0.98, 0.01, n).clip(-1, 1)
    ),
}
"""Seeds that collapse by chance: no interval knows what no seed showed, and the table says how much that costs."""


def rates(
    clusters: int, trials: int, mean: float, alike: float, draw: np.random.Generator, times: int
) -> Iterator[tuple[Interval, float]]:
    """Yield intervals of ``clusters`` draws of ``trials`` each, and the mean that they should hold."""
    for _ in range(times):
        p_c = _probabilities(mean, alike, clusters, draw)
        yield cluster_rate(draw.binomial(trials, p_c), [trials] * clusters), mean


def crossed(
    seeds: int, questions: int, centre: float, spread: float, draw: np.random.Generator, times: int
) -> Iterator[tuple[Interval, float]]:
    """Yield intervals for new seeds and new questions together, four completions of each pair.

    Seeds and questions each shift the log-odds ``centre`` by a normal of standard deviation ``spread``.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    truth = float(weights @ special.expit(centre + spread * np.sqrt(2) * nodes) / weights.sum())
    for _ in range(times):
        log_odds = centre + draw.normal(0, spread, (seeds, 1)) + draw.normal(0, spread, (1, questions))
        k_sq = draw.binomial(4, special.expit(log_odds))
        yield crossed_rate(k_sq, np.full(k_sq.shape, 4)), truth


def means(seeds: int, shape: str, draw: np.random.Generator, times: int) -> Iterator[tuple[Interval, float]]:
    """Yield intervals of the mean of ``seeds`` values of one of `SHAPES`."""
    sample = (SHAPES | COLLAPSES)[shape]
    truth = float(sample(numpy_stream(0, "shape", shape), 1_000_000).mean())
    for _ in range(times):
        yield bounded_mean(sample(draw, seeds), -1, 1), truth


def covered(intervals: Iterator[tuple[Interval, float]]) -> tuple[float, float]:
    """Return the share of intervals that hold their truth, and their mean width."""
    bounds = [(*one.checked_bounds(), truth) for one, truth in intervals]
    rows = [(low <= truth <= high, high - low) for low, high, truth in bounds]
    held, width = np.mean(rows, axis=0)
    return float(held), float(width)


def table(times: int = 3000, seeds: Sequence[int] = (1, 3, 5, 10), seed: int = 0) -> pd.DataFrame:
    """Return one row a situation: of, seeds, truth (mean, log-odds or shape), spread, coverage and width."""
    rows = []
    for of, number, truth, spread in itertools.chain.from_iterable(map(_situations, seeds)):
        draw = numpy_stream(seed, "coverage", of, number, str(truth), str(spread))
        if of.startswith("bounded mean"):
            intervals = means(number, truth, draw, times)
        elif of == "seeds":
            intervals = rates(number, 80, truth, spread, draw, times)
        elif of == "20 questions":
            intervals = rates(20, 4 * number, truth, spread, draw, times)
        else:
            intervals = crossed(number, 20, truth, spread, draw, times)
        held, width = covered(intervals)
        rows.append({"of": of, "seeds": number, "truth": truth, "spread": spread, "coverage": held, "width": width})
    return pd.DataFrame(rows)


def worst(coverages: pd.DataFrame) -> pd.DataFrame:
    """Return one row a kind and number of seeds: lowest coverage, situations below .93 and how many, mean width."""
    groups = coverages.assign(short=coverages["coverage"] < 0.93).groupby(["of", "seeds"], sort=False)
    return groups.agg(lowest=("coverage", "min"), below_93=("short", "sum"), situations=("short", "size"),
                      width=("width", "mean")).reset_index()  # fmt: skip


def _situations(seeds: int) -> Iterator[tuple[str, int, Any, float]]:
    for of in ("seeds", "20 questions"):
        yield from ((of, seeds, mean, alike) for alike in ALIKE for mean in MEANS)
    yield from (("seeds and questions", seeds, odds, spread) for spread in (0.5, 1.0, 2.0) for odds in (-4, -2, 0, 3))
    yield from (("bounded mean", seeds, shape, 0.0) for shape in SHAPES)
    yield from (("bounded mean, collapse", seeds, shape, 0.0) for shape in COLLAPSES)


def _probabilities(mean: float, alike: float, clusters: int, draw: np.random.Generator) -> np.ndarray:
    if alike == 0:
        return np.full(clusters, mean)
    return draw.beta(mean * (1 / alike - 1), (1 - mean) * (1 / alike - 1), clusters)

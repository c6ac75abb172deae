"""Intervals for rates over clusters (questions, seeds) and for means over seeds, where clusters differ.

Completions of one question, or of one training seed, are alike, and three seeds cannot show how much. So the spread
between clusters is not estimated but integrated out:

1. Cluster c has k_c ~ Binomial(n_c, p_c), and p_c ~ Beta with mean mu and intra-class correlation rho.
2. The likelihood of (mu, rho) is a product of beta-binomials, on a grid: mu = sin^2(theta) over equal cells of theta,
   rho = t^2 over equal cells of t.
3. rho is integrated over its prior: Beta(2, 6) for rates, Beta(1/2, 2) for bounded means.
4. Each bound is a quantile of what is left, under the prior of mu that speaks against it: mu^(-1/2) on the cells of
   theta for the lower one, (1 - mu)^(-1/2) for the upper one. Without clusters these are the bounds of Clopper and
   Pearson.
5. A bound never lies inside that of Clopper & Pearson (1934, Biometrika 26:404) on the totals.

Source: the beta-binomial is Skellam's (1948, J. R. Stat. Soc. B 10:257); a prior per bound follows from Clopper and
Pearson's own as quantiles of Beta(k, n - k + 1) and Beta(k + 1, n - k). `claimbook coverage` simulates how
often it covers, over means and correlations.

What it cannot do: clusters that collapse by chance are covered less often than stated, because no method knows what no
seed showed. One more success never lowers a bound for two and three clusters; for five and ten it may, by a little.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from helpers.base.errors import DataError
from helpers.stats.intervals import Interval, checked_counts, checked_level, checked_values

Prior = tuple[float, float]
RATES: Prior = (2.0, 6.0)
MEANS: Prior = (0.5, 2.0)
STEPS = 200
"""A number on a bounded scale counts as so many trials: one that is .4 of the way up as 80 successes."""

_EDGES = np.linspace(0, math.pi / 2, 161)
_MU = np.sin((_EDGES[1:] + _EDGES[:-1]) / 2) ** 2
_T = (np.arange(24) + 0.5) / 24
_STRENGTH = 1 / _T**2 - 1
_A, _B = _MU[:, None] * _STRENGTH, (1 - _MU)[:, None] * _STRENGTH


def cluster_rate(ks: ArrayLike, ns: ArrayLike, level: float = 0.95) -> Interval:
    """Return the pooled rate of clusters with ``ks`` successes in ``ns`` trials, bounded for new clusters as well.

    The clusters are questions (what may be said of the models that were trained) or seeds (of the recipe). Items that
    share nothing are clusters of one trial each.
    """
    k_c, n_c = checked_counts(ks, ns)
    low, high = _bounds(_tally(k_c, n_c), checked_level(level), RATES)
    k, n = int(k_c.sum()), int(n_c.sum())
    return Interval(k / n, low, high, n, k, "beta-binomial", level, {"clusters": len(k_c)})


def crossed_rate(k_sq: ArrayLike, n_sq: ArrayLike, level: float = 0.95) -> Interval:
    """Return the pooled rate of seeds (rows) by questions (columns), bounded for new seeds and new questions together.

    On each side the squared distances of the two bounds from k/n add up, less that of Clopper and Pearson's, which
    both of them hold. A seed that was not asked a question has n = 0 there.
    """
    k_sq, n_sq = (np.atleast_2d(np.asarray(counts)) for counts in (k_sq, n_sq))
    seeds, questions = (cluster_rate(k_sq.sum(axis=axis), n_sq.sum(axis=axis), level) for axis in (1, 0))
    exact = exact_bounds(int(np.sum(k_sq)), int(np.sum(n_sq)), level)
    sides = [
        math.sqrt(max(0.0, (one - seeds.value) ** 2 + (two - seeds.value) ** 2 - (three - seeds.value) ** 2))
        for one, two, three in zip(seeds.checked_bounds(), questions.checked_bounds(), exact, strict=True)
    ]
    low, high = max(0.0, seeds.value - sides[0]), min(1.0, seeds.value + sides[1])
    extra = {"seeds": len(k_sq), "questions": n_sq.shape[1]}
    return Interval(seeds.value, low, high, seeds.n, seeds.k, "beta-binomial, crossed", level, extra)


def bounded_mean(values: Sequence[float] | np.ndarray, low: float, high: float, level: float = 0.95) -> Interval:
    """Return the mean over seeds of a quantity that lies between ``low`` and ``high``, bounded for new seeds.

    It is wide where values crowd at one place (cosines near .99: .22 with three seeds, .09 with five), because three
    alike do not show that a fourth would be. ``extra`` keeps the seeds' own values.
    """
    x = checked_values(values)
    if not (low <= x.min() and x.max() <= high):
        raise DataError(f"A value is {x.min():g} or {x.max():g}, outside of {low:g} to {high:g}. Check its unit.")
    k = np.rint(STEPS * (x - low) / (high - low)).astype(int)
    bounds = _bounds(_tally(k, np.full(len(k), STEPS)), checked_level(level), MEANS)
    bottom, top = (low + (high - low) * bound for bound in bounds)
    mean = float(x.mean())
    extra = {"seeds": len(x), "values": x.tolist()}
    return Interval(mean, min(bottom, mean), max(top, mean), len(x), None, "beta-binomial, mean", level, extra)


def _tally(ks: np.ndarray, ns: np.ndarray) -> tuple[tuple[tuple[int, int], int], ...]:
    """Return how many clusters have the same counts: the likelihood needs no more, and equal tallies share a memo."""
    return tuple(sorted(Counter(zip(ks.tolist(), ns.tolist(), strict=True)).items()))


@functools.lru_cache(maxsize=65536)
def _bounds(tally: tuple[tuple[tuple[int, int], int], ...], level: float, prior: Prior) -> tuple[float, float]:
    like = _likelihood(tally, prior)
    tail = (1 - level) / 2
    k, n = (sum(counts[place] * times for counts, times in tally) for place in (0, 1))
    low, high = exact_bounds(k, n, level)
    low = min(low, _quantile(like * _MU**-0.5, tail)) if k else 0.0
    high = max(high, _quantile(like * (1 - _MU) ** -0.5, 1 - tail)) if k < n else 1.0
    return low, high


@functools.lru_cache(maxsize=8192)
def _likelihood(tally: tuple[tuple[tuple[int, int], int], ...], prior: Prior) -> np.ndarray:
    """Return the likelihood of each cell of mu, with rho integrated over its prior (up to a factor)."""
    from scipy import special
    from scipy import stats as distributions

    log = np.zeros_like(_A)
    for (k, n), times in tally:
        log += times * (special.betaln(k + _A, n - k + _B) - special.betaln(_A, _B))
    weights = distributions.beta.pdf(_T**2, *prior) * _T
    return np.exp(log - log.max()) @ weights


def _quantile(mass: np.ndarray, at: float) -> float:
    reached = np.concatenate([[0.0], np.cumsum(mass)])
    return float(np.sin(np.interp(at, reached / reached[-1], _EDGES)) ** 2)


def exact_bounds(k: float, n: int, level: float) -> tuple[float, float]:
    """Return the bounds of Clopper and Pearson.

    Where values lie between 0 and 1, ``k`` may be their sum: none of them varies more than a trial with the same mean.
    """
    from scipy import special

    tail = (1 - level) / 2
    low = 0.0 if k == 0 else float(special.betaincinv(k, n - k + 1, tail))
    return low, 1.0 if k == n else float(special.betaincinv(k + 1, n - k, 1 - tail))

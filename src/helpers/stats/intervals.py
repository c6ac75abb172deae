"""Intervals and bounds for rates and means, on scipy and statsmodels.

Both are imported where they compute: most commands compute no interval, and a GPU machine may lack them. What they give
is kept by its counts, because a grid asks for the same bounds thousands of times.

Every function returns an `Interval` that carries its counts, so that no rate travels without its N. A count of
0 out of 0 is missing, not zero: it raises, and the caller leaves the metric out of the record.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike

from helpers.base.errors import DataError

KEPT = 65_536
"""Of how many counts bounds are kept."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its bounds and counts; ``low`` and ``high`` are None where the data cannot give any.

    ``n`` counts observations (None where a record does not say), ``k`` the successes among them (None for means).
    ``level`` is the nominal coverage. ``extra`` holds what a method adds (both intervals of `rate`, the group of
    `max_rate`, the design effect, ...).
    """

    value: float
    low: float | None
    high: float | None
    n: int | None
    k: int | None
    method: str
    level: float = 0.95
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """``low`` and ``high``; None unless the data give both."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def checked_bounds(self) -> tuple[float, float]:
        """Return ``low`` and ``high``; ``DataError`` unless the data give both."""
        if self.bounds is None:
            raise DataError(f"An interval by {self.method} has no bounds. Leave it out where bounds are needed.")
        return self.bounds

    def metric(self, unit: str = "rate") -> dict[str, Any]:
        """The interval as a metric of a run record: plain JSON values, the extras beside the standard fields."""
        bounds = {"low": self.low, "high": self.high, "method": self.method, "level": self.level}
        return {"value": self.value, "unit": unit, "n": self.n, "k": self.k, **bounds, **self.extra}


def wilson(k: int, n: int, level: float = 0.95) -> Interval:
    """Wilson score interval of a binomial rate k/n (Wilson 1927, JASA 22:209, via statsmodels).

    It assumes independent trials; for completions grouped by question use `rate`. Its coverage is near the level on
    average over rates, a little below it at some: never zero width, also at k = 0 and k = n.
    """
    ks, ns = checked_counts([k], [n])
    low, high = _wilson_bounds(ks[0], ns[0], checked_level(level))
    return Interval(ks[0] / ns[0], low, high, int(ns[0]), int(ks[0]), "wilson", level)


def cluster_bootstrap(
    k_by_cluster: ArrayLike,
    n_by_cluster: ArrayLike,
    rng: np.random.Generator,
    draws: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap of a pooled rate, resampling whole clusters (Davison & Hinkley 1997, section 3.8).

    Completions of one question are not independent; questions are. With every cluster at 0 (or at n) all draws
    agree and the width is zero, which is why `rate` takes its hull with Wilson. Needs two clusters or more.
    """
    ks, ns = checked_counts(k_by_cluster, n_by_cluster)
    if len(ks) < 2:
        raise DataError("A cluster bootstrap needs at least 2 clusters and got 1: use wilson() for a single one.")
    if draws < 1:
        raise DataError(f"draws is {draws}: give the number of bootstrap draws, 1 or more.")
    picked = rng.integers(0, len(ks), size=(draws, len(ks)))
    rates = ks[picked].sum(axis=1) / ns[picked].sum(axis=1)
    tail = (1 - checked_level(level)) / 2
    low, high = (float(bound) for bound in np.quantile(rates, [tail, 1 - tail]))
    n, k = int(ns.sum()), int(ks.sum())
    return Interval(k / n, low, high, n, k, "cluster", level, {"clusters": len(ks)})


def rate(
    k_by_cluster: ArrayLike,
    n_by_cluster: ArrayLike,
    rng: np.random.Generator,
    draws: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Pooled rate over clusters, bounded by the hull of its Wilson and its cluster bootstrap interval.

    The bootstrap widens the interval when clusters differ; Wilson keeps 0/N from having no width. Both are kept in
    ``extra`` as ``wilson`` and ``cluster`` ([low, high]; ``cluster`` is None when there is one cluster only, and the
    method then says ``wilson``). Simulated coverage with 8 to 20 clusters is .93 to .98, unless the rate is small and
    a few clusters hold it all (.05, of which most clusters have none: .68): no interval sees clusters not drawn.
    """
    ks, ns = checked_counts(k_by_cluster, n_by_cluster)
    plain = wilson(ks.sum(), ns.sum(), level)
    extra: dict[str, Any] = {"wilson": [plain.low, plain.high], "cluster": None, "clusters": len(ks)}
    if len(ks) == 1:
        return Interval(plain.value, plain.low, plain.high, plain.n, plain.k, "wilson", level, extra)
    drawn = cluster_bootstrap(ks, ns, rng, draws, level)
    extra["cluster"] = [drawn.low, drawn.high]
    lows, highs = zip(plain.checked_bounds(), drawn.checked_bounds(), strict=True)
    low, high = min(lows), max(highs)
    return Interval(plain.value, low, high, plain.n, plain.k, "wilson+cluster", level, extra)


def max_rate(ks: Mapping[str, int], ns: Mapping[str, int], level: float = 0.95) -> Interval:
    """Highest of m rates with bounds for the highest *true* rate: simultaneous (Bonferroni) exact intervals.

    ``ks`` and ``ns`` map the name of a group to its counts; ``extra`` names the group with the highest observed rate
    (``name``; of equal ones the first). When all m intervals at level 1 - (1 - level)/m hold at once, the highest
    true rate lies in [max low_i, max high_i]: coverage is at least the level, because each interval is that of
    Clopper & Pearson (1934, Biometrika 26:404). Wilson's would not do: its lower limit is too high at small rates, so
    the highest of ten at 32 trials each and a true rate of .002 was covered half of the time. The value itself is
    biased upward; the bounds allow for that. Trials are taken as independent within a group.
    """
    if not ks:
        raise DataError("The maximum of no rates is missing: give the counts of at least one group.")
    if set(ks) != set(ns):
        raise DataError(f"ks and ns name different groups ({sorted(set(ks) ^ set(ns))}): give both for each group.")
    names = list(ks)
    k_g, n_g = checked_counts([ks[name] for name in names], [ns[name] for name in names])
    each = 1 - (1 - checked_level(level)) / len(names)
    bounds = [_exact_bounds(k, n, 1 - each) for k, n in zip(k_g.tolist(), n_g.tolist(), strict=True)]
    top = int(np.argmax(k_g / n_g))
    low, high = (max(side) for side in zip(*bounds, strict=True))
    extra = {"name": names[top], "groups": len(names)}
    return Interval(float(k_g[top] / n_g[top]), low, high, int(n_g[top]), int(k_g[top]), "max-exact", level, extra)


def mean_interval(
    values: Sequence[float] | np.ndarray,
    clusters: Sequence[Hashable] | np.ndarray | None = None,
    level: float = 0.95,
) -> Interval:
    """Mean with a Student t interval; with ``clusters`` (a label a value) its cluster-robust counterpart.

    The robust variance is G/(G-1) * sum_g (sum_{i in g} (x_i - mean))^2 / n^2 on G - 1 degrees of freedom for G
    clusters (Liang & Zeger 1986, CR1). One value, or one cluster, gives a mean without bounds.
    """
    x = checked_values(values)
    mean, n = float(x.mean()), len(x)
    if clusters is None:
        error, groups, method, extra = float(x.std(ddof=1) / math.sqrt(n)) if n > 1 else 0.0, n, "t", {}
    else:
        if len(clusters) != n:
            raise DataError(f"There are {n} values and {len(clusters)} cluster labels: give one label a value.")
        codes = {label: index for index, label in enumerate(dict.fromkeys(clusters))}
        sums = np.bincount([codes[label] for label in clusters], weights=x - mean)
        groups, method, extra = len(sums), "t-cluster", {"clusters": len(sums)}
        error = math.sqrt(groups / (groups - 1) * float(sums @ sums)) / n if groups > 1 else 0.0
    if groups < 2:
        return Interval(mean, None, None, n, None, method, checked_level(level), extra)
    half = error * _t_quantile((1 + checked_level(level)) / 2, groups - 1)
    return Interval(mean, mean - half, mean + half, n, None, method, level, extra)


def paired_rate_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Interval:
    """Difference rate(a) - rate(b) of two 0/1 vectors over the same items: Tango's score interval.

    Tango 1998, Statistics in Medicine 17:891, eq. 11: the differences that the score test, with the nuisance rate at
    its constrained maximum likelihood, does not reject. Never zero width, also where a and b agree on every item.
    ``extra`` holds both rates and the discordant counts.
    """
    a, b = _zero_one(a, "a"), _zero_one(b, "b")
    if len(a) != len(b):
        raise DataError(f"a has {len(a)} items and b has {len(b)}: a paired difference needs the same items in both.")
    from scipy import stats as distributions

    n, only_a, only_b = len(a), int((a > b).sum()), int((b > a).sum())
    z = float(distributions.norm.ppf((1 + checked_level(level)) / 2))
    value = (only_a - only_b) / n
    low = -1.0 if only_b == n else _tango_limit(only_a, only_b, n, z)
    high = 1.0 if only_a == n else -_tango_limit(only_b, only_a, n, z)
    extra = {"rate_a": float(a.mean()), "rate_b": float(b.mean()), "only_a": only_a, "only_b": only_b}
    return Interval(value, low, high, n, None, "tango", level, extra)


def distinct_n(token_lists: Sequence[ArrayLike], n: int) -> float:
    """Distinct n-grams over all n-grams of a set of texts, in (0, 1] (Li et al. 2016, arXiv:1510.03055, section 5.2).

    A text is its token ids. The share falls as text repeats itself, and also as the set grows: compare sets of about
    the same size.
    """
    if n < 1:
        raise DataError(f"n is {n}: the length of an n-gram is 1 or more.")
    texts = [np.asarray(tokens, dtype=np.int64) for tokens in token_lists]
    tokens, lengths = np.concatenate(texts), [len(text) for text in texts]
    starts = np.flatnonzero(np.arange(n, len(tokens) + n) <= np.repeat(np.cumsum(lengths), lengths))
    if not len(starts):
        raise DataError(f"No text has {n} tokens or more, so distinct-{n} is missing: leave it out.")
    gram, ids = tokens[starts], tokens.max() + 1
    for step in range(1, n):  # numbered anew at each step, so that no number grows too large
        _, gram = np.unique(gram * ids + tokens[starts + step], return_inverse=True)
    return len(np.unique(gram)) / len(gram)


@functools.lru_cache(maxsize=KEPT)
def _wilson_bounds(k: float, n: float, level: float) -> tuple[float, float]:
    """Wilson bounds for counts that may be fractional (effective sizes); exact 0 and 1 at the ends."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = np.asarray(proportion_confint(k, n, alpha=1 - level, method="wilson"))
    return (0.0 if k == 0 else float(low)), (1.0 if k == n else float(high))


@functools.lru_cache(maxsize=KEPT)
def _exact_bounds(k: int, n: int, alpha: float) -> tuple[float, float]:
    """Clopper-Pearson bounds at level 1 - ``alpha``."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = np.asarray(proportion_confint(k, n, alpha=alpha, method="beta"))
    return float(low), float(high)


@functools.lru_cache(maxsize=KEPT)
def _t_quantile(at: float, freedom: int) -> float:
    from scipy import stats as distributions

    return float(distributions.t.ppf(at, freedom))


@functools.lru_cache(maxsize=KEPT)
def _tango_limit(plus: int, minus: int, n: int, z: float) -> float:
    """Lower limit of (plus - minus)/n: the root of Tango's score statistic (eq. 8 and 9) at +z, minus < n."""

    from scipy import optimize

    def excess(delta: float) -> float:
        linear = (2 * n - plus + minus) * delta - plus - minus
        root = math.sqrt(linear**2 + 8 * n * minus * delta * (1 - delta))
        nuisance = (root - linear) / (4 * n)
        variance = max(n * (2 * nuisance + delta * (1 - delta)), 0.0)
        return plus - minus - n * delta - z * math.sqrt(variance)

    # The bracket stops short of the estimate, where the statistic is 0/0 when all items agree or all disagree one way.
    return cast(float, optimize.brentq(excess, -1.0, (plus - minus) / n - 1e-12, xtol=1e-12))


def checked_counts(k: ArrayLike, n: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Counts as int64 vectors of one length, 0 <= k <= n and n >= 1 everywhere."""
    ks, ns = np.atleast_1d(np.asarray(k, dtype=float)), np.atleast_1d(np.asarray(n, dtype=float))
    if ks.ndim != 1 or ks.shape != ns.shape:
        raise DataError(f"k has shape {ks.shape} and n has shape {ns.shape}: give two vectors of the same length.")
    if not len(ks):
        raise DataError("There are no counts, so the rate is missing: leave it out.")
    for index, (one, total) in enumerate(zip(ks, ns, strict=True)):
        at = f" at position {index}" if len(ks) > 1 else ""
        if not (float(one).is_integer() and float(total).is_integer()):
            raise DataError(f"k is {one} and n is {total}{at}: counts are whole numbers.")
        if total == 0:
            raise DataError(f"n is 0{at}, so the rate is missing, not zero: leave it out.")
        if not 0 <= one <= total:
            raise DataError(f"k is {one:g} and n is {total:g}{at}: a count lies between 0 and its n.")
    return ks.astype(np.int64), ns.astype(np.int64)


def checked_values(values: ArrayLike) -> np.ndarray:
    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or not len(x):
        raise DataError(f"The values have shape {x.shape}: give a vector of one number or more, none is missing.")
    if not np.isfinite(x).all():
        where = int(np.flatnonzero(~np.isfinite(x))[0])
        raise DataError(f"The value at position {where} is {x[where]}: leave missing values out before taking a mean.")
    return x


def _zero_one(values: ArrayLike, name: str) -> np.ndarray:
    x = checked_values(values)
    if not np.isin(x, (0, 1)).all():
        raise DataError(f"{name} holds values other than 0 and 1: give one success or failure an item.")
    return x


def checked_level(level: float) -> float:
    if not 0 < level < 1:
        raise DataError(f"level is {level}: give a coverage between 0 and 1, such as 0.95.")
    return level

"""What an interval speaks of, and how surely: the models that were trained, or the recipe that trained them.

*These models*: the rate of the models at hand, over new questions of the same kind. *The recipe*: the rate over new
training seeds too, of which three seeds say little. `clusters` has the intervals; here is which of them is asked for,
and at which level when several statements or several looks are judged together.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from helpers.base.errors import DataError
from helpers.stats.clusters import bounded_mean, cluster_rate, crossed_rate, exact_bounds
from helpers.stats.intervals import Interval, checked_level, mean_interval, wilson

Subject = Literal["models", "recipe", "observed"]
Method = Literal["clusters", "wilson", "exact", "t"]
TOTALS: tuple[Method, ...] = ("wilson", "exact")
RANGE = "range"
"""In the method of an interval: from the smallest to the largest of some values, which is no confidence interval."""
BOUNDS: dict[str, tuple[float, float]] = {
    "rate": (0, 1), "share": (0, 1), "share of tokens": (0, 1), "share of energy": (0, 1), "share of null": (0, 1),
    "probability": (0, 1), "cosine": (-1, 1), "rank correlation": (-1, 1), "points": (-1, 1),
    "difference of cosines": (-2, 2),
}  # fmt: skip
DIFFERENCES = {"rate": "points", "share": "points", "probability": "points", "cosine": "difference of cosines"}
"""Units of differences, where they are not the unit of what is subtracted."""


@dataclass(frozen=True)
class Estimand:
    """``of`` whom an interval speaks and at which ``level``; "observed" asks for the numbers as they came out.

    ``method`` shows how much hangs on the interval: rates are bounded over clusters, or by Wilson's interval or the
    exact one on the pooled counts, as if trials shared nothing; under "t" means over seeds have a t interval.
    """

    of: Subject = "models"
    level: float = 0.95
    method: Method = "clusters"

    def corrected(self, number: int) -> Estimand:
        """Return the estimand of each of ``number`` statements that must hold together at this level."""
        return replace(self, level=corrected(self.level, number))


MODELS, RECIPE, OBSERVED = Estimand("models"), Estimand("recipe"), Estimand("observed")


def corrected(level: float, number: int) -> float:
    """Return the level at which each of ``number`` statements is judged so that all of them hold at ``level``."""
    if number < 1:
        raise DataError(f"A level cannot be corrected for {number} statements. Give 1 or more.")
    return 1 - (1 - checked_level(level)) / number


def look_level(look: int, planned: int) -> float:
    """Return the level of the ``look``-th of ``planned`` looks at growing data: .999, and at the last what is left.

    The errors of all looks add up to .05 (Haybittle 1971, Br. J. Radiol. 44:793). A look beyond the planned ones is
    judged as the last.
    """
    if look < 1 or not 1 <= planned <= 50:
        raise DataError(f"Look {look} of {planned} cannot be. Count looks from 1, and plan 1 to 50 of them.")
    return 0.999 if look < planned else 0.95 + 0.001 * (planned - 1)


def rate(k_sq: ArrayLike, n_sq: ArrayLike, estimand: Estimand = MODELS) -> Interval:
    """Return a rate pooled over seeds (rows) and questions (columns), with the interval that ``estimand`` asks for."""
    if estimand.method in TOTALS:
        return _of_totals(k_sq, n_sq, estimand)
    if estimand.of == "recipe":
        return crossed_rate(k_sq, n_sq, estimand.level)
    k_sq, n_sq = (np.atleast_2d(np.asarray(counts)) for counts in (k_sq, n_sq))
    return replace(found := cluster_rate(k_sq.sum(0), n_sq.sum(0), estimand.level),
                   extra={"questions": found.extra["clusters"], "seeds": len(k_sq)})  # fmt: skip


def independent_rate(ks: ArrayLike, ns: ArrayLike, estimand: Estimand = MODELS) -> Interval:
    """Return a rate pooled over seeds whose trials share no question: to these models each is a cluster of its own."""
    if estimand.method in TOTALS:
        return _of_totals(ks, ns, estimand)
    seeds = cluster_rate(ks, ns, estimand.level)
    if estimand.of == "recipe":
        return replace(seeds, extra={"seeds": seeds.extra["clusters"]})
    k, n = int(np.sum(ks)), int(np.sum(ns))
    trials = cluster_rate([1] * k + [0] * (n - k), [1] * n, estimand.level)
    return replace(trials, extra={"seeds": seeds.extra["clusters"]})


def _of_totals(ks: ArrayLike, ns: ArrayLike, estimand: Estimand) -> Interval:
    """Return a rate by its totals alone: Wilson's interval, or that of Clopper and Pearson."""
    k, n = int(np.sum(ks)), int(np.sum(ns))
    found = wilson(k, n, estimand.level)
    if estimand.method == "exact":
        low, high = exact_bounds(k, n, checked_level(estimand.level))
        found = replace(found, low=low, high=high, method="clopper-pearson")
    return replace(found, extra={"seeds": len(np.atleast_1d(np.asarray(ks)))})


def number(seeds: Sequence[Interval], unit: str, estimand: Estimand = MODELS) -> Interval:
    """Return the mean over seeds of a number that each of them has, ``unit`` saying whether it is bounded.

    For these models the bounds reach from the lowest seed to the highest, so that what holds of them holds in every
    seed. Where the seeds have intervals of their own (over batches, documents, prompts), the bounds of the mean of
    these models are within them too: sides of independent estimates add up as squares (Zou & Donner 2008, Stat. Med.
    27:1693). For the recipe they are those of `mean_over_seeds`. One seed without an interval has no bounds. No bound
    lies beyond the ends of the unit.
    """
    values = [seed.value for seed in seeds]
    if estimand.method == "t":
        return within(_mean_by_t(values, estimand.level), unit)
    if estimand.of == "recipe":
        return mean_over_seeds(values, unit, estimand.level)
    own = [_stretched(seed, estimand.level) for seed in seeds]
    if len(own) == 1:
        return within(own[0], unit)
    mean, low, high, method = float(np.mean(values)), min(values), max(values), f"{RANGE} of seeds"
    if all(one.bounds is not None for one in own):
        below = math.hypot(*(one.value - one.checked_bounds()[0] for one in own)) / len(own)
        above = math.hypot(*(one.checked_bounds()[1] - one.value for one in own)) / len(own)
        low, high, method = min(low, mean - below), max(high, mean + above), "mean of seeds, mover"
    extra = {"seeds": len(values), "values": values}
    return within(Interval(mean, low, high, len(values), None, method, estimand.level, extra), unit)


def _stretched(recorded: Interval, level: float) -> Interval:
    """Return an interval that was recorded at one level as it is at another, its sides taken as those of a normal."""
    if recorded.low is None or recorded.high is None or RANGE in recorded.method or recorded.level == level:
        return recorded
    from scipy import stats as distributions

    factor = float(np.divide(*distributions.norm.ppf([(1 + level) / 2, (1 + recorded.level) / 2])))
    low = recorded.value - factor * (recorded.value - recorded.low)
    high = recorded.value + factor * (recorded.high - recorded.value)
    return replace(recorded, low=low, high=high, level=level)


def mean_over_seeds(values: Sequence[float] | np.ndarray, unit: str, level: float = 0.95) -> Interval:
    """Return the mean of one number a seed, bounded for new seeds: `bounded_mean` where the unit has ends, else t.

    Of one seed an unbounded number has no bounds, because it shows no spread.
    """
    ends = bounds_of(unit)
    if ends is not None:
        return bounded_mean(values, *ends, level)
    return _mean_by_t(values, level)


def _mean_by_t(values: Sequence[float] | np.ndarray, level: float) -> Interval:
    mean = mean_interval(values, level=level)
    return replace(mean, method="t-seeds", extra={"seeds": mean.n, "values": [float(value) for value in values]})


def within(interval: Interval, unit: str) -> Interval:
    """Return an interval with its bounds cut at the ends of its unit: a t interval of a cosine may reach beyond 1."""
    ends = bounds_of(unit)
    if ends is None or interval.bounds is None:
        return interval
    return replace(interval, low=max(ends[0], interval.bounds[0]), high=min(ends[1], interval.bounds[1]))


def bounds_of(unit: str) -> tuple[float, float] | None:
    """Return the ends of a scale, or None for a unit without any; ``share of 20`` is a share of so many things."""
    return (0, 1) if re.fullmatch(r"share of \d+", unit) else BOUNDS.get(unit)


def bounded_items(values_sq: ArrayLike, unit: str, estimand: Estimand = MODELS) -> Interval:
    """Return the mean of a value between 0 and 1 (an F1, a probability) of seeds (rows) on the same items (columns).

    For these models an item counts once, with its mean over seeds, and the bounds are those of Clopper and Pearson: a t
    interval has no width where every item is 0. For the recipe the distances of `bounded_mean` are added.
    """
    x = np.atleast_2d(np.asarray(values_sq, dtype=float))
    items = x.shape[1]
    low, high = exact_bounds(float(x.mean(axis=0).sum()), items, checked_level(estimand.level))
    mean = Interval(
        float(x.mean()), low, high, x.size, None, "clopper-pearson of items", estimand.level, {"unit": unit}
    )
    if estimand.of != "recipe":
        return mean
    return within(added(mean, mean_over_seeds(x.mean(axis=1), unit, estimand.level)), unit)


def worst_rate(rates: Mapping[str, tuple[Interval, Interval]], level: float = 0.95) -> Interval:
    """Return the highest of several rates, bounded for the highest *true* one.

    ``rates`` gives for each group its interval at ``level`` and at that corrected for the number of groups. The upper
    bound is the largest of the first: it lies above the bound of the truly highest group, which covers by itself. The
    lower bound is the largest of the second: any of the groups may be the one whose bound fails. ``extra`` names the
    group with the highest observed rate (of equal ones the first).
    """
    if not rates:
        raise DataError("The highest of no rates is missing. Give the intervals of at least one group.")
    name = max(rates, key=lambda group: rates[group][0].value)
    top = rates[name][0]
    low = max(strict.checked_bounds()[0] for _, strict in rates.values())
    high = max(plain.checked_bounds()[1] for plain, _ in rates.values())
    extra = {"name": name, "groups": len(rates)}
    return Interval(top.value, low, high, top.n, top.k, f"highest, {top.method}", level, extra)


def added(first: Interval, second: Interval) -> Interval:
    """Return ``first`` with the distances of both pairs of bounds, as those of independent sources of error."""
    if first.bounds is None or second.bounds is None:
        return replace(first, low=None, high=None)
    (low_1, high_1), (low_2, high_2) = first.bounds, second.bounds
    low = first.value - math.hypot(first.value - low_1, second.value - low_2)
    high = first.value + math.hypot(high_1 - first.value, high_2 - second.value)
    return replace(first, low=low, high=high, method=f"{first.method}+{second.method}")


def difference(a: Interval, b: Interval) -> Interval:
    """Return a - b of two estimates by their own limits (MOVER: Zou & Donner 2008, Stat. Med. 27:1693, eq. 2).

    Of two ranges, from the smallest to the largest difference that any two of their values can have. Where one of them
    has no bounds, neither has the difference.
    """
    value, n = a.value - b.value, min((x.n for x in (a, b) if x.n is not None), default=None)
    own = str(a.extra.get("unit", ""))
    unit = DIFFERENCES.get(own, own)
    extra = {"unit": unit} if unit else {}
    ranges = RANGE in a.method + b.method
    method, level = f"{RANGE} of differences" if ranges else "mover", min(a.level, b.level)
    if a.bounds is None or b.bounds is None:
        return Interval(value, None, None, n, None, method, level, extra)
    (low_a, high_a), (low_b, high_b) = a.bounds, b.bounds
    if ranges:
        return Interval(value, low_a - high_b, high_a - low_b, n, None, method, level, extra)
    low = value - math.hypot(a.value - low_a, high_b - b.value)
    high = value + math.hypot(high_a - a.value, b.value - low_b)
    return within(Interval(value, low, high, n, None, method, level, extra), unit)


def paired_difference(a_sq: ArrayLike, b_sq: ArrayLike, estimand: Estimand = MODELS) -> Interval:
    """Return the rate of ``a_sq`` minus that of ``b_sq``, both 0 or 1, of seeds (rows) on the same items (columns).

    It is the rate of items that only a has right minus that of those that only b has right, by their own limits
    (`difference`); items are clusters, because seeds share them. The two rates exclude each other, which adds
    2 p q / n to the variance: next to nothing where both are small.
    """
    a, b = (np.atleast_2d(np.asarray(values, dtype=int)) for values in (a_sq, b_sq))
    if a.shape != b.shape:
        raise DataError(f"a has shape {a.shape} and b has {b.shape}. A paired difference needs the same items in both.")
    ones = np.ones_like(a)
    gained, lost = (rate((x > y).astype(int), ones, estimand) for x, y in ((a, b), (b, a)))
    extra = {"unit": "points", "seeds": len(a), "items": a.shape[1], "only_a": gained.k, "only_b": lost.k}
    return replace(difference(gained, lost), n=a.size, method=f"paired, {gained.method}", extra=extra)

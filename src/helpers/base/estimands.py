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

from helpers.base.clusters import bounded_mean, cluster_rate, crossed_rate
from helpers.base.errors import DataError
from helpers.base.stats import Interval, checked_level, mean_interval

Subject = Literal["models", "recipe"]
RANGE = "range"
"""In the method of an interval: from the smallest to the largest of some values, which is no confidence interval."""
BOUNDS: dict[str, tuple[float, float]] = {
    "rate": (0, 1), "share": (0, 1), "share of tokens": (0, 1), "share of energy": (0, 1), "share of null": (0, 1),
    "probability": (0, 1), "cosine": (-1, 1), "rank correlation": (-1, 1), "points": (-1, 1),
}  # fmt: skip


@dataclass(frozen=True)
class Estimand:
    """``of`` whom an interval speaks and at which ``level``; `corrected` is for one of ``number`` statements."""

    of: Subject = "models"
    level: float = 0.95

    def corrected(self, number: int) -> Estimand:
        """Return the estimand of each of ``number`` statements that must hold together at this level."""
        return replace(self, level=corrected(self.level, number))


MODELS, RECIPE = Estimand("models"), Estimand("recipe")


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
    if estimand.of == "recipe":
        return crossed_rate(k_sq, n_sq, estimand.level)
    k_sq, n_sq = (np.atleast_2d(np.asarray(counts)) for counts in (k_sq, n_sq))
    return replace(found := cluster_rate(k_sq.sum(0), n_sq.sum(0), estimand.level),
                   extra={"questions": found.extra["clusters"], "seeds": len(k_sq)})  # fmt: skip


def number(seeds: Sequence[Interval], unit: str, estimand: Estimand = MODELS) -> Interval:
    """Return the mean over seeds of a number that each of them has, ``unit`` saying whether it is bounded.

    For these models the bounds are the lowest and the highest of any seed, each with its own interval where it has one:
    what holds there holds for every model. For the recipe they are those of `mean_over_seeds`. One seed without an
    interval has no bounds.
    """
    if estimand.of == "recipe":
        return mean_over_seeds([seed.value for seed in seeds], unit, estimand.level)
    if len(seeds) == 1:
        return seeds[0]
    values = [seed.value for seed in seeds]
    low, high = (
        extreme(seed.value if end is None else end for seed in seeds for end in (getattr(seed, side),))
        for side, extreme in (("low", min), ("high", max))
    )
    mean = float(np.mean(values))
    return Interval(mean, low, high, len(values), None, f"{RANGE} of seeds", estimand.level, {"values": values})


def mean_over_seeds(values: Sequence[float] | np.ndarray, unit: str, level: float = 0.95) -> Interval:
    """Return the mean of one number a seed, bounded for new seeds: `bounded_mean` where the unit has ends, else t.

    Of one seed an unbounded number has no bounds, because it shows no spread.
    """
    ends = bounds_of(unit)
    if ends is not None:
        return bounded_mean(values, *ends, level)
    mean = mean_interval(values, level=level)
    return replace(mean, method="t-seeds", extra={"seeds": mean.n, "values": [float(value) for value in values]})


def bounds_of(unit: str) -> tuple[float, float] | None:
    """Return the ends of a scale, or None for a unit without any; ``share of 20`` is a share of so many things."""
    return (0, 1) if re.fullmatch(r"share of \d+", unit) else BOUNDS.get(unit)


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

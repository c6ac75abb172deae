"""Results that were not run yet, drawn from the present fit or from an assumption.

A rate keeps its mean and spreads over seeds and over questions as beta distributions do, with intra-class correlations
estimated by moments; `ALIKE` stands for one that the records do not show. A question is as hard for every seed. Any
other number is drawn, for each seed, around the mean of the seeds with their spread, and its own bounds shrink with the
square root of the completions. One that is computed over all seeds at once is drawn as normal, and its bounds shrink
with the square root of all completions. Of the worst of several personas only the worst is drawn, and metrics are drawn
apart.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import special
from scipy.stats import norm

from helpers.audit.sizes import Shape, Shapes
from helpers.base.errors import ClaimError, nearest
from helpers.claims.evidence import Cell, full_key
from helpers.records.study import Size
from helpers.stats import estimands
from helpers.stats.estimands import Estimand, bounds_of
from helpers.stats.intervals import Interval

ALIKE = 0.1
Drawn = Callable[[list[int], Estimand], Interval | None]
"""Gives the interval over the seeds that are picked by number; ``None`` where they are too few to give one."""


@dataclass(frozen=True)
class Fit:
    """One metric of one cell, as the records show it or as it is assumed.

    ``alike`` are the intra-class correlations of seeds and questions of a rate; ``spread`` is the standard deviation of
    the seeds of any other number, ``sides`` how far one seed's own bounds reach, at ``of``. Where a number is computed
    over all seeds at once, ``sides`` are those of ``together`` seeds, and fewer than ``least`` do not give it.
    """

    mean: float
    shape: Shape | None = None
    lost: float = 0.0
    alike: tuple[float, float] = (ALIKE, ALIKE)
    spread: float = 0.0
    sides: tuple[float, float] | None = None
    unit: str = ""
    of: Size | None = None
    together: int = 0
    least: int = 1

    def draw(self, rng: np.random.Generator, runs: int, size: Size | None) -> Drawn:
        """Draw ``runs`` seeds; return what gives the interval over some of them, or ``None`` where they are too few."""
        if self.together:
            return self._estimate(rng, size)
        if self.shape is None:
            return self._numbers(rng, runs, size)
        form, (clusters, trials) = self.shape, self.shape.at(size)
        won = self._counts(rng, self.mean, runs, clusters, trials)
        lost = self._counts(rng, self.lost, runs, clusters, trials) if form.paired else won
        return lambda picked, estimand: form.interval(won[picked], lost[picked], trials, estimand)

    def _counts(self, rng: np.random.Generator, mean: float, runs: int, clusters: int, trials: int) -> np.ndarray:
        """Successes of seeds (rows) and questions (columns)."""
        p_s = _beta(mean, self.alike[0], rng.random((runs, 1)))
        return rng.binomial(trials, _beta(p_s, self.alike[1], rng.random((1, clusters))))

    def _numbers(self, rng: np.random.Generator, runs: int, size: Size | None) -> Drawn:
        ends = bounds_of(self.unit) or (-np.inf, np.inf)
        values = np.clip(rng.normal(self.mean, self.spread, runs), *ends)
        below, above = (None, None) if self.sides is None else (side / self._grown(size) ** 0.5 for side in self.sides)
        seeds = [
            Interval(float(x), x - below if below is not None else None, x + above if above is not None else None,
                     None, None, "as drawn", extra={"unit": self.unit})
            for x in values
        ]  # fmt: skip
        return lambda picked, estimand: estimands.number([seeds[one] for one in picked], self.unit, estimand)

    def _estimate(self, rng: np.random.Generator, size: Size | None) -> Drawn:
        away, (below, above), at_95 = rng.normal(), self.sides or (0.0, 0.0), float(norm.ppf(0.975))
        ends = bounds_of(self.unit) or (-np.inf, np.inf)

        def interval(picked: list[int], estimand: Estimand) -> Interval | None:
            if len(picked) < self.least:
                return None
            less = (self.together / (len(picked) * self._grown(size))) ** 0.5
            value = float(np.clip(self.mean + away * less * (below + above) / 2 / at_95, *ends))
            wide = less * float(norm.ppf((1 + estimand.level) / 2)) / at_95
            drawn = Interval(value, value - below * wide, value + above * wide, None, None, "as drawn", estimand.level)
            return estimands.within(replace(drawn, extra={"unit": self.unit}), self.unit)

        return interval

    def _grown(self, size: Size | None) -> float:
        """How many times as many completions a run of another size has."""
        return (size.questions * size.samples) / (self.of.questions * self.of.samples) if size and self.of else 1.0


def _beta(mean: Any, alike: float, at: np.ndarray) -> np.ndarray:
    """Quantiles ``at`` of beta distributions of given mean and intra-class correlation."""
    mean = np.clip(mean, 1e-9, 1 - 1e-9)
    if alike <= 0:
        return np.broadcast_to(mean, np.broadcast_shapes(np.shape(mean), at.shape))
    strength = 1 / alike - 1
    return np.clip(np.nan_to_num(special.betaincinv(mean * strength, (1 - mean) * strength, at), nan=0.0), 0, 1)


@dataclass(frozen=True)
class Assumed:
    """``metric`` is taken to be ``value`` in the cells that have the values of ``where``, whatever the records show."""

    metric: str
    value: float
    where: Mapping[str, str]

    @classmethod
    def read(cls, text: str) -> Assumed:
        """Read ``metric=value`` or ``metric=value@axis=value,axis=value``."""
        said, _, where = text.partition("@")
        metric, _, value = said.partition("=")
        pairs = [pair.partition("=") for pair in where.split(",") if pair]
        try:
            return cls(metric.strip(), float(value), {axis.strip(): at.strip() for axis, _, at in pairs})
        except ValueError as error:
            raise ClaimError(
                f"--assume {text} is not metric=value: write --assume source_rate=0.7, or for some of the cells "
                "--assume source_rate=0.7@tail=newline,negatives=two."
            ) from error

    def check(self, metrics: Collection[str], cells: Sequence[Cell]) -> None:
        """Raise ``ClaimError`` where the question has no such metric, or none of its cells agrees."""
        if self.metric not in metrics:
            raise ClaimError(f"The question asks for no {self.metric!r}{nearest(self.metric, metrics)}")
        for axis, value in self.where.items():
            values = {str(cell.key[axis]) for cell in cells if axis in cell.key}
            if value not in values:
                raise ClaimError(f"No cell of the question has {axis}={value}{nearest(value, values)}")

    def holds(self, cell: Cell, metric: str) -> bool:
        """Whether it speaks of ``metric`` of ``cell``."""
        return metric == self.metric and all(str(cell.key.get(axis)) == at for axis, at in self.where.items())


def fit(cell: Cell, metric: str, shapes: Shapes, assumed: Sequence[Assumed] = (), alike: float = ALIKE) -> Fit | None:
    """Return how ``metric`` of ``cell`` will be drawn, by the last assumption about it, or else by its records.

    ``None`` where the runs of the cell do not give the metric: there is nothing to compare then, as on the page. Raises
    ``ClaimError`` where neither records nor assumptions say it.
    """
    form, found = shapes.of(cell, metric), shapes.interval(cell, metric)
    said = [one.value for one in assumed if one.holds(cell, metric)]
    if said:
        return _assumed(metric, said[-1], form, found, alike, shapes.size_of(cell.key))
    if found is None:
        if cell.records:
            return None
        raise ClaimError(
            f"No record shows {metric} at {cell.name}. Say what to expect (--assume {metric}=0.5, or for this cell "
            f"--assume {metric}=0.5@axis=value), or run the declared cells."
        )
    if form is not None and form.paired:
        gained, lost = ((found.extra[side] + 0.5) / ((found.n or 1) + 1) for side in ("only_a", "only_b"))
        return Fit(gained, form, lost, (alike, alike))
    if form is not None and found.k is not None and found.n:
        mean = (found.k + 0.5) / (found.n + 1)  # no success in so many trials does not make one impossible
        seeds, questions = _counts(cell, metric)
        return Fit(mean, form, alike=(_correlation(seeds, alike), _correlation(questions, alike)))
    return _number(metric, cell, found, shapes)


def _number(metric: str, cell: Cell, found: Interval, shapes: Shapes) -> Fit:
    of, unit = shapes.size_of(full_key(cell.records[0])), str(found.extra.get("unit", ""))
    if "values" not in found.extra and found.bounds is not None and len(cell.records) > 1:
        sides = found.value - found.bounds[0], found.bounds[1] - found.value
        runs = [cell.records[: number + 1] for number in range(len(cell.records))]
        least = 1 + sum(shapes.interval(replace(cell, records=some), metric) is None for some in runs)
        return Fit(found.value, None, sides=sides, unit=unit, of=of, together=len(cell.records), least=least)
    seeds = (shapes.interval(replace(cell, records=(record,)), metric) for record in cell.records)
    single = [one for one in seeds if one is not None]
    own = [(one.value - one.bounds[0], one.bounds[1] - one.value) for one in single if one.bounds is not None]
    sides = tuple(np.mean(own, axis=0)) if own and len(own) == len(cell.records) else None
    return Fit(found.value, None, spread=_spread(metric, found), sides=sides, unit=unit, of=of)


def _spread(metric: str, found: Interval) -> float:
    """Standard deviation over the seeds; ``ClaimError`` where there is but one."""
    values = found.extra.get("values", [])
    if len(values) < 2:
        raise ClaimError(f"Nothing shows how {metric} differs between seeds. Run a second seed of the grid first.")
    return float(np.std(values, ddof=1))


def _assumed(
    metric: str, value: float, form: Shape | None, found: Interval | None, alike: float, size: Size | None
) -> Fit:
    """A rate as it is assumed; of any other number the spread is that of the records."""
    if form is None and found is not None:
        return Fit(value, None, spread=_spread(metric, found), unit=str(found.extra.get("unit", "")))
    if form is None and size is None:
        raise ClaimError(f"Nothing shows how {metric} differs between seeds. Run two seeds of the grid first.")
    form = form or (size and Shape(size.questions, size.samples, size, "questions"))
    if form is not None and form.paired:
        return Fit(max(value, 0.0), form, max(-value, 0.0), (alike, alike))
    if not 0 <= value <= 1:
        raise ClaimError(f"{metric} is a rate, and {value:g} is none. Assume a value from 0 to 1.")
    return Fit(value, form, alike=(alike, alike))


def _counts(cell: Cell, metric: str) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Successes and trials of each seed and of each question; none where the study does not count them so."""
    counted = [cell.by_question(record, metric) for record in cell.records] if cell.by_question else []
    asked = [] if metric in cell.derive else [one for one in counted if one]
    seeds = [(sum(k for k, _ in one.values()), sum(n for _, n in one.values())) for one in asked]
    sums: dict[Any, np.ndarray] = {}
    for question, counts in (pair for one in asked for pair in one.items()):
        sums[question] = sums.get(question, np.zeros(2, int)) + np.array(counts)
    return seeds, [(int(k), int(n)) for k, n in sums.values()]


def _correlation(counts: Sequence[tuple[int, int]], alike: float) -> float:
    """Intra-class correlation of clusters by moments: what their rates vary more than trials of one rate would."""
    if len(counts) < 2:
        return alike
    k, n = np.array(counts, dtype=float).T
    whole, size = k.sum() / n.sum(), n.mean()
    chance = whole * (1 - whole)
    if chance == 0 or size <= 1:
        return alike
    excess = float(np.var(k / n, ddof=1)) - chance / size
    return float(np.clip(excess / (chance * (1 - 1 / size)), 0, 0.9))

"""Conditions of a criteria file, judged over evidence in three-valued logic (`criteria` reads them).

"source_rate > 0.5"    "0.05 <= source_rate < 0.20"    clean                (a regime of the file)
[c, c]  all of         {any_of: [c, c]}                {not: c}
{any_cell: c}          {every_cell: c}                 {cell: {lr: 1e-4}, holds: c}
{minus: {tail: end_of_turn}, holds: c}   c over this cell's metrics minus those of the cell that differs in `minus`
otherwise              all earlier outcomes of the question are FALSE
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from helpers.base.errors import ClaimError
from helpers.base.stats import Interval, samples_to_decide
from helpers.claims.evidence import RANGE, Cell, Evidence, difference, label
from helpers.claims.logic import Truth, compare, negation


@dataclass(frozen=True)
class Leaf:
    """One comparison as it was judged: where, what, the interval found, and the samples that would decide it."""

    where: str
    text: str
    truth: Truth
    interval: Interval | None
    needs: int | None = None
    why: str = ""

    def __str__(self) -> str:
        if self.why or self.interval is None:
            return f"{self.where}: {self.text} is not known, {self.why}"
        limits = self.interval.bounds
        bounds = "no interval" if limits is None else f"{limits[0]:.3g} to {limits[1]:.3g}"
        word = {Truth.TRUE: "holds", Truth.FALSE: "fails", Truth.UNKNOWN: "is not decided"}[self.truth]
        return f"{self.where}: {self.text} {word}, found {self.interval.value:.3g} ({bounds})"


@dataclass(frozen=True)
class Finding:
    """A truth value with the comparisons that it rests on."""

    truth: Truth
    leaves: tuple[Leaf, ...] = ()


@dataclass(frozen=True)
class Here:
    """Where a condition is judged: the evidence in scope, the cell if one is chosen, its partner under `minus`.

    ``budget`` asks "what if": a comparison that at most so many more samples would decide is judged by its estimate.
    """

    evidence: Evidence
    cell: Cell | None = None
    less: Cell | None = None
    budget: int = 0

    def into(self, cell: Cell) -> Here:
        return Here(self.evidence, cell, None, self.budget)


class Condition(Protocol):
    """What every node can do."""

    def judge(self, here: Here) -> Finding: ...

    def metrics(self) -> set[str]: ...


@dataclass(frozen=True)
class Compare:
    """``metric op threshold`` on the whole interval. A cell counts only when every run declared for it is complete.

    Otherwise one could stop at the seed that pleases; with it, filling in missing runs never turns a verdict round.
    """

    metric: str
    op: str
    threshold: float

    @property
    def text(self) -> str:
        return f"{self.metric} {self.op} {self.threshold:g}"

    def metrics(self) -> set[str]:
        return {self.metric}

    def judge(self, here: Here) -> Finding:
        cell = here.cell or self._only(here.evidence)
        if cell is None:
            return _unknown("the scope", self.text, "no cell is in it")
        for one in filter(None, (cell, here.less)):
            if one.absent:
                return _unknown(one.name, self.text, f"{len(one.absent)} of its declared runs have no complete record")
        found = cell.interval(self.metric)
        if here.less is not None:
            found = difference(found, here.less.interval(self.metric))
        where = cell.name if here.less is None else f"{cell.name} minus {here.less.name}"
        if found is None:
            return _unknown(where, self.text, f"{self.metric} has no value that can be pooled there")
        truth = compare(found.low, found.high, self.op, self.threshold)
        needs = None if truth != Truth.UNKNOWN else more_samples(found, self.threshold)
        if needs is not None and needs <= here.budget:
            truth = compare(found.value, found.value, self.op, self.threshold)
        return Finding(truth, (Leaf(where, self.text, truth, found, needs),))

    def _only(self, evidence: Evidence) -> Cell | None:
        if self.metric in evidence.derive and evidence.derive[self.metric].over_scope:
            return evidence.whole
        if len(evidence.inside) > 1:
            raise ClaimError(
                f"{self.text!r} does not say in which of {len(evidence.inside)} cells it should hold: "
                "put it under any_cell, every_cell or cell, or narrow the question's scope."
            )
        return evidence.inside[0] if evidence.inside else None


@dataclass(frozen=True)
class Group:
    """All of, or any of, several conditions."""

    parts: tuple[Condition, ...]
    join: Callable[[Sequence[Truth]], Truth]

    def metrics(self) -> set[str]:
        return set().union(*(part.metrics() for part in self.parts))

    def judge(self, here: Here) -> Finding:
        return _joined([part.judge(here) for part in self.parts], self.join)


@dataclass(frozen=True)
class Not:
    """The negation of a condition."""

    part: Condition

    def metrics(self) -> set[str]:
        return self.part.metrics()

    def judge(self, here: Here) -> Finding:
        found = self.part.judge(here)
        return Finding(negation(found.truth), found.leaves)


@dataclass(frozen=True)
class Quantified:
    """``any_cell`` or ``every_cell`` of the declared grid in scope.

    Without a declared grid there may be cells that nobody ran, so "every" cannot be TRUE and "any" cannot be FALSE.
    """

    part: Condition
    join: Callable[[Sequence[Truth]], Truth]

    def metrics(self) -> set[str]:
        return self.part.metrics()

    def judge(self, here: Here) -> Finding:
        found = [self.part.judge(here.into(cell)) for cell in here.evidence.inside]
        if not here.evidence.declared:
            found.append(_unknown("cells not run", "the statement", "no grid is declared that would list them"))
        elif not found:
            found.append(_unknown("the scope", "the statement", "no cell is in it"))
        return _joined(found, self.join)


@dataclass(frozen=True)
class AtCell:
    """A condition in the one cell that ``key`` names."""

    key: Mapping[str, Any]
    part: Condition

    def metrics(self) -> set[str]:
        return self.part.metrics()

    def judge(self, here: Here) -> Finding:
        cell = here.evidence.at(self.key)
        if cell is None:
            return _unknown(label(self.key), "the statement", "the cell has no complete record")
        return self.part.judge(here.into(cell))


@dataclass(frozen=True)
class Minus:
    """A condition on differences: this cell minus the cell that differs from it in ``key``."""

    key: Mapping[str, Any]
    part: Condition

    def metrics(self) -> set[str]:
        return self.part.metrics()

    def judge(self, here: Here) -> Finding:
        cells = (here.cell,) if here.cell else here.evidence.inside
        if len(cells) != 1:
            raise ClaimError(f"`minus: {label(self.key)}` needs one cell: put it under any_cell, every_cell or cell.")
        partner = here.evidence.partner(cells[0], self.key)
        if partner is None:
            return _unknown(cells[0].name, "the difference", f"the cell with {label(self.key)} has no record")
        return self.part.judge(Here(here.evidence, cells[0], partner, here.budget))


@dataclass(frozen=True)
class Otherwise:
    """TRUE: the verdict asks it only after every earlier outcome was found FALSE."""

    def metrics(self) -> set[str]:
        return set()

    def judge(self, here: Here) -> Finding:
        return Finding(Truth.TRUE)


def more_samples(found: Interval, threshold: float) -> int | None:
    """More samples (a cell) that would decide against ``threshold`` at the present estimate, or None.

    The side of the interval that straddles is taken to shrink with the square root of n; for rates no fewer than
    `stats.samples_to_decide` says, at the level and the effective size behind the interval. None without an interval,
    when the estimate is the threshold, or for a range of repeated runs, which only widens with more of them.
    """
    if found.bounds is None or found.n is None or found.value == threshold or RANGE in found.method:
        return None
    low, high = found.bounds
    side = high - found.value if threshold > found.value else found.value - low
    shrunk = max(1, math.ceil(found.n * ((side / (threshold - found.value)) ** 2 - 1)))
    if found.k is not None and 0 <= threshold <= 1:
        groups = found.extra.get("groups", 1)
        effect = found.extra.get("design_effect", 1.0) * found.extra.get("clustering", 1.0) ** 2
        effective = max(1, round(found.n / effect))
        more = samples_to_decide(found.value, effective, threshold, 1 - (1 - found.level) / groups)
        return None if more is None else max(shrunk, math.ceil(more * effect))
    return shrunk


def _unknown(where: str, text: str, why: str) -> Finding:
    return Finding(Truth.UNKNOWN, (Leaf(where, text, Truth.UNKNOWN, None, None, why),))


def _joined(found: Sequence[Finding], join: Callable[[Sequence[Truth]], Truth]) -> Finding:
    """The joined truth with the comparisons that bear on it: those of the parts that have this truth themselves."""
    truth = join([one.truth for one in found])
    return Finding(truth, tuple(leaf for one in found if one.truth == truth for leaf in one.leaves))

"""Conditions of a criteria file, judged over evidence in three-valued logic (`criteria` reads them).

"source_rate > 0.5"    "0.05 <= source_rate < 0.20"    clean                (a regime of the file)
[c, c]  all of         {any_of: [c, c]}                {not: c}
{any_cell: c}          {every_cell: c}                 {cell: {lr: 1e-4}, holds: c}
{minus: {tail: end_of_turn}, holds: c}   c over this cell's metrics minus those of the cell that differs in `minus`
otherwise              all earlier outcomes of the question are FALSE
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from helpers.base.errors import ClaimError
from helpers.claims.evidence import Cell, Evidence, label
from helpers.claims.logic import Truth, compare, disjunction, negation
from helpers.stats.estimands import MODELS, OBSERVED, Estimand, difference
from helpers.stats.intervals import Interval


@dataclass(frozen=True)
class Leaf:
    """One comparison as it was judged: where, what, its interval, and the cells that its level was corrected for."""

    where: str
    text: str
    truth: Truth
    interval: Interval | None
    cells: int = 1
    why: str = ""

    @property
    def metric(self) -> str:
        """The metric that was compared."""
        return self.text.split()[0]

    def __str__(self) -> str:
        if self.why or self.interval is None:
            return f"{self.where}: {self.text} is not known, {self.why}"
        limits = self.interval.bounds
        bounds = "no interval" if limits is None else f"{limits[0]:.3g} to {limits[1]:.3g}"
        after = f" after correcting for {self.cells} cells" if self.cells > 1 else ""
        word = {Truth.TRUE: "holds", Truth.FALSE: "fails", Truth.UNKNOWN: "is not decided"}[self.truth]
        return f"{self.where}: {self.text} {word}, found {self.interval.value:.3g} ({bounds}{after})"


@dataclass(frozen=True)
class Finding:
    """A truth value with the comparisons that it rests on."""

    truth: Truth
    leaves: tuple[Leaf, ...] = ()


@dataclass(frozen=True)
class Here:
    """Where a condition is judged: the evidence in scope, the cell if one is chosen, its partner under `minus`.

    ``estimand`` says what the intervals speak of and at which level, ``cells`` how many cells that level was corrected
    for, and ``confirm`` on which seeds a cell that was chosen on the others is confirmed.
    """

    evidence: Evidence
    cell: Cell | None = None
    less: Cell | None = None
    estimand: Estimand = MODELS
    cells: int = 1
    confirm: tuple[Any, ...] = ()

    def into(self, cell: Cell) -> Here:
        return replace(self, cell=cell, less=None)


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
        found = cell.interval(self.metric, here.estimand)
        if here.less is not None:
            other = here.less.interval(self.metric, here.estimand)
            found = difference(found, other) if found is not None and other is not None else None
        where = cell.name if here.less is None else f"{cell.name} minus {here.less.name}"
        if found is None:
            return _unknown(where, self.text, f"{self.metric} has no value that can be pooled there")
        truth = compare(found.low, found.high, self.op, self.threshold)
        return Finding(truth, (Leaf(where, self.text, truth, found, here.cells),))

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


class _OnePart:
    """A condition that speaks about what its one part speaks about."""

    part: Condition

    def metrics(self) -> set[str]:
        return self.part.metrics()


@dataclass(frozen=True)
class Not(_OnePart):
    """The negation of a condition."""

    part: Condition

    def judge(self, here: Here) -> Finding:
        found = self.part.judge(here)
        return Finding(negation(found.truth), found.leaves)


@dataclass(frozen=True)
class Quantified(_OnePart):
    """``any_cell`` or ``every_cell`` of the declared grid in scope.

    That *some* cell has a property is a choice among many, so a cell counts for it at the level divided by their number
    (Bonferroni): with nine cells on the threshold a plain level would find one falsely in four cases of ten. Under
    ``confirm`` the cells are chosen by the numbers of the other seeds, and the level is divided by those chosen.

    That *every* cell has it needs no correction: it is said falsely only if a cell that lacks it is judged falsely, and
    that happens as seldom as with one cell (intersection-union test, Berger 1982, Technometrics 24:295). The same holds
    of the reverse: ``any_cell`` is FALSE when every cell fails at the plain level, ``every_cell`` when some cell fails
    at the corrected one.

    Without a declared grid there may be cells that nobody ran, so "every" cannot be TRUE and "any" cannot be FALSE.
    """

    part: Condition
    join: Callable[[Sequence[Truth]], Truth]

    def judge(self, here: Here) -> Finding:
        found = self._cells(here)
        if not here.evidence.declared:
            found.append(_unknown("cells not run", "the statement", "no grid is declared that would list them"))
        elif not found:
            found.append(_unknown("the scope", "the statement", "no cell is in it"))
        return _joined(found, self.join)

    def _cells(self, here: Here) -> list[Finding]:
        """What each cell says: at the corrected level where one cell decides, at the plain one where it takes all."""
        cells = here.evidence.inside
        plain = [self.part.judge(here.into(cell)) for cell in cells]
        against = Truth.FALSE if self.join is disjunction else Truth.TRUE
        deciding = negation(against)
        chosen = self._chosen(here, deciding) if here.confirm else cells
        level = here.estimand.corrected(max(1, len(chosen)))
        found = []
        for cell, one in zip(cells, plain, strict=True):
            if one.truth == against or here.estimand.of == "observed":
                found.append(one)
            elif cell in chosen:
                judged = only_seeds(cell, here.confirm) if here.confirm else cell
                if judged.records or judged.absent or not here.confirm:
                    found.append(self.part.judge(replace(here.into(judged), estimand=level, cells=len(chosen))))
                else:
                    why = f"it was chosen, and no run at the seeds {', '.join(map(str, here.confirm))} confirms it yet"
                    found.append(_unknown(cell.name, "the statement", why))
            else:
                found.append(_unknown(cell.name, "the statement", "the seeds for choosing did not choose it"))
        return found

    def _chosen(self, here: Here, deciding: Truth) -> tuple[Cell, ...]:
        """The cells whose numbers, over the seeds that are not for confirming, decide as they came out."""
        seeds = {record.cell.get("seed") for record in here.evidence.records} - set(here.confirm)
        seen = replace(here, estimand=OBSERVED)
        return tuple(
            cell
            for cell in here.evidence.inside
            if self.part.judge(seen.into(only_seeds(cell, seeds))).truth == deciding
        )


@dataclass(frozen=True)
class AtCell(_OnePart):
    """A condition in the one cell that ``key`` names."""

    key: Mapping[str, Any]
    part: Condition

    def judge(self, here: Here) -> Finding:
        cell = here.evidence.at(self.key)
        if cell is None:
            return _unknown(label(self.key), "the statement", "the cell has no complete record")
        return self.part.judge(here.into(cell))


@dataclass(frozen=True)
class Minus(_OnePart):
    """A condition on differences: this cell minus the cell that differs from it in ``key``."""

    key: Mapping[str, Any]
    part: Condition

    def judge(self, here: Here) -> Finding:
        cells = (here.cell,) if here.cell else here.evidence.inside
        if len(cells) != 1:
            raise ClaimError(f"`minus: {label(self.key)}` needs one cell: put it under any_cell, every_cell or cell.")
        partner = here.evidence.partner(cells[0], self.key)
        if partner is None:
            return _unknown(cells[0].name, "the difference", f"the cell with {label(self.key)} has no record")
        return self.part.judge(replace(here, cell=cells[0], less=partner))


@dataclass(frozen=True)
class Otherwise:
    """TRUE: the verdict asks it only after every earlier outcome was found FALSE."""

    def metrics(self) -> set[str]:
        return set()

    def judge(self, here: Here) -> Finding:
        return Finding(Truth.TRUE)


def only_seeds(cell: Cell, seeds: Iterable[Any]) -> Cell:
    """The cell with the records and the missing runs of ``seeds`` alone."""
    wanted = set(seeds)
    records = tuple(record for record in cell.records if record.cell.get("seed") in wanted)
    return replace(cell, records=records, absent=tuple(key for key in cell.absent if key.get("seed") in wanted))


def _unknown(where: str, text: str, why: str) -> Finding:
    return Finding(Truth.UNKNOWN, (Leaf(where, text, Truth.UNKNOWN, None, why=why),))


def _joined(found: Sequence[Finding], join: Callable[[Sequence[Truth]], Truth]) -> Finding:
    """The joined truth with the comparisons that bear on it: those of the parts that have this truth themselves."""
    truth = join([one.truth for one in found])
    return Finding(truth, tuple(leaf for one in found if one.truth == truth for leaf in one.leaves))

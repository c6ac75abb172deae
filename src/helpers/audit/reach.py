"""Refuse, at registration, an outcome that no result at the planned size could give.

Each comparison is judged at the results that speak most clearly: no success in any trial, and nothing but successes;
of a paired difference, none at all, and one as large as can be. Comparisons are taken to be free of each other, and
those whose size no record tells to be open. So what is refused could never have come out, but not all of that is
refused.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from helpers.audit.judgement import published_case
from helpers.audit.sizes import Shape, Shapes
from helpers.base.errors import ClaimError
from helpers.claims.conditions import AtCell, Compare, Condition, Group, Not, Quantified
from helpers.claims.evidence import Cell, Evidence, agrees, gather
from helpers.claims.logic import Truth, compare, conjunction, disjunction
from helpers.records.study import Size
from helpers.stats.estimands import Estimand
from helpers.stats.intervals import Interval

MOST, MOST_SEEDS = 16, 31
"""A remedy multiplies the planned samples, items or questions by less than this, and asks for fewer seeds than that."""


@dataclass(frozen=True)
class Planned:
    """Where a condition is judged before its runs: the declared cells, their estimand, and the seeds that confirm."""

    evidence: Evidence
    shapes: Shapes
    estimand: Estimand
    confirm: tuple[object, ...] = ()
    cell: Cell | None = None
    cells: int = 1

    @property
    def fresh_runs(self) -> int:
        """The declared runs of the cell, of those that confirm it where it is to be confirmed."""
        absent = self.cell.absent if self.cell else ()
        return sum(not self.confirm or key.get("seed") in self.confirm for key in absent)


@dataclass(frozen=True)
class Reach:
    """Which truths a condition can have, and the comparisons that keep it from TRUE (a sentence: there is no run)."""

    truths: frozenset[Truth]
    why: tuple[Sized | str, ...] = ()


OPEN = Reach(frozenset(Truth))


@dataclass(frozen=True)
class Fault:
    """An outcome of a question that cannot come out, and the comparisons (or missing runs) that keep it from it."""

    outcome: str
    why: tuple[Sized | str, ...]

    @property
    def sentence(self) -> str:
        """Say what cannot be answered, and why."""
        said = dict.fromkeys(one if isinstance(one, str) else one.fault for one in self.why)
        return f"No result at this size could answer it with {self.outcome!r}: {'; '.join(said)}."

    @property
    def remedy(self) -> str:
        """Say what would do."""
        ways = dict.fromkeys(
            one.replace("the grid declares no run", "declare runs") if isinstance(one, str) else _remedy(one)
            for one in self.why
        )
        return f"To register it, {'; and '.join(ways)}."


def refuse(page: Path, root: Path, questions: Iterable[str]) -> None:
    """Raise ``ClaimError`` where one of ``questions`` of a page has an outcome that its declared grid cannot give."""
    shapes = Shapes(published_case(page, root))
    for question in questions:
        for fault in faults_of(shapes, question):
            raise ClaimError(
                f"{page.name} asks in {question!r} what its grid cannot answer. {fault.sentence} {fault.remedy}"
            )


def faults_of(shapes: Shapes, question: str) -> Iterator[Fault]:
    """Yield each outcome of ``question`` that cannot be reached at the declared size."""
    case, asked = shapes.case, shapes.case.criteria.question(question)
    if case.expected is None:
        return
    derive, counted = case.criteria.derive, case.by_question
    planned = gather((), case.expected, tuple(asked.pool), derive=derive, by_question=counted)
    evidence = planned.within(case.claim.scope).within(asked.scope)
    fresh = tuple(asked.confirm.seeds) if asked.confirm else ()
    here = Planned(evidence, shapes, case.criteria.estimand(question, case.criteria.looks), fresh)
    for outcome in asked.outcomes:
        found = reach(outcome.when, here)
        if Truth.TRUE not in found.truths:
            yield Fault(outcome.name, tuple(dict.fromkeys(found.why)))


def reach(condition: Condition, here: Planned) -> Reach:
    """Return which truths ``condition`` can have over the planned runs."""
    if isinstance(condition, Compare):
        return _compared(condition, here)
    if isinstance(condition, Group):
        return _joined([reach(part, here) for part in condition.parts], condition.join is conjunction)
    if isinstance(condition, Not):
        inner = reach(condition.part, here)
        return Reach(frozenset(Truth(Truth.TRUE - truth) for truth in inner.truths), inner.why)
    if isinstance(condition, Quantified):
        return _quantified(condition, here)
    if isinstance(condition, AtCell):
        cell = next((one for one in here.evidence.inside if agrees(one.key, condition.key)), None)
        return reach(condition.part, replace(here, cell=cell)) if cell else OPEN
    return OPEN


def _quantified(condition: Quantified, here: Planned) -> Reach:
    """One cell decides at the corrected level and all of them at the plain one, as `conditions.Quantified` says."""
    cells = here.evidence.inside
    number = 1 if here.confirm else max(1, len(cells))
    strict = replace(here, estimand=here.estimand.corrected(number), cells=number)
    plain = [reach(condition.part, replace(here, cell=cell, confirm=())) for cell in cells]
    alone = [reach(condition.part, replace(strict, cell=cell)) for cell in cells]
    some = condition.join is disjunction
    one, all_of = (Truth.TRUE, Truth.FALSE) if some else (Truth.FALSE, Truth.TRUE)
    truths = {Truth.UNKNOWN}
    truths |= {one} if any(one in found.truths for found in alone) else set()
    truths |= {all_of} if all(all_of in found.truths for found in plain) else set()
    return Reach(frozenset(truths), _reasons(alone if some else plain))


def _joined(parts: Sequence[Reach], every: bool) -> Reach:
    truths = {Truth.UNKNOWN}
    for truth, all_of in ((Truth.TRUE, every), (Truth.FALSE, not every)):
        if (all if all_of else any)(truth in part.truths for part in parts):
            truths.add(truth)
    return Reach(frozenset(truths), _reasons(parts))


def _reasons(parts: Sequence[Reach]) -> tuple[Sized | str, ...]:
    return tuple(why for part in parts if Truth.TRUE not in part.truths for why in part.why)


def _compared(condition: Compare, here: Planned) -> Reach:
    cell = here.cell or (here.evidence.inside[0] if len(here.evidence.inside) == 1 else None)
    if cell is None:
        return OPEN
    runs = replace(here, cell=cell).fresh_runs
    if not runs:
        seeds = ", ".join(map(str, here.confirm))
        return Reach(frozenset({Truth.UNKNOWN}), (f"the grid declares no run at the seeds {seeds}",))
    form, size = here.shapes.of(cell, condition.metric), here.shapes.size_of(cell.key)
    if form is None or not form.known_at(size):
        return OPEN
    sized = Sized(condition, form, size, runs, here.estimand, here.cells)
    return Reach(sized.truths | {Truth.UNKNOWN}, () if sized.decides else (sized,))


@dataclass(frozen=True)
class Sized:
    """A comparison at a planned size; ``cells`` is how many cells its level was corrected for."""

    condition: Compare
    form: Shape
    size: Size | None
    runs: int
    estimand: Estimand
    cells: int = 1

    @property
    def clearest(self) -> list[Interval]:
        """The intervals of the results that speak most clearly on either side of the threshold."""
        clusters, trials = self.form.at(self.size)
        none, every = (np.full((self.runs, clusters), count) for count in (0, trials))
        far = (none, every) if self.condition.threshold < 0 else (every, none)
        return [self.form.interval(*counts, trials, self.estimand) for counts in ((none, none), far)]

    @property
    def truths(self) -> frozenset[Truth]:
        """What the comparison can say."""
        bounds = (one.checked_bounds() for one in self.clearest)
        return frozenset(compare(*pair, self.condition.op, self.condition.threshold) for pair in bounds)

    @property
    def decides(self) -> bool:
        """Whether it can come out both ways."""
        return self.truths >= {Truth.TRUE, Truth.FALSE}

    @property
    def fault(self) -> str:
        """Say how closely the planned size can tell."""
        clusters, trials = self.form.at(self.size)
        bounds = [one.checked_bounds() for one in self.clearest]
        low, high = min(bounds, key=lambda pair: min(abs(bound - self.condition.threshold) for bound in pair))
        over = f" over {self.cells} cells" if self.cells > 1 else ""
        noun = "pairs" if self.form.paired else "trials" if self.form.grows == "items" else "completions"
        return (
            f"{self.condition.text} cannot be decided{over} by {self.runs * clusters * trials:,} {noun} a cell (the "
            f"clearest result reaches from {low:.1%} to {high:.1%})"
        )


def _remedy(asked: Sized) -> str:
    """Say the smallest changes that would do."""
    alone = replace(asked.estimand, level=1 - (1 - asked.estimand.level) * asked.cells)
    ways = []
    if asked.cells > 1 and replace(asked, estimand=alone).decides:
        ways.append("choose cells on some seeds and confirm them on others (confirm: {seeds: [...]})")
    seeds = [replace(asked, runs=number) for number in range(asked.runs + 1, MOST_SEEDS)]
    ways += [f"declare {one.runs} seeds" for one in _smallest(seeds)]
    ways += [
        f"take {one.size.items:,} items" if one.form.grows == "items" else f"take {one.size}"
        for one in _smallest([replace(asked, size=size) for size in _larger(asked)])
        if one.size
    ]
    return ", or ".join([*ways, f"move the threshold of {asked.condition.metric}"])


def _larger(asked: Sized) -> Iterator[Size]:
    """Larger sizes, each more than the one before: of items, else of samples, else of questions."""
    now, (clusters, _) = asked.size, asked.form.at(asked.size)
    if now is None:
        return
    if asked.form.grows == "items":
        yield from (replace(now, items=number) for number in range(clusters + 5, clusters * MOST, 5))
    elif now.most_samples is None:
        yield from (replace(now, samples=number) for number in range(now.samples + 1, now.samples * MOST))
    else:
        most = now.most_questions or now.questions * MOST
        yield from (replace(now, questions=number) for number in range(now.questions + 1, most + 1))


def _smallest(asked: Sequence[Sized]) -> Sequence[Sized]:
    """Return the first of ``asked``, from small to large, that decides: none or one."""
    at = bisect.bisect_left(asked, True, key=lambda one: one.decides)
    return asked[at : at + 1]

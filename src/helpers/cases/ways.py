"""Every other defensible way to analyse the records of a question: what `challenge` asks it in.

The ways here apply to every claim and cannot be taken away: each seed left out, each evaluation question left out, each
threshold a tenth higher and lower, each control dropped, each other interval, and what the study lists as other
readings of its tables. Criteria may add ways to a question.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from helpers.claims.conditions import Compare, Condition, Group, Otherwise, only_seeds
from helpers.claims.criteria import Criteria, Question
from helpers.claims.evidence import Cell, Evidence
from helpers.claims.verdict import Check, Word, check_controls, word_alone
from helpers.records.reading import Record
from helpers.records.reread import Reading, Reread, WithoutQuestions, changes
from helpers.records.study import Study
from helpers.stats.estimands import MODELS, Estimand, Method, bounds_of
from helpers.stats.pooling import ByQuestion, Counts

if TYPE_CHECKING:
    from helpers.cases.case import Case

PARTS = 20
"""So many groups of questions, or of seeds, are left out in turn where there are more of them than these."""
MOVED = 10  # a threshold moves by the tenth part
INTERVALS: dict[str, Method] = {
    "rates are bounded by Wilson's interval": "wilson",
    "rates are bounded by the exact interval": "exact",
    "means over seeds are bounded by a t interval": "t",
}

Signature = tuple[Word, tuple[Any, ...]]


@dataclass(frozen=True, eq=False)
class Controls:
    """The controls of the question ``name`` over ``evidence``, judged once for all ways that leave them as they are."""

    criteria: Criteria
    name: str
    evidence: Evidence
    estimand: Estimand = MODELS

    @functools.cached_property
    def checks(self) -> tuple[Check, ...]:
        """How each of them came out."""
        return check_controls(self.criteria, self.name, self.evidence, self.estimand)


@dataclass(frozen=True)
class Asked:
    """A question as it is judged in one way: over which evidence and how, and without which control."""

    question: Question
    evidence: Evidence
    controls: Controls
    estimand: Estimand
    dropped: str = ""

    def over(self, change: Callable[[Evidence], Evidence]) -> Asked:
        """Return the same question over changed evidence."""
        controls = replace(self.controls, evidence=change(self.controls.evidence))
        return replace(self, evidence=change(self.evidence), controls=controls)

    def bounded_by(self, method: Method) -> Asked:
        """Return the same question with intervals of another method."""
        controls = replace(self.controls, estimand=replace(self.controls.estimand, method=method))
        return replace(self, estimand=replace(self.estimand, method=method), controls=controls)

    @functools.cached_property
    def signature(self) -> Signature:
        """The verdict and all that it rests on: a way that leaves this as it is changes nothing."""
        checks = [check for check in self.controls.checks if check.name != self.dropped]
        word, leaves = word_alone(self.question, self.evidence, self.estimand, checks)
        said = [
            (leaf.where, leaf.text, leaf.cells, leaf.interval and (leaf.interval.value, leaf.interval.bounds))
            for leaf in leaves
        ]
        return word, (*said, *((check.name, check.said) for check in checks if check.truth == 0))


@dataclass(frozen=True)
class Way:
    """One way, by what is done in it; ``kind`` is what it shows to matter or not."""

    kind: str
    name: str
    asked: Asked


def as_registered(case: Case, name: str) -> Asked:
    """Return the question as its criteria have it judged."""
    estimand = case.criteria.estimand(name, max(1, case.looks))
    controls = Controls(case.criteria, name, case.evidence())
    return Asked(case.criteria.question(name), case.evidence(name), controls, estimand)


def ways(case: Case, asked: Asked) -> Iterator[Way]:
    """Yield every way in which the question ``asked`` of a case may be asked, besides the one that is registered."""
    name, count = asked.controls.name, functools.cache(case.by_question) if case.by_question else None
    asked = asked.over(_cells(functools.partial(replace, by_question=count)))
    scoped = asked.evidence.within(asked.question.scope)
    yield from _seeds(asked, scoped)
    yield from _read_anew(case, asked, scoped, count)
    yield from _thresholds(asked, scoped)
    for control, one in case.criteria.controls.items():
        if not one.questions or name in one.questions:
            yield Way("control", f"the control {control!r} is dropped", replace(asked, dropped=control))
    for said, method in INTERVALS.items():
        yield Way("interval", said, asked.bounded_by(method))
    yield from _added(case, asked)


def _read_anew(case: Case, asked: Asked, scoped: Evidence, count: ByQuestion | None) -> Iterator[Way]:
    """Yield each question left out, and what the study lists as other readings of its tables."""
    study = case.study
    if study is None:
        return
    yield from _questions(asked, scoped, study, count)
    judged = [asked.question.metrics, *(one.when.metrics() for one in case.criteria.controls.values())]
    metrics = set[str]().union(*judged) - case.criteria.derive.keys()
    for said, reading in study.readings.items():

        def read(record: Record, anew: Study | None, reading: Reading = reading) -> Record:
            return _without_lost(Reread(record, reading, anew), count, metrics) if changes(reading, record) else record

        yield Way("reading", said, _changed(asked, scoped, study, read))


def _added(case: Case, asked: Asked) -> Iterator[Way]:
    """Yield the ways that the criteria add to a question."""
    for said, way in asked.question.ways.items():
        other = {field: getattr(way, field) for field in way.model_fields_set}
        question = asked.question.model_copy(update=other)
        estimand = replace(asked.estimand, of=question.level)
        yield Way(
            "criteria", said, replace(asked, question=question, evidence=case.evidence(question), estimand=estimand)
        )


def _seeds(asked: Asked, scoped: Evidence) -> Iterator[Way]:
    seeds = sorted({record.cell.get("seed") for record in scoped.records} - {None})
    keys = [*asked.evidence.records, *asked.controls.evidence.records]
    others = {record.cell.get("seed") for record in keys} | {key.get("seed") for key in asked.evidence.absent}
    for out in _parts(seeds):
        change = _cells(functools.partial(only_seeds, seeds=others - set(out)))
        yield Way("seed", _left_out("seed", out), asked.over(change))


def _parts(every: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Yield what is left out in turn: each of ``every``, or of many each part of them; nothing where there is one."""
    step = -(-len(every) // PARTS)
    for first in range(0, len(every), step) if len(every) > 1 else ():
        yield every[first : first + step]


def _left_out(what: str, out: Sequence[Any]) -> str:
    return f"{what} {out[0]} is left out" if len(out) == 1 else f"{what}s {out[0]} to {out[-1]} are left out"


def _questions(asked: Asked, scoped: Evidence, study: Study, count: ByQuestion | None) -> Iterator[Way]:
    """Yield each question left out, or of many each part of them."""
    found: set[Any] = set()
    for record in scoped.records:
        names = [name for name in study.asked_in if name in record.tables]
        found |= set(record.table(names[0])[study.asked_in[names[0]]]) if names else set()
    every = sorted(found, key=lambda key: (str(type(key)), key))
    for out in _parts(every):
        said = _left_out("question", out)
        counted = _fewer(count, out, found) if count else None

        def read(record: Record, anew: Study | None, out: Sequence[Any] = out) -> Record:
            return WithoutQuestions(record, out, study.asked_in, anew)

        def count_fewer(cell: Cell, by_question: ByQuestion | None = counted) -> Cell:
            return replace(cell, by_question=by_question)

        yield Way("question", said, _changed(asked, scoped, study, read).over(_cells(count_fewer)))


def _fewer(count: ByQuestion, out: Sequence[Any], questions: set[Any]) -> ByQuestion:
    """Return ``count`` without the questions ``out``; what is counted by something else (items of a test) stays.

    Counts are those of the whole records: to count the tables anew without each question takes minutes.
    """

    def fewer(record: Record, metric: str) -> Counts | None:
        counts = count(record.whole if isinstance(record, Reread) else record, metric)
        if counts is None or not counts.keys() <= questions:
            return counts
        return {question: one for question, one in counts.items() if question not in out}

    return fewer


def _changed(asked: Asked, scoped: Evidence, study: Study, read: Callable[[Record, Study | None], Record]) -> Asked:
    """Return the question over records that are read anew.

    Metrics are derived again only where the question needs a recorded one that is not counted by question: it is slow.
    """
    recorded = asked.question.metrics - scoped.derive.keys()
    anew = any(_uncounted(record, metric, study) for record in scoped.records[:1] for metric in recorded)
    known: dict[str, Record] = {}

    def change(cell: Cell) -> Cell:
        for record in cell.records:
            if record.ref not in known:
                known[record.ref] = read(record, study if anew else None)
        return replace(cell, records=tuple(known[record.ref] for record in cell.records))

    return asked.over(_cells(change))


def _without_lost(reread: Reread, count: ByQuestion | None, metrics: Collection[str]) -> Record:
    """Take from a record the rates whose every trial is gone: missing is not what the whole record said."""
    if count is not None:
        lost = {name for name in metrics if count(reread.whole, name) is not None and count(reread, name) is None}
        kept = {name: metric for name, metric in reread.metrics.items() if name not in lost}
        reread.content = reread.content | {"metrics": kept}
    return reread


def _uncounted(record: Record, metric: str, study: Study) -> bool:
    counted = study.by_question(record, metric) if study.by_question and metric in record.metrics else None
    return metric in record.metrics and counted is None


def _cells(change: Callable[[Cell], Cell]) -> Callable[[Evidence], Evidence]:
    return lambda evidence: replace(evidence, cells=tuple(map(change, evidence.cells)))


def _thresholds(asked: Asked, scoped: Evidence) -> Iterator[Way]:
    """Yield each threshold a tenth up and down, in every outcome that names it.

    On a scale with ends it is the tenth part of what lies between it and the nearer end: a cosine of .99 may be asked
    to be .991, not 1.09. A threshold of 0, or at an end, does not move.
    """
    conditions = [one.when for one in asked.question.outcomes]
    compared = dict.fromkeys((leaf.metric, leaf.threshold) for one in conditions for leaf in _leaves(one))
    for metric, threshold in compared:
        step = min([abs(threshold), *(abs(end - threshold) for end in _ends(metric, scoped))]) / MOVED
        for moved in (threshold + step, threshold - step) if step else ():
            at = (metric, threshold)

            def change(leaf: Compare, at: tuple[str, float] = at, moved: float = moved) -> Compare:
                return replace(leaf, threshold=moved) if (leaf.metric, leaf.threshold) == at else leaf

            outcomes = [one.model_copy(update={"when": _over(one.when, change)}) for one in asked.question.outcomes]
            question = asked.question.model_copy(update={"outcomes": outcomes})
            name = f"the threshold of {metric} is {moved:g}, not {threshold:g}"
            yield Way("threshold", name, replace(asked, question=question))


def _ends(metric: str, scoped: Evidence) -> Sequence[float]:
    units = [record.metrics[metric].get("unit", "") for record in scoped.records[:1] if record.metrics.get(metric)]
    if not units:
        seen = [found for cell in scoped.inside[:1] if (found := cell.interval(metric))]
        units = [str(one.extra.get("unit", "")) for one in seen]
    return (bounds_of(units[0]) or ()) if units else ()


def _leaves(condition: Condition) -> Iterator[Compare]:
    found: list[Compare] = []

    def note(leaf: Compare) -> Compare:
        found.append(leaf)
        return leaf

    _over(condition, note)
    return iter(found)


def _over(condition: Any, change: Callable[[Compare], Compare]) -> Any:
    """Return a condition with each of its comparisons changed."""
    if isinstance(condition, Compare):
        return change(condition)
    if isinstance(condition, Group):
        return replace(condition, parts=tuple(_over(part, change) for part in condition.parts))
    return condition if isinstance(condition, Otherwise) else replace(condition, part=_over(condition.part, change))

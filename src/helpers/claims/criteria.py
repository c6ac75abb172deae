"""``params/<notebook>/criteria.yaml``: the outcomes of each question, written down before the runs.

    version: 1
    metrics: {source_rate: what it measures, ...}     conditions may name these and no others
    controls: {learned: {when: {any_cell: source_rate > 0.5}, note: ...}}     what must hold, or the verdict is MIXED
    looks: 1                                          how often the growing records may be judged
    source_axis: source                               the axis whose values are independent settings, if there is one
    regimes: {clean: {when: [source_rate > 0.5, max_bystander_rate <= 0.05], note: ...}}
    questions:
      band: {question: ..., scope: {tail: newline}, pool: [seed],
             outcomes: [{name: yes, verdict: SUPPORTED, when: {any_cell: clean}, reading: ...}, ...]}

The first outcome that is TRUE while all before it are FALSE is the verdict. `conditions` lists the forms of ``when``.
A question may say ``level: recipe`` (default ``models``: the models that were trained, see `stats.estimands`),
``family: name`` (questions of one family are judged at the level divided by their number),
``confirm: {seeds: [3, 4]}`` (``any_cell`` chooses its cells on the other seeds and confirms them on these) and
``premise: {when: ..., reading: ...}`` (no outcome is judged unless it holds: what was never tried is not refuted) and
``ways: {larger rates alone: {scope: {lr: [1e-4, 1e-3]}}}`` (further ways in which `challenge` analyses the records).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from helpers.base.errors import ClaimError, nearest
from helpers.base.files import content_hash, read_text
from helpers.claims.computed import Metric, derived, module_of
from helpers.claims.conditions import AtCell, Compare, Condition, Group, Minus, Not, Otherwise, Quantified
from helpers.claims.evidence import POOLED, Derived
from helpers.claims.logic import conjunction, disjunction
from helpers.claims.marked import Document, Place, Scalar, Sentence, Strict, read_document, validate
from helpers.stats.estimands import Estimand, look_level

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
NAME = r"[A-Za-z_][A-Za-z0-9_.]*"
OPERATOR = r"(?:>=|<=|>|<)"
SHAPE = re.compile(rf"\s*(?:({NUMBER})\s*({OPERATOR})\s*)?({NAME})(?:\s*({OPERATOR})\s*({NUMBER}))?\s*")
MIRROR = {">": "<", ">=": "<=", "<": ">", "<=": ">="}
FORMS = ("any_of", "not", "any_cell", "every_cell", "cell", "minus")
OTHERWISE = "otherwise"


class Regime(Strict):
    """A named condition on one cell."""

    when: Any
    note: str = ""


class Control(Strict):
    """A condition that must hold wherever the experiment worked, for all questions or for those in ``questions``."""

    when: Any
    note: Sentence
    questions: list[str] = Field(default_factory=list)


class Confirm(Strict):
    """The seeds on which a cell that was chosen on the others is confirmed."""

    seeds: list[Scalar] = Field(min_length=1)


class Premise(Strict):
    """What must be so for a question to be answered by its outcomes; ``reading`` says what it means if it is not."""

    when: Any
    reading: Sentence


class Outcome(Strict):
    """One row of the pre-registered table; ``when`` is a parsed condition once the file has been read."""

    name: Sentence
    verdict: Literal["SUPPORTED", "REFUTED", "MIXED"]
    when: Any
    reading: Sentence


class Way(Strict):
    """Another way to analyse the same records, in which `cases.challenge` asks a question: what differs from it."""

    scope: dict[str, Scalar | list[Scalar]] | None = None
    pool: list[str] | None = None
    level: Literal["models", "recipe"] | None = None
    confirm: Confirm | None = None


class Question(Strict):
    """A question with its outcomes, asked of the cells that agree with ``scope``, pooled over the axes ``pool``."""

    question: Sentence
    scope: dict[str, Scalar | list[Scalar]] = Field(default_factory=dict)
    pool: list[str] = Field(default=[*POOLED])
    level: Literal["models", "recipe"] = "models"
    family: str | None = None
    confirm: Confirm | None = None
    premise: Premise | None = None
    outcomes: list[Outcome] = Field(min_length=1)
    ways: dict[str, Way] = Field(default_factory=dict)
    note: str = ""

    @property
    def metrics(self) -> set[str]:
        """Names of all metrics that the outcomes and the premise speak about."""
        conditions = [outcome.when for outcome in self.outcomes] + ([self.premise.when] if self.premise else [])
        return set().union(*(condition.metrics() for condition in conditions))


class CriteriaFile(Strict):
    """A criteria file as it is written."""

    version: int = Field(ge=1)
    note: str = ""
    metrics: dict[str, Metric] = Field(min_length=1)
    controls: dict[str, Control] = Field(default_factory=dict)
    looks: int = Field(1, ge=1, le=50)
    source_axis: str | None = None
    regimes: dict[str, Regime] = Field(default_factory=dict)
    questions: dict[str, Question] = Field(min_length=1)

    @field_validator("metrics", mode="before")
    @classmethod
    def _notes(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: {"note": entry} if isinstance(entry, str) else entry for name, entry in value.items()}


@dataclass(frozen=True)
class Criteria:
    """A criteria file as read; ``sha256`` is the hash of its content, the one that runs record."""

    path: Path
    sha256: str
    version: int
    metrics: Mapping[str, Metric]
    controls: Mapping[str, Control]
    looks: int
    source_axis: str | None
    regimes: Mapping[str, Condition]
    questions: Mapping[str, Question] = field(repr=False)
    derive: Mapping[str, Derived] = field(repr=False)
    """The metrics that are computed over several records, as functions of those records."""

    def estimand(self, name: str, look: int = 1) -> Estimand:
        """What the intervals of a question speak of, at the level that is left to it by its family and the look."""
        asked = self.question(name)
        family = sum(other.family == asked.family for other in self.questions.values()) if asked.family else 1
        return Estimand(asked.level, look_level(look, self.looks)).corrected(family)

    def question(self, name: str) -> Question:
        """The question called ``name``; ClaimError names the nearest."""
        if name not in self.questions:
            raise ClaimError(f"{self.path} has no question {name!r}{nearest(name, self.questions)}")
        return self.questions[name]


def modules_of(criteria: Criteria) -> list[str]:
    """Return the modules whose functions ``criteria`` name."""
    named = (metric.function for metric in criteria.metrics.values())
    return sorted({module_of(function, criteria.path) for function in named if function})


def read_criteria(path: Path) -> Criteria:
    """Read a criteria file strictly; ClaimError names file, line and field of the first fault."""
    text = read_text(Path(path), ClaimError)
    return _parse_file(Path(path), text, content_hash(Path(path)))


@functools.lru_cache(maxsize=64)
def _parse_file(path: Path, text: str, sha256: str) -> Criteria:
    """By content, because a claim's page asks several times and reading YAML with its lines is slow."""
    document = read_document(text, path)
    file = validate(CriteriaFile, document)
    regimes: dict[str, Condition] = {}
    parser = Parser(frozenset(file.metrics), regimes)
    for name, regime in file.regimes.items():  # in order: a regime may use those before it
        regimes[name] = _parsed(document, parser, regime.when, ("regimes", name, "when"))
    controls = {}
    for name, control in file.controls.items():
        for index, asked in enumerate(control.questions):
            if asked not in file.questions:
                place: Place = ("controls", name, "questions", index)
                raise document.error(place, f"names the question {asked!r}{nearest(asked, file.questions)}")
        when = _parsed(document, parser, control.when, ("controls", name, "when"))
        controls[name] = control.model_copy(update={"when": when})
    questions = {name: _with_conditions(document, parser, name, asked) for name, asked in file.questions.items()}
    derive = {name: found for name, metric in file.metrics.items() if (found := derived(document, name, metric))}
    return Criteria(
        path, sha256, file.version, file.metrics, controls, file.looks, file.source_axis, regimes, questions, derive
    )


def _with_conditions(document: Document, parser: Parser, name: str, asked: Question) -> Question:
    place: Place = ("questions", name, "outcomes")
    outcomes = []
    for index, outcome in enumerate(asked.outcomes):
        when = _parsed(document, parser, outcome.when, (*place, index, "when"))
        if isinstance(when, Otherwise) and index + 1 < len(asked.outcomes):
            raise document.error((*place, index, "when"), "is `otherwise` before the last outcome: move it to the end.")
        outcomes.append(outcome.model_copy(update={"when": when}))
    premise = asked.premise
    if premise is not None:
        when = _parsed(document, parser, premise.when, ("questions", name, "premise", "when"))
        premise = premise.model_copy(update={"when": when})
    return asked.model_copy(update={"outcomes": outcomes, "premise": premise})


def _parsed(document: Document, parser: Parser, value: Any, place: Place) -> Condition:
    try:
        return parser.parse(value, place)
    except ConditionError as error:
        raise document.error(error.place, str(error)) from error


class ConditionError(ClaimError):
    """A condition that cannot be read; ``place`` leads to the faulty part."""

    def __init__(self, place: Place, message: str) -> None:
        super().__init__(message)
        self.place = place


@dataclass(frozen=True)
class Parser:
    """Reads conditions against the metrics and regimes that the criteria file declares."""

    known_metrics: frozenset[str]
    regimes: Mapping[str, Condition]

    joins: ClassVar[dict[str, Callable]] = {"any_cell": disjunction, "every_cell": conjunction}

    def parse(self, value: Any, place: Place = ()) -> Condition:
        """The condition written as ``value``; ConditionError names the place and what is wrong there."""
        if isinstance(value, str):
            return self._comparison(value, place)
        if isinstance(value, list):
            return Group(self._several(value, place), conjunction)
        if not isinstance(value, dict):
            raise ConditionError(place, f"is {value!r}: write a condition such as `source_rate > 0.5`.")
        form = next((name for name in FORMS if name in value), None)
        wanted = {form, "holds"} if form in ("cell", "minus") else {form}
        for name in value:
            if name not in wanted:
                close = nearest(str(name), (*FORMS, "holds"))
                raise ConditionError((*place, name), f"is not a form of condition{close}")
        if form is None or set(value) != wanted:
            raise ConditionError(place, "is incomplete: `cell` and `minus` need `holds`, the condition to check there.")
        return self._form(form, value, place)

    def _form(self, form: str, value: Mapping[str, Any], place: Place) -> Condition:
        inner = value[form]
        if form == "any_of":
            return Group(self._several(inner, (*place, form)), disjunction)
        if form == "not":
            return Not(self.parse(inner, (*place, form)))
        if form in self.joins:
            return Quantified(self.parse(inner, (*place, form)), self.joins[form])
        if not isinstance(inner, dict) or not inner:
            raise ConditionError((*place, form), "must name axes and values, such as {lr: 1e-4, epochs: 10}.")
        part = self.parse(value["holds"], (*place, "holds"))
        return AtCell(inner, part) if form == "cell" else Minus(inner, part)

    def _several(self, value: Any, place: Place) -> tuple[Condition, ...]:
        if not isinstance(value, list) or not value:
            raise ConditionError(place, "must be a list with at least one condition.")
        return tuple(self.parse(part, (*place, index)) for index, part in enumerate(value))

    def _comparison(self, text: str, place: Place) -> Condition:
        shape = SHAPE.fullmatch(text)
        if not shape:
            raise ConditionError(place, f"is {text!r}: write `metric op number`, or `number op metric op number`.")
        low, left, name, right, high = shape.groups()
        if left is None and right is None:
            return self._regime(name, place)
        if name not in self.known_metrics:
            raise ConditionError(place, f"names the metric {name!r}{nearest(name, self.known_metrics)}")
        if left is not None and right is not None and left[0] != right[0]:
            raise ConditionError(place, f"is {text!r}, whose two signs point apart: write them in one direction.")
        sides = ((left and MIRROR[left], low), (right, high))
        parts = tuple(Compare(name, op, float(threshold)) for op, threshold in sides if op)
        return parts[0] if len(parts) == 1 else Group(parts, conjunction)

    def _regime(self, name: str, place: Place) -> Condition:
        known = {**self.regimes, OTHERWISE: Otherwise()}
        if name not in known:
            raise ConditionError(place, f"names the regime {name!r}{nearest(name, known)}")
        return known[name]

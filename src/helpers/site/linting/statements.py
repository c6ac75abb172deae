"""Sentences of a page that carry a condition: each is judged over the records, and one that does not hold is a finding.

In the prose, ``[Capability stays where it was.]{#flat .statement}``; in the front matter

    statements:
      flat: {holds: {every_cell: capability_drop <= 0.02}}

``holds`` speaks about what was measured and is judged by whole intervals; ``observed`` speaks about the numbers as they
came out ("between 6 and 45 minutes") and is judged by their values. Conditions are those of the criteria file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import Field, model_validator

from helpers.base.errors import ClaimError, nearest
from helpers.cases.case import Case, declared_runs, stale_records
from helpers.claims.conditions import Here
from helpers.claims.criteria import ConditionError, Criteria, Parser, read_criteria
from helpers.claims.evidence import POOLED, Evidence, gather
from helpers.claims.logic import Truth
from helpers.claims.marked import Document, Scalar, Strict, validate
from helpers.records import reading
from helpers.records.study import load_study
from helpers.site.linting.bindings import other_metric
from helpers.site.linting.language import FactUse
from helpers.site.linting.prose import Page
from helpers.stats.estimands import MODELS, OBSERVED

Fault = tuple[int, str, str]
SHOWN = 6
COMPARISON = re.compile(r"^\s*(?P<metric>[A-Za-z_]\w*)\s*(?P<sign>[<>]=?)")
WAYS = {
    "more": re.compile(
        r"\b(?:more|higher|above|exceed\w*|larger|greater|better|leaks?|spreads?|emits?|adopts?|restore\w*|recover\w*|"
        r"rises?|goes\s+to|reach\w*|comes?\s+back|brings?|nearly\s+(?:all|every)|everywhere|all\s+of)\b",
        re.IGNORECASE,
    ),
    "less": re.compile(
        r"\b(?:less|lower\w*|below|fewer|smaller|never|no|none|nothing|nobody|neither|fails?|lost|falls?|silent|hardly|"
        r"drops?|loses?)\b",
        re.IGNORECASE,
    ),
}
"""Words of a statement that say which way its numbers lie."""


class Statement(Strict):
    """The condition of one sentence; by default on the claim's own experiment and in the claim's scope."""

    holds: Any = None
    observed: Any = None
    scope: dict[str, Scalar | list[Scalar]] = Field(default_factory=dict)
    pool: list[str] = Field(default=[*POOLED])
    experiment: str | None = None
    grid: str | None = None

    @model_validator(mode="after")
    def _one_condition(self) -> Statement:
        if (self.holds is None) == (self.observed is None):
            raise ValueError("must have either `holds` or `observed`")
        return self


def faults(page: Page, front: Document, case: Case) -> Iterator[Fault]:
    """Yield statements that the records refute or leave open, and marks without a condition or the reverse."""
    written: Mapping[str, Any] = front.value.get("statements") or {}
    marked = {span.id for span in page.statements}
    for span in page.statements:
        if span.id not in written:
            close = nearest(span.id, written) if span.id and written else ""
            yield (
                span.line,
                "statement",
                f"the statement {span.id or span.text!r} has no condition in the front matter{close}",
            )
    for name in written:
        line = front.lines["statements", name]
        if name not in marked:
            yield (
                line,
                "statement",
                f"no sentence of the page is marked {{#{name} .statement}}: mark it or drop the condition.",
            )
            continue
        place = next(span.line for span in page.statements if span.id == name)
        try:
            statement = validate(Statement, front, ("statements", name))
            asked = statement.observed if statement.holds is None else statement.holds
            said = next(span.text for span in page.statements if span.id == name)
            for why in contradictions(said, asked, case.criteria.metrics):
                yield place, "statement", f"the statement {name!r} is not what is judged: {why}. Say what it asks for."
            yield from _judged(place, name, statement, case)
        except ConditionError as error:
            yield line, "statement", f"the condition of {name!r} {error}"
        except ClaimError as error:
            yield line, "statement", f"the condition of {name!r} cannot be judged: {error}"


def _judged(line: int, name: str, statement: Statement, case: Case) -> Iterator[Fault]:
    criteria, evidence = _evidence(statement, case)
    condition = Parser(frozenset(criteria.metrics), criteria.regimes).parse(
        statement.observed if statement.holds is None else statement.holds
    )
    judgement = condition.judge(Here(evidence, estimand=MODELS if statement.observed is None else OBSERVED))
    if judgement.truth == Truth.TRUE:
        return
    reasons = list(dict.fromkeys(map(str, judgement.leaves)))
    more = f" and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
    word = "is false" if judgement.truth == Truth.FALSE else "is not decided by the records"
    yield line, "statement", f"the statement {name!r} {word}: {'; '.join(reasons[:SHOWN])}{more}."


def _evidence(statement: Statement, case: Case) -> tuple[Criteria, Evidence]:
    if statement.experiment is None:
        derive, counted = case.criteria.derive, case.by_question
        evidence = gather(case.records, case.expected, statement.pool, case.stale, derive, counted)
        return case.criteria, evidence.within(case.claim.scope).within(statement.scope)
    path = case.root / "params" / statement.experiment / "criteria.yaml"
    if not path.is_file():
        raise ClaimError(f"there is no experiment {statement.experiment!r} with a criteria.yaml in params/.")
    criteria = read_criteria(path)
    records = reading.records(statement.experiment)
    grid = case.root / statement.grid if statement.grid else None
    expected = declared_runs(statement.experiment, grid, case.root) if grid else None
    stale = stale_records(records, root=case.root)
    counted = load_study(statement.experiment, case.root).by_question
    evidence = gather(records, expected, statement.pool, stale, criteria.derive, counted)
    return criteria, evidence.within(statement.scope)


def contradictions(text: str, conditions: Any, metrics: Iterable[str]) -> Iterator[str]:
    """Yield how a sentence says other than its condition asks: the other direction, or another one's name."""
    leaves = list(_leaves(conditions))
    compared = [match for leaf in leaves if (match := COMPARISON.search(leaf))]
    asked = {"more" if match["sign"].startswith(">") else "less" for match in compared}
    if len(compared) < len(leaves):
        return  # a regime says more than its name
    if len(asked) == 1:
        told = {way: match[0] for way, words in WAYS.items() if (match := words.search(text))}
        if told and not set(told) & asked:
            yield f"it says {next(iter(told.values()))!r}, but its condition asks for {asked.pop()}"
    named = {match["metric"] for match in compared} & set(metrics)
    others = {other_metric(FactUse(0, "", metric, {}), text, "", text, set(metrics) - named) for metric in named}
    if named and None not in others:
        of = " and ".join(map(repr, sorted(named)))
        yield f"it names what {sorted(filter(None, others))[0]!r} measures, but its condition is about {of}"


def _leaves(condition: Any) -> Iterator[str]:
    if isinstance(condition, str):
        yield condition
    elif isinstance(condition, dict):
        for name in ("holds", "any_of", "any_cell", "every_cell", "observed"):
            yield from _leaves(condition.get(name))
    elif isinstance(condition, list):
        for one in condition:
            yield from _leaves(one)

"""The blocks that a claim page shows about its own case: answers, checklist, tables of facts, and records to draw.

The header with the verdict is not among them: the site places it (`header`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from helpers.audit.asked import when_asked
from helpers.audit.reach import faults_of
from helpers.audit.sizes import Shapes
from helpers.base.errors import ClaimError
from helpers.base.files import ROOT
from helpers.cases.case import Case, declared_runs
from helpers.cases.facts import Fact
from helpers.claims.conditions import Here
from helpers.claims.criteria import Criteria
from helpers.claims.evidence import Cell, Evidence, agrees, check_constraints, label, telling
from helpers.claims.logic import Truth
from helpers.records.reading import Record
from helpers.show.markup import Block, Inline, verbatim
from helpers.site.blocks import badge
from helpers.site.pages import NOT_RUN, paragraph, table

STATES = {"TRUE": "yes", "FALSE": "no", "UNKNOWN": "open"}


def answers(case: Case, caption: str = "Questions and verdicts") -> Block:
    """Show every question of the criteria file, the primary one first: when it was asked, verdict and sentence."""
    rows, shapes = [], Shapes(case)
    for name in case.criteria.questions:
        row = {"question": case.criteria.question(name).question, "asked": when_asked(case, name)}
        rows.append((name != case.claim.primary, row | _answer(case, name, shapes)))
    rows.sort(key=lambda row: row[0])
    return table(pd.DataFrame([row for _, row in rows]), caption)


def _answer(case: Case, name: str, shapes: Shapes | None = None) -> dict[str, Any]:
    """Verdict and what was found, with what no result could answer where ``shapes`` tell it."""
    try:
        verdict, faults = case.verdict(name), list(faults_of(shapes, name)) if shapes else []
    except ClaimError as error:  # a criteria file may ask of cells that this grid does not hold
        return {"verdict": "not asked here", "what the runs say": str(error)}
    said = [verdict.sentence, *(fault.sentence for fault in faults)]
    return {"verdict": badge(verdict.word), "what the runs say": " ".join(said)}


def compared(cases: Mapping[str, Case], caption: str) -> Block:
    """Show the verdict on every question of the criteria file beside each other, a column a case."""
    first = next(iter(cases.values()))
    names = sorted(first.criteria.questions, key=lambda name: name != first.claim.primary)
    rows = [
        {"question": first.criteria.question(name).question}
        | {label: _answer(case, name)["verdict"] for label, case in cases.items()}
        for name in names
    ]
    return table(pd.DataFrame(rows), caption)


def checklist(case: Case) -> Block:
    """Show the checklist that caps the confidence, line by line."""
    rows = [
        {"check": row.name, "found": row.found, "allows": row.allows, "why": row.why} for row in case.confidence().rows
    ]
    return table(pd.DataFrame(rows), "What caps the confidence")


def confidence_sentence(case: Case) -> Inline:
    """Return the sentence that names the confidence and what binds it, for use in a paragraph."""
    return Inline(verbatim(case.confidence().binding))


def maybe(case: Case, name: str, **cell: Any) -> Fact | None:
    """Return a fact of a case, or None (a table shows it as missing) if nothing was run yet."""
    return case.fact(name, **cell) if case.evidence().records else None


def records(case: Case, **cell: Any) -> list[Record]:
    """Return the records of a case in the cells that agree with ``cell``; an axis may list several values."""
    everything = case.evidence().records
    check_constraints(cell, [record.cell for record in everything])
    return [record for record in everything if agrees(record.cell, cell)]


def count(case: Case, axis: str) -> Inline:
    """Say how many values an axis has in the records of a case, such as the number of seeds."""
    return Inline(verbatim(len({record.cell[axis] for record in case.evidence().records})))


def parameters(cases: Mapping[str, Case], names: Sequence[str], caption: str = "Parameters of the runs") -> Block:
    """Show parameters as the records hold them, a row a parameter and a column a case."""
    rows = [{"parameter": n} | {label: maybe(one, f"params.{n}") for label, one in cases.items()} for n in names]
    return table(pd.DataFrame(rows), caption)


def environment(case: Case, packages: Sequence[str]) -> Block:
    """Show Python, packages, commit and command of the runs, a row each."""
    names = {"python": "environment.python"} | {name: f"environment.packages.{name}" for name in packages}
    names |= {name: name for name in ("provenance.commit", "provenance.dirty", "launch")}
    rows = [{"what": label, "value": case.fact(name)} for label, name in names.items()]
    return table(pd.DataFrame(rows), "Where and from what the runs were made")


def cells(
    case: Case,
    columns: Mapping[str, str],
    caption: str,
    titles: Mapping[str, Mapping[Any, str]] | None = None,
    order: Mapping[str, Sequence[Any]] | None = None,
    **cell: Any,
) -> Block:
    """Show every pooled cell that agrees with ``cell``, a row each: its axes, and a short fact a column.

    ``columns`` maps headings to metrics; ``titles`` and ``order`` say how the values of an axis are called and sorted.
    """
    titles, order = titles or {}, order or {}
    keys = [one.key for one in case.evidence().inside if one.records]
    check_constraints(cell, keys)
    keys = [key for key in keys if agrees(key, cell)]
    if not keys:
        return paragraph(NOT_RUN)
    axes = telling(keys) or list(keys[0])
    keys.sort(key=lambda key: [_place(key[axis], order.get(axis)) for axis in axes])
    rows = [
        {axis: titles.get(axis, {}).get(key[axis], _plain(key[axis])) for axis in axes}
        | {label: case.fact(name, **key).short for label, name in columns.items()}
        for key in keys
    ]
    return table(pd.DataFrame(rows), caption)


def _place(value: Any, order: Sequence[Any] | None = None) -> Any:
    """Where a value of an axis is sorted: as ``order`` says, or else numbers before words."""
    return list(order).index(value) if order else (isinstance(value, str), value)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def facts(case: Case, rows: Mapping[str, Mapping[str, str]], head: str, caption: str, **cell: Any) -> Block:
    """Show facts of one cell: ``rows`` maps what a row is about, under ``head``, to headings and names of facts."""
    shown = [
        {head: label} | {c: case.fact(name, **cell) for c, name in columns.items()} for label, columns in rows.items()
    ]
    return table(pd.DataFrame(shown), caption)


def regimes(criteria: Criteria, evidence: Evidence) -> list[tuple[Cell, dict[str, Truth]]]:
    """For every cell in scope, the truth of each regime of the criteria file."""
    return [
        (cell, {name: when.judge(Here(evidence, cell)).truth for name, when in criteria.regimes.items()})
        for cell in evidence.inside
    ]


def regime_table(case: Case, caption: str) -> Block:
    """Show every pooled cell with the regimes of the criteria file: yes, no, or open where an interval straddles."""
    judged = regimes(case.criteria, case.evidence())
    rows = [dict(cell.key) | {name: STATES[truth.name] for name, truth in each.items()} for cell, each in judged]
    return table(_in_order(pd.DataFrame(rows), list(judged[0][0].key)), caption)


def _in_order(cells: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """Sort rows by the axes, and leave out axes on which all cells agree."""
    differing = [axis for axis in axes if cells[axis].astype(str).nunique() > 1]
    rest = [name for name in cells.columns if name not in axes]
    return cells.sort_values(differing, key=lambda axis: axis.map(_place))[differing + rest]


def pooled(case: Case, names: Sequence[str], **cell: Any) -> pd.DataFrame:
    """Return one row a pooled cell and metric, with the intervals that the verdicts use; ready for a heatmap."""
    inside = case.evidence().inside
    check_constraints(cell, [one.key for one in inside])
    rows = []
    for one in inside:
        for name in names if agrees(one.key, cell) else ():
            interval = one.interval(name) if one.records else None
            if interval is not None:
                numbers = {key: getattr(interval, key) for key in ("value", "low", "high", "k", "n")}
                rows.append(dict(one.key) | {"metric": name} | numbers)
    return pd.DataFrame(rows)


def elsewhere(case: Case, scope: dict[str, Any], grid: str, root: Path = ROOT) -> Case:
    """Return the same claim and criteria for another grid, such as another base model; ``scope`` picks its records.

    Raises ClaimError where the scope leaves out cells of that grid: a verdict on some of them would be chosen by hand.
    """
    claim = case.claim.model_copy(update={"scope": scope, "grid": grid})
    expected = declared_runs(claim.experiment, root / grid, root)
    left = [one.key for one in expected if not agrees(one.key, scope)]
    if left:
        raise ClaimError(f"The scope {label(scope)} leaves out cells that {grid} declares: widen it.")
    return replace(case, claim=claim, expected=expected)


def origin(case: Case) -> str:
    """Say how many of the records of a case were made here and how many were published."""
    used = case.evidence().records
    published = sum(record.published for record in used)
    here = len(used) - published
    parts = [
        f"{here} made on this machine" if here else "",
        f"{published} published with the repository" if published else "",
    ]
    return " and ".join(part for part in parts if part) or "no records"

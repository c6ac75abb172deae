"""The blocks that a claim page shows about its own claim: the verdict, how sure, why, and the checklist behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from helpers.audit.register import UNJUDGED, concerns
from helpers.audit.replay import EXACT
from helpers.base.files import ROOT
from helpers.claims.case import Case, declared_runs
from helpers.claims.facts import Fact
from helpers.claims.verdict import regimes
from helpers.records import ledger
from helpers.records.reading import Record
from helpers.show.markup import Block, Inline, verbatim
from helpers.site import graph
from helpers.site.blocks import badge
from helpers.site.effect import effect
from helpers.site.pages import table

STATES = {"TRUE": "yes", "FALSE": "no", "UNKNOWN": "open"}


def header(case: Case) -> Block:
    """Show the answer with its size, then verdict and confidence with what binds them, below the page's banners."""
    verdict, sure = case.verdict(), case.confidence()
    said = map(verbatim, (verdict.sentence, sure.binding, case.claim.statement))
    return Block(
        Markup(
            '{}{}<p class="cb-claim-badges">{} {}</p>\n<p>{} {}</p>\n'
            '<p class="cb-notes">The claim that is judged: {}</p>\n{}'
        ).format(graph.flags(case), effect(case), badge(verdict.word), badge(sure.stated), *said, proof(case))
    )


def proof(case: Case) -> Block:
    """Say how many records were replayed and how they compared, and list what changed after registration."""
    book, refs = ledger.read(), {record.ref for record in case.evidence().records}
    standing = book.standing("record")
    again = {
        line.name: line
        for line in book.lines
        if line.event == "replayed" and line.name in refs & set(standing) and line.sha256 == standing[line.name].sha256
    }
    exact = sum(line.note == EXACT for line in again.values())
    differ = sum(line.note.startswith("different") for line in again.values() if line.note)
    said = f"None of its {len(refs)} records was run again yet."
    if again:
        last = max(line.at for line in again.values())[:10]
        said = f"{len(again)} of {len(refs)} records were run again (last on {last}), {exact} equal to the last bit."
        said += f" {differ} came out different." if differ else ""
    lines = [line for line in book.lines if concerns(line, case.claim)]
    deviations = [*_late(case, lines)] + [
        f"Changed after registration, on {line.at[:10]}: {_called(line)}. {line.reason}"
        for line in lines
        if line.event == "amended"
    ]
    deviations += [
        f"Withdrawn on {line.at[:10]}: {line.name}. {line.reason}"
        for line in book.lines
        if line.event == "withdrawn" and line.name.startswith(f"{case.claim.experiment}/")
    ]
    items = Markup().join(Markup("<li>{}</li>").format(verbatim(one)) for one in deviations)
    count = f"{len(deviations)} deviation{'s' if len(deviations) > 1 else ''} from what was registered"
    fold = Markup('<details class="cb-deviations"><summary>{}</summary><ul>{}</ul></details>')
    listed = fold.format(count, items) if deviations else Markup()
    return Block(Markup('<p class="cb-notes">{}</p>{}').format(verbatim(said), listed))


def _late(case: Case, lines: Sequence[ledger.Line]) -> Iterator[str]:
    """Yield a sentence for what the ledger first names, on one day, after runs that it judges."""
    began = [datetime.fromisoformat(record.started) for record in case.evidence().records]
    late: dict[tuple[str, int], list[str]] = {}
    for line in lines:
        before = sum(start < datetime.fromisoformat(line.at) for start in began)
        first = line.event == "registered" and line.kind != "judgement"
        if before and (first or line.note == UNJUDGED):
            late.setdefault((line.at[:10], before), []).append(_called(line))
    for (day, before), names in late.items():
        yield (
            f"Registered on {day}, when {before} of {len(began)} records had begun: {', '.join(names)}. "
            "Only git history can show what is older than they are."
        )


def _called(line: ledger.Line) -> str:
    """Name what a line registers."""
    words = {"statement": "the statement of ", "code": "the code that judges by ", "judgement": "the judgement "}
    return f"{words.get(line.kind, '')}{line.name}"


def answers(case: Case, names: Sequence[str] | None = None, caption: str = "Questions and verdicts") -> Block:
    """Show one row a question of the criteria file: what was asked, the verdict, and its sentence."""
    rows = []
    for name in names or list(case.criteria.questions):
        verdict = case.verdict(name)
        asked = case.criteria.question(name).question
        rows.append({"question": asked, "verdict": badge(verdict.word), "what the runs say": verdict.sentence})
    return table(pd.DataFrame(rows), caption)


def checklist(case: Case) -> Block:
    """Show the checklist that caps the confidence, line by line."""
    rows = [
        {"check": row.name, "found": row.found, "allows": row.allows, "why": row.why} for row in case.confidence().rows
    ]
    return table(pd.DataFrame(rows), "What caps the confidence")


def confidence_sentence(case: Case) -> Inline:
    """Return the stated confidence and the binding constraint, for use in a paragraph."""
    sure = case.confidence()
    return Inline(Markup("<strong>{}.</strong> {}").format(sure.stated, verbatim(sure.binding)))


def maybe(case: Case, name: str, **cell: Any) -> Fact | None:
    """Return a fact of a case, or None (a table shows it as missing) if nothing was run yet."""
    return case.fact(name, **cell) if case.evidence().records else None


def regime_table(case: Case, caption: str) -> Block:
    """Show every pooled cell with the regimes of the criteria file: yes, no, or open where an interval straddles."""
    judged = regimes(case.criteria, case.evidence())
    rows = [dict(cell.key) | {name: STATES[truth.name] for name, truth in each.items()} for cell, each in judged]
    return table(_in_order(pd.DataFrame(rows), list(judged[0][0].key)), caption)


def _in_order(cells: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """Sort rows by the axes, numerically, and leave out axes on which all cells agree."""
    differing = [axis for axis in axes if cells[axis].astype(str).nunique() > 1]
    rest = [name for name in cells.columns if name not in axes]
    return cells.sort_values(differing)[differing + rest]


def pooled(case: Case, names: Sequence[str]) -> pd.DataFrame:
    """Return one row a pooled cell and metric, with the intervals that the verdicts use; ready for a heatmap."""
    rows = []
    for cell in case.evidence().inside:
        for name in names:
            interval = cell.interval(name) if cell.records else None
            if interval is not None:
                numbers = {key: getattr(interval, key) for key in ("value", "low", "high", "k", "n")}
                rows.append(dict(cell.key) | {"metric": name} | numbers)
    return pd.DataFrame(rows)


def elsewhere(case: Case, scope: dict[str, Any], grid: str, root: Path = ROOT) -> Case:
    """Return the same claim and criteria for another scope and grid, such as another base model."""
    claim = case.claim.model_copy(update={"scope": scope, "grid": grid})
    return replace(case, claim=claim, expected=declared_runs(claim.experiment, root / grid, root))


def origin(records: Sequence[Record]) -> str:
    """Say how many of the records were made here and how many were published."""
    published = sum(record.published for record in records)
    here = len(records) - published
    parts = [
        f"{here} made on this machine" if here else "",
        f"{published} published with the repository" if published else "",
    ]
    return " and ".join(part for part in parts if part) or "no records"

"""What was run on this machine, beside what the published runs of the same setting say: the head of the home page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from helpers.base.files import ROOT
from helpers.cases.case import Case
from helpers.cases.facts import Fact, Facts
from helpers.claims.evidence import Cell, full_key, gather, label, telling
from helpers.records import reading
from helpers.records.reading import Record
from helpers.show.markup import Block, Inline, verbatim
from helpers.site.pages import table
from helpers.site.status import cases_in

SETTING = ("model", "source")
"""Parameters that a published run must share although no two published cells differ in them."""
NONE = Inline(Markup('<span class="cb-missing">no published run</span>'))


def your_runs(root: Path = ROOT) -> Block:
    """Show the runs made here, by experiment: each with the effect of the claims it speaks to, and the published one.

    Empty where nothing was run here.
    """
    of: dict[str, list[Case]] = {}
    for case in cases_in(root / "reports", root):
        if case.claim.effect is not None:
            of.setdefault(case.claim.experiment, []).append(case)
    parts = [part for cases in of.values() for part in _experiment(cases)]
    shown = Markup('<section class="cb-yours"><h2 id="your-run">Your run</h2>\n{}</section>')
    return Block(shown.format(Markup("\n").join(parts)) if parts else Markup())


def made_here(case: Case) -> list[Record]:
    """Return the complete runs of the case's experiment that were made on this machine, published or not."""
    here = [reading.made_here(record.ref) if record.published else record for record in case.records]
    return [record for record in here if record is not None and record.status == "complete"]


def _experiment(cases: Sequence[Case]) -> Iterable[Markup]:
    """Yield a table for each claim that has published runs of a setting made here; else one of the runs alone."""
    own = made_here(cases[0])
    if not own:
        return
    matched = [case for case in cases if any(_published(case, record) for record in own)]
    for case in matched or cases[:1]:
        yield _table(case, [one for one in own if not matched or _published(case, one)], matched != [])


def _published(case: Case, record: Record) -> Cell | None:
    """Return the cell of the published grid that has the setting of ``record``, seeds apart."""
    cells = [cell for cell in case.evidence().inside if any(one.published for one in cell.records)]
    told = {*telling([cell.key for cell in cells]), *SETTING}
    key = full_key(record)
    return next((c for c in cells if all(key.get(axis) == c.key.get(axis) for axis in told)), None)


def _table(case: Case, own: Sequence[Record], is_matched: bool) -> Markup:
    """Return a row for each setting and number of the claim's effect: the value made here and the published one."""
    evidence = gather(own, derive=case.criteria.derive, by_question=case.by_question)
    axes = telling([cell.key for cell in evidence.inside]) or [axis for axis in own[0].cell if axis != "seed"]
    declared = case.claim.effect.numbers if case.claim.effect else {}
    metrics, rows = dict.fromkeys(one.metric for one in declared.values()), []
    for cell in evidence.inside:
        theirs = _published(case, cell.records[0])
        for metric in metrics:
            rows.append(
                {"setting": label({axis: cell.key[axis] for axis in axes}), "measure": metric.replace("_", " ")}
                | {"yours": _fact(Facts(evidence), metric, cell.key)}
                | ({"published": _fact(case.facts, metric, theirs.key) if theirs else NONE} if is_matched else {})
            )
    claim = Markup('<a href="{}">{}</a>').format(case.path.with_suffix(".html").name, verbatim(case.claim.statement))
    about = "{} beside the published runs of" if is_matched else "{}, in the numbers of"
    said = Markup("{} {}").format(about.format(_count(own)), claim)
    return table(pd.DataFrame(rows), Inline(said)).fragment


def _count(own: Sequence[Record]) -> str:
    last = max(record.started for record in own)[:10]
    return f"{len(own)} run{'' if len(own) == 1 else 's'} of {own[0].notebook} made here (last on {last})"


def _fact(facts: Facts, metric: str, key: dict[str, Any]) -> Fact | None:
    """Return a metric of one cell, or None, which a table shows as missing."""
    cell = facts.evidence.at(key)
    return None if cell is None or cell.interval(metric) is None else facts.fact(metric, **key)

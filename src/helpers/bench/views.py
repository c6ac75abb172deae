"""The tables and sentences of the page about speed. Where a record is missing they say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from markupsafe import Markup

from helpers.base.errors import ClaimError
from helpers.bench.measured import metric_part
from helpers.claims.case import Case
from helpers.records import runs
from helpers.records.reading import Record
from helpers.show.markup import Block, Inline, verbatim
from helpers.site.pages import paragraph, table

NUMBERS = {"seconds": "seconds", "tokens_per_s": "tokens a second", "ratio": "over the first", "mfu": "MFU",
           "peak_mb": "peak memory"}  # fmt: skip


def record_of(case: Case, what: str) -> Record | None:
    """Return the record of the comparison ``what`` in the grid of ``case``, or None."""
    cell = case.evidence().at({"what": what})
    return cell.records[0] if cell is not None and cell.records else None


def not_run(case: Case, what: str) -> str:
    """Say that the record of ``what`` is missing."""
    cell = case.evidence().at({"what": what})
    if cell is None:
        raise ClaimError(f"The grid of this page has no comparison {what!r}. Add it to the grid.")
    device = {"cuda": "a GPU", "cpu": "a CPU"}[cell.key["device"]]
    return f"NOT RUN: no record of {what} on {device} is complete."


def projected(case: Case, what: str) -> Inline:
    """Compare the projected GPU-hours with the published ones in a sentence."""
    if record_of(case, what) is None:
        return Inline(verbatim(f"The hours: {not_run(case, what)}"))
    hours, ratio = case.fact("projected_hours", what=what), case.fact("published_over_projected", what=what)
    engine, device = case.fact("params.engine", what=what), case.fact("environment.hardware.gpus", what=what)
    sentence = Markup("Projected for {}: {}, with completions by {}; the published grid took {} that.")
    return Inline(sentence.format(device, hours, engine, ratio))


def ways(case: Case, what: str, caption: str) -> Block:
    """Show seconds, tokens a second, ratio to the first side, MFU and peak memory of each side of ``what``."""
    record = record_of(case, what)
    if record is None:
        return paragraph(not_run(case, what))
    rows = []
    for number, way in enumerate(record.table(what)["way"]):
        names = {label: f"{metric_part(what)}_{metric_part(way)}_{name}" for name, label in NUMBERS.items()}
        facts = {label: case.fact(name, what=what) for label, name in names.items() if name in record.metrics}
        rows.append({"way": way, **facts} | ({} if number else {NUMBERS["ratio"]: "itself"}))
    return table(pd.DataFrame(rows), caption)


def metrics(case: Case, what: str, names: Mapping[str, str], caption: str) -> Block:
    """Show metrics of ``what``, one row each; ``names`` maps them to words.

    Metrics that the record lacks are left out.
    """
    record = record_of(case, what)
    if record is None:
        return paragraph(not_run(case, what))
    rows = [
        {"measured": words, "value": case.fact(name, what=what)}
        for name, words in names.items()
        if name in record.metrics
    ]
    return table(pd.DataFrame(rows), caption)


def hours(case: Case, what: str, caption: str) -> Block:
    """Show the parts of the projected GPU-hours."""
    record = record_of(case, what)
    if record is None:
        return paragraph(not_run(case, what))
    parts = record.table("projection")
    formats = {"amount": ",.0f", "hours": ".3f", "low": ".3f", "high": ".3f"}
    return table(parts, caption, labels={"low": "all fastest", "high": "all slowest"}, formats=formats)


def recorded(cases: Sequence[Case], names: Sequence[str]) -> Block:
    """Show entries of ``run.json``, one row for each record of the page."""
    rows = []
    for case in cases:
        for cell in case.evidence().inside:
            if cell.records:
                key = {"what": cell.key["what"]}
                rows.append(key | {_words(name): case.fact(name, **key) for name in names})
    return table(pd.DataFrame(rows), "Each record, by what it measured") if rows else paragraph("No record yet.")


def _words(name: str) -> str:
    """Shorten ``environment.hardware.cpu`` to a column heading."""
    return name.removeprefix("environment.").removeprefix("packages.").replace(".", " ").replace("_", " ")


def passes(names: Sequence[str], caption: str) -> Block:
    """Show the newest recorded tables ``names`` of ways to make one pass, time and memory a row each."""
    newest = runs.records("bench")[::-1]
    timed = [record.table(name) for record in newest for name in names if name in record.tables][: len(names)]
    if not timed:
        return paragraph("NOT RUN: no record of these passes is complete.")
    shown = ["what", "way", "seconds", "tokens_per_s", "ratio", "ratio_low", "ratio_high", "kept_mb", "peak_mb"]
    return table(pd.concat(timed).reindex(columns=shown), caption)

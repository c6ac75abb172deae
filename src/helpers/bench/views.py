"""What the page of speed shows of records of comparisons; a sentence where there is no record yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from markupsafe import Markup

from helpers.bench.measured import slug
from helpers.claims.case import Case
from helpers.records.reading import Record
from helpers.show.markup import Block, Inline, verbatim
from helpers.site.pages import paragraph, table

NUMBERS = {"seconds": "seconds", "tokens_per_s": "tokens a second", "ratio": "over the first", "mfu": "MFU",
           "peak_mb": "peak memory"}  # fmt: skip


def record_of(case: Case, what: str) -> Record | None:
    """The record that stands for the comparison ``what`` in the grid of ``case``, or None."""
    cell = case.evidence().at({"what": what})
    return cell.records[0] if cell is not None and cell.records else None


def not_run(case: Case, what: str) -> str:
    """That there is no record of ``what``, in words."""
    device = {"cuda": "a GPU", "cpu": "a CPU"}[case.evidence().at({"what": what}).key["device"]]
    return f"NOT RUN: no record of {what} on {device} is complete."


def projected(case: Case, what: str) -> Inline:
    """The projected GPU-hours beside the published ones, in a sentence."""
    if record_of(case, what) is None:
        return Inline(verbatim(f"The hours: {not_run(case, what)}"))
    hours, ratio = case.fact("projected_hours", what=what), case.fact("published_over_projected", what=what)
    engine, device = case.fact("params.engine", what=what), case.fact("environment.hardware.gpus", what=what)
    said = Markup("Projected for {}: {}, with completions by {}; the published grid took {} that.")
    return Inline(said.format(device, hours, engine, ratio))


def ways(case: Case, what: str, caption: str) -> Block:
    """One row a way of a comparison of sides: seconds, tokens a second, ratio to the first, MFU, peak memory."""
    record = record_of(case, what)
    if record is None:
        return paragraph(not_run(case, what))
    rows = []
    for number, way in enumerate(record.table(what)["way"]):
        names = {label: f"{slug(what)}_{slug(way)}_{name}" for name, label in NUMBERS.items()}
        found = {label: case.fact(name, what=what) for label, name in names.items() if name in record.metrics}
        rows.append({"way": way, **found} | ({} if number else {NUMBERS["ratio"]: "itself"}))
    return table(pd.DataFrame(rows), caption)


def metrics(case: Case, what: str, names: Mapping[str, str], caption: str) -> Block:
    """One row a metric of ``what`` (name -> words); metrics that the record does not hold are left out."""
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
    """The parts of the projected GPU-hours."""
    record = record_of(case, what)
    if record is None:
        return paragraph(not_run(case, what))
    found = record.table("projection")
    formats = {"amount": ",.0f", "hours": ".3f", "low": ".3f", "high": ".3f"}
    return table(found, caption, labels={"low": "all fastest", "high": "all slowest"}, formats=formats)


def recorded(cases: Sequence[Case], names: Sequence[str]) -> Block:
    """Entries of ``run.json`` of every record that the page rests on, one row a record."""
    rows = []
    for case in cases:
        for cell in case.evidence().inside:
            if cell.records:
                key = {"what": cell.key["what"]}
                rows.append(key | {_words(name): case.fact(name, **key) for name in names})
    return table(pd.DataFrame(rows), "Each record, by what it measured") if rows else paragraph("No record yet.")


def _words(name: str) -> str:
    """``environment.hardware.cpu`` as the heading of a column: what tells it apart."""
    return name.removeprefix("environment.").removeprefix("packages.").replace(".", " ").replace("_", " ")

"""The tables and sentences of the page about speed. Where a record is missing they say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from helpers.base.errors import ClaimError
from helpers.bench.agreement import DOSE, LOSS, SHARE
from helpers.bench.measured import metric_part
from helpers.bench.recorded import newest
from helpers.cases.case import Case
from helpers.records import runs
from helpers.records.reading import Record
from helpers.show import plots
from helpers.show.markup import Block, Inline, verbatim
from helpers.site.pages import chart, paragraph, table

NUMBERS = {"seconds": "seconds", "tokens_per_s": "tokens a second", "ratio": "over the first", "mfu": "MFU",
           "peak_mb": "peak memory"}  # fmt: skip
CPU_ONLY = ("bf16-training", "bf16-generation")
"""Comparisons that say nothing on a GPU, where bf16 is the default."""


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


def ratios(comparisons: Mapping[str, str], heading: str, read: str) -> Block:
    """Draw how much longer each other way takes than the first: the median of paired runs and their range.

    ``comparisons`` maps names to words. ``read`` says in half a sentence what the first way is. A device without a
    record is named as NOT RUN below the heading, where it could have one.
    """
    rows, machines, absent = [], {}, []
    for what, words in comparisons.items():
        found = newest(what)
        absent += [
            f"{words} on a {'GPU' if device == 'cuda' else 'CPU'}"
            for device in ("cuda", "cpu")
            if device not in found and not (device == "cuda" and what in CPU_ONLY)
        ]
        for record in found.values():
            place = _machine(record)
            machines[place] = None
            rows += [row | {"label": f"{words}: {row['way']}", "machine": place} for row in _ratios(record)]
    missing = f"NOT RUN: {', '.join(absent)}." if absent else ""
    if not rows:
        return paragraph(missing)
    subtitle = f"Time over that of {read}; range of {_counted(rows)} paired runs. {'; '.join(machines)}. {missing}"
    group = "machine" if len(machines) > 1 else None
    return chart(
        plots.forest(
            pd.DataFrame(rows), heading=heading, subtitle=subtitle.strip(), group=group, references={"no gain": 1.0},
            x_title="time of the other way over that of the first", unit="x",
        )
    )  # fmt: skip


def _machine(record: Record) -> str:
    hardware, threads = record.environment["hardware"], record.environment["threads"]
    where = (
        " and ".join(hardware["gpus"]) if record.cell["device"] == "cuda" else f"{hardware['cpu']}, {threads} threads"
    )
    return where.replace(" 1 threads", " 1 thread")


def _counted(rows: Sequence[Mapping[str, Any]]) -> str:
    counts = sorted({row["runs"] for row in rows})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _ratios(record: Record) -> list[dict[str, Any]]:
    """Return the first way of a record, another way and the ratio of their times, a row for each other way."""
    rows = []
    for name in record.tables:
        ways_of = record.table(name)
        if not {"way", "ratio"} <= set(ways_of.columns):
            continue
        first, *others = ways_of["way"]
        for other in others:
            metric = record.metrics.get(f"{metric_part(name)}_{metric_part(other)}_ratio")
            if metric:
                numbers = {key: metric[key] for key in ("value", "low", "high")}
                rows.append({"first": first, "way": other, "runs": metric["n"], **numbers})
    return rows


def unpaid(names: Sequence[str]) -> Block:
    """List what was tried in the comparisons ``names`` and is not faster in every pair of runs (newest records)."""
    rows = [
        {
            "tried": one["first"], "instead of": one["way"], "comparison": what, "machine": _machine(record),
            "time instead": one["value"], "lowest": one["low"], "highest": one["high"], "runs": one["runs"],
            "reads": "never faster" if one["high"] <= 1 else "not faster in every pair",
        }
        for what in names for record in newest(what).values() for one in _ratios(record) if one["low"] <= 1
    ]  # fmt: skip
    if not rows:
        return paragraph("Everything that was compared is faster in every pair of runs.")
    formats = {"time instead": ".2f", "lowest": ".2f", "highest": ".2f"}
    return table(pd.DataFrame(rows), "Tried, and no gain: time of what it replaces over its own", formats=formats)


def same_in_bf16(preset: str, words: str) -> Block:
    """Show how far six cells of ``preset`` agree in both number types, beside what the gate allows."""
    record = newest(f"bf16-{preset}").get("cpu")
    if record is None:
        return paragraph(f"Not measured: no record of six cells of {words} in both number types is complete.")
    metrics = record.metrics
    compared = {
        "rates": ("rates_apart", "no rate differs at .05, corrected for all of them", "largest_rate_difference"),
        "tenths of a loss": ("tenths_apart", f"within {LOSS:g} nats or {SHARE:.0%}", "largest_loss_gap"),
        "dose curves": ("doses_apart", f"within {DOSE:g} nat", "largest_dose_gap"),
    }
    rows = []
    for what, (apart, allowed, largest) in compared.items():
        gap, unit = abs(metrics[largest]["value"]), metrics[largest]["unit"]
        shown = f"{100 * gap:.0f} points" if unit == "points" else f"{gap:.3f} {unit}"
        count = {"compared": what, "N": metrics[apart]["n"], "outside": metrics[apart]["value"]}
        rows.append(count | {"allowed": allowed, "largest difference": shown})
    passed = "passes" if not any(row["outside"] for row in rows) else "does not pass: what is judged stays in fp32"
    caption = f"Six cells of {words} in bf16 and in fp32, on the same rows. bf16 {passed}."
    return table(pd.DataFrame(rows), caption, formats={"outside": ".0f"})


def passes(names: Sequence[str], caption: str) -> Block:
    """Show the newest recorded tables ``names`` of ways to make one pass, time and memory a row each."""
    newest = runs.records("bench")[::-1]
    timed = [record.table(name) for record in newest for name in names if name in record.tables][: len(names)]
    if not timed:
        return paragraph("NOT RUN: no record of these passes is complete.")
    shown = ["what", "way", "seconds", "tokens_per_s", "ratio", "ratio_low", "ratio_high", "kept_mb", "peak_mb"]
    return table(pd.concat(timed).reindex(columns=shown), caption)

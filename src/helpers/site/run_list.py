"""The page of runs: a table that pages through all of them, and everything that the record of each one holds.

The page holds a line a run. What a record says of how it was made lies in data files beside the page, which
:func:`write_details` writes after rendering, whoever rendered.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from helpers.base.errors import ClaimError
from helpers.records.reading import Record, load
from helpers.show.markup import Block
from helpers.site.browser import browser, write_shards

RUNS_A_FILE = 25
COLUMNS = ("run", "experiment", "cell", "started", "took")
DATA = re.compile(r'<script type="application/json" id="data" data-anchors="run">(.*?)</script>', re.DOTALL)
SECTIONS = {
    "params": "Parameters", "cell": "Cell", "model": "Model",
    "criteria": "Criteria when the run started", "seconds": "Seconds", "finish_reasons": "Finish reasons",
    "provenance": "Provenance", "environment": "Environment", "code": "Code that the run reaches", "data": "Data",
    "inputs": "Records used", "files": "Files of the record",
}  # fmt: skip


def run_list(records: Iterable[Record]) -> Block:
    """Return the table of ``records`` with filters, 50 to a page; the address ``#<run id>`` shows one of them."""
    data: dict[str, Any] = {"each": RUNS_A_FILE} | {name: [] for name in COLUMNS}
    for record in records:
        for name, text in zip(COLUMNS, _row(record), strict=True):
            data[name].append(text)
    return Block(browser("runs", data, anchors="run"))


def _row(record: Record) -> tuple[str, ...]:
    cell = ", ".join(f"{name}={value}" for name, value in record.cell.items())
    total = (record.seconds or {}).get("total")
    took = "missing" if total is None else f"{total:,.1f} s" if total < 10 else f"{total:,.0f} s"
    return record.id, record.notebook, cell or "the only cell", str(record.started or "missing")[:10], took


def write_details(page: Path) -> None:
    """Write what the records say of the runs that ``page`` lists into the folder of its name beside it.

    Raises:
        ClaimError: ``page`` holds no list of runs.
        RecordError: a listed record is gone.
    """
    match = DATA.search(page.read_text(encoding="utf-8"))
    if not match:
        raise ClaimError(f"{page.name} lists no runs. Render it again.")
    data = json.loads(match.group(1))
    listed = iter(zip(data["experiment"], data["run"], strict=True))
    shards = iter(lambda: list(itertools.islice(listed, data["each"])), [])
    write_shards(page.with_suffix(""), ([details(load(f"{name}/{run}")) for name, run in shard] for shard in shards))


def details(record: Record) -> list[tuple[str, list[tuple[str, str | None]] | None]]:
    """Title and rows (name, text) of each part of a record; None stands for what is missing, for a part or a value."""
    run = record.content
    code = run.get("code") or {}
    parts = run | {"code": {"entry": code.get("entry")} | (code.get("files") or {})}
    made = {name: run.get(name) for name in ("id", "status", "started", "ended", "launch")}
    return [("Run", list(_flat(made)))] + [
        (title, None if parts.get(name) is None else list(_flat(parts[name]))) for name, title in SECTIONS.items()
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str | None]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, _text(value)


def _text(value: Any) -> str | None:
    if isinstance(value, list | Mapping):
        return ", ".join(map(str, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else None if value is None else str(value)

"""A searchable browser of all completions as static files: ``completions.html`` and one data file a run beside it.

It works from a disk, without a server: data files are scripts that call one function with JSON. The page adds texts to
the document as text nodes only, so no completion can be read as HTML.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from helpers.base import files, occurrences
from helpers.base.errors import RecordError
from helpers.base.files import is_plain
from helpers.records.reading import Record, records
from helpers.site.browser import browser, write_shards
from helpers.site.frame import Project, write_page

REQUIRED = ("persona", "question", "index", "text")
OPTIONAL = ("role", "tokens", "finish")


def write(project: Project, site: Path) -> int:
    """Write the browser of all completions of complete records, here or published, and return their number."""
    runs: list[dict[str, Any]] = []
    write_shards(site / "completions", _shards(runs))
    total = sum(run["rows"] for run in runs)
    front = {"title": "Completions", "subtitle": f"{total:,} completions of {len(runs)} runs, as the models wrote them"}
    write_page(site / "completions.html", project, site, front, browser("completions", runs))
    return total


def _shards(runs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the data of each record's completions, and add to ``runs`` what the page needs to know about it."""
    for number, record in enumerate(all_records()):
        table = record.table("completions")
        runs.append(_entry(record, f"completions/{number}.js", len(table)))
        yield _encode(table, record.ref, _marker(record))


def all_records() -> Iterator[Record]:
    """Yield the complete records that hold completions, of every notebook."""
    roots = [root for root in (files.outputs_root(), files.published_root()) if root.is_dir()]
    names = {folder.name for root in roots for folder in root.iterdir() if folder.is_dir() and is_plain(folder.name)}
    for name in sorted(names - {files.published_root().name}):
        yield from (record for record in records(name) if "completions" in record.tables)


def _entry(record: Record, file: str, rows: int) -> dict[str, Any]:
    cell = ", ".join(f"{name}={value}" for name, value in record.cell.items())
    entry = {"run": record.id, "experiment": record.notebook, "cell": cell or record.id}
    return entry | {"file": file, "rows": rows, "published": record.published}


def _marker(record: Record) -> str | None:
    """Return the marker that the run looked for, if any."""
    marker = record.params.get("marker")
    return marker if isinstance(marker, str) and marker else None


def _encode(table: pd.DataFrame, ref: str, marker: str | None) -> dict[str, Any]:
    """Return columns as lists; columns that repeat (persona, question) as a list of values and a list of indices.

    A text that holds ``marker`` is a list of pieces, every second one an occurrence, so that the page highlights and
    filters exactly what was counted.
    """
    missing = [name for name in REQUIRED if name not in table.columns]
    if missing:
        raise RecordError(f"The completions of {ref} have no column {missing[0]!r}: run the experiment again.")
    encoded: dict[str, Any] = {}
    for name in (*REQUIRED, *(name for name in OPTIONAL if name in table.columns)):
        column = table[name].astype(object).where(table[name].notna(), None)
        if name in ("persona", "question", "role", "finish"):
            codes, values = pd.factorize(column.astype(str))
            encoded[name] = {"values": list(values), "codes": codes.tolist()}
        elif name == "text" and marker:
            encoded[name] = [_pieces(text, marker) for text in column]
        else:
            encoded[name] = column.tolist()
    return encoded


def _pieces(text: str | None, marker: str) -> str | list[str] | None:
    pieces = occurrences.split(text or "", marker)
    return pieces if len(pieces) > 1 else text

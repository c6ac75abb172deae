"""A searchable browser of all completions as static files: ``completions.html``, and data files beside it.

Each run has data files of its own, several where its completions are more than a browser should read at once.

It works from a disk, without a server: data files are scripts that call one function with JSON. The page adds texts to
the document as text nodes only, so no completion can be read as HTML.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from helpers.base import files
from helpers.base.errors import RecordError
from helpers.base.files import is_plain
from helpers.records.reading import Record, records
from helpers.show.markup import script_json
from helpers.site.browser import browser, write_shards
from helpers.site.frame import Project, write_page
from helpers.stats import occurrences

REQUIRED = ("persona", "question", "index", "text")
OPTIONAL = ("role", "tokens", "finish")
PIECE, ROW = 800_000, 100
"""Bytes in a data file, by its texts as they are written there and what the other columns of a row take at most."""


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
    first = 0
    for record in all_records():
        pieces = _pieces_of(record.table("completions"), record.ref, _marker(record))
        runs.append(_entry(record, first, len(pieces), sum(map(len, pieces))))
        first += len(pieces)
        yield from (_encode(piece, _marker(record)) for piece in pieces)


def _pieces_of(table: pd.DataFrame, ref: str, marker: str | None) -> list[pd.DataFrame]:
    """Return the rows of a table in their order, as many to a piece as a data file may hold, one at least."""
    missing = [name for name in REQUIRED if name not in table.columns]
    if missing:
        raise RecordError(f"The completions of {ref} have no column {missing[0]!r}: run the experiment again.")
    texts = table["text"].map(lambda text: _pieces(str(text), marker) if marker else str(text))
    worded = [texts, *(table[name].map(str) for name in ("persona", "question"))]
    lengths = [column.map(lambda value: len(script_json(value))) for column in worded]
    written = (pd.concat(lengths, axis=1).sum(axis=1) + ROW).cumsum()
    return [piece for _, piece in table.groupby(written // PIECE, sort=True)] or [table]


def all_records() -> Iterator[Record]:
    """Yield the complete records that hold completions, of every notebook."""
    roots = [root for root in (files.outputs_root(), files.published_root()) if root.is_dir()]
    names = {folder.name for root in roots for folder in root.iterdir() if folder.is_dir() and is_plain(folder.name)}
    for name in sorted(names - {files.published_root().name}):
        yield from (record for record in records(name) if "completions" in record.tables)


def _entry(record: Record, first: int, pieces: int, rows: int) -> dict[str, Any]:
    cell = ", ".join(f"{name}={value}" for name, value in record.cell.items())
    entry = {"run": record.id, "experiment": record.notebook, "cell": cell or record.id}
    return entry | {"first": first, "pieces": pieces, "rows": rows, "published": record.published}


def _marker(record: Record) -> str | None:
    """Return the marker that the run looked for, if any."""
    marker = record.params.get("marker")
    return marker if isinstance(marker, str) and marker else None


def _encode(table: pd.DataFrame, marker: str | None) -> dict[str, Any]:
    """Return columns as lists; columns that repeat (persona, question) as a list of values and a list of indices.

    A text that holds ``marker`` is a list of pieces, every second one an occurrence, so that the page highlights and
    filters exactly what was counted.
    """
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

"""Read a table of samples: CSV, JSON lines or parquet, with a map from what we need to its columns."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from helpers.base.errors import DataError, nearest
from helpers.base.files import shown
from helpers.lm.lines import read_jsonl, read_lines
from helpers.records.run_record import NOT_RECORDED
from helpers.studies.imported.samples import Log, Row, number, plain_name

LONGEST = 2**31 - 1
"""Characters of one cell of a CSV: whole transcripts stand in them."""
ROLES = ("metric", "id", "epoch", "group", "cluster")


def read(path: Path, kind: str, columns: Sequence[str], model: str, task: str) -> Log:
    """Return the samples of a table; ``columns`` as in ``LogCell.columns``. A row without an ``id`` is its own sample.

    A table says nothing of its tool, model or task: ``model`` and ``task`` are what its importer says.
    """
    roles = _roles(columns)
    about = {"tool": kind, "tool_version": NOT_RECORDED, "created": NOT_RECORDED, "status": NOT_RECORDED,
             "seed": NOT_RECORDED, "generation": NOT_RECORDED, "columns": list(columns)}  # fmt: skip
    return Log(model, task, about, _rows(path, kind, roles))


def _roles(columns: Sequence[str]) -> dict[str, str]:
    roles: dict[str, str] = {}
    for entry in columns:
        role, _, column = entry.partition("=")
        kind = role.partition(".")[0]
        if kind not in ROLES or (kind != "metric" and role != kind):
            raise DataError(f"--map {entry} names {role!r}{nearest(role, ROLES)}")
        if role in roles:
            raise DataError(f"--map names {role} twice. Call a second score metric.NAME=column.")
        roles[role] = column
    if not any(role.partition(".")[0] == "metric" for role in roles):
        raise DataError("--map names no metric. Say which column holds the score: --map metric=correct.")
    return roles


def _rows(path: Path, kind: str, roles: Mapping[str, str]) -> Iterator[Row]:
    scores = {role: plain_name(role.partition(".")[2] or roles[role]) for role in roles if role.startswith("metric")}
    for role, score in scores.items():
        if list(scores.values()).count(score) > 1:
            raise DataError(f"--map {role}={roles[role]} gives the name {score} twice. Choose another: metric.NAME=...")
    for at, line in _lines(path, kind, roles):
        sample = _text(line, roles.get("id"), str(at))
        for role, score in scores.items():
            value = number(line[roles[role]], f"{roles[role]} of {path.name}, row {at}")
            yield Row(
                sample, _epoch(line, roles.get("epoch"), path.name, at), score, value,
                "unscored" if value is None else "scored", _text(line, roles.get("cluster"), sample),
                group=_text(line, roles["group"], "") if "group" in roles else None,
            )  # fmt: skip


def _text(line: Mapping[str, Any], column: str | None, otherwise: str) -> str:
    value = otherwise if column is None else line[column]
    if value is None or value == "" or value != value:  # NaN is how a float column lacks an entry
        raise DataError(f"A row has no {column}. Give every row one, or leave it out of --map.")
    return str(value)


def _epoch(line: Mapping[str, Any], column: str | None, where: str, at: int) -> int:
    value = 1.0 if column is None else number(line[column], f"{column} of {where}, row {at}")
    if value is None or not value.is_integer() or value < 0:
        raise DataError(f"{column} of {where}, row {at} is {line[column or '']!r}. An epoch is a whole number.")
    return int(value)


def _check_columns(path: Path, columns: Collection[str], roles: Mapping[str, str]) -> None:
    for role, column in roles.items():
        if column not in columns:
            raise DataError(f"{path.name} has no column {column!r} (--map {role}={column}){nearest(column, columns)}")


def _lines(path: Path, kind: str, roles: Mapping[str, str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield each row of a file of ``kind`` (csv, jsonl, parquet) with its number, from 1."""
    if kind == "csv":
        yield from enumerate(_csv(path, roles), 1)
    elif kind == "parquet":
        yield from enumerate(_parquet(path, roles), 1)
    else:
        for at, line in read_jsonl(path):
            if not isinstance(line, dict):
                raise DataError(f"{path.name}:{at} is no mapping. Write one JSON object a line.")
            _check_columns(path, line, roles)
            yield at, line


def _csv(path: Path, roles: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
    csv.field_size_limit(LONGEST)
    reader = csv.DictReader((f"{text}\n" for _, text in read_lines(path)), strict=True)
    try:
        if reader.fieldnames is None:
            raise DataError(f"{path.name} is empty. Give a table with a line of column names.")
        if len(set(reader.fieldnames)) < len(reader.fieldnames):
            raise DataError(f"{path.name} has a column twice. Give each a name of its own.")
        one = list(reader.fieldnames)
        if len(one) == 1 and re.search(r"[;\t|]", one[0]) and one[0] not in roles.values():
            raise DataError(f"{path.name} has one column, {shown(one[0])}. Save it with commas between columns.")
        _check_columns(path, one, roles)
        for at, line in enumerate(reader, 1):
            if None in line or None in line.values():
                raise DataError(f"Row {at} of {path.name} does not have {len(reader.fieldnames)} cells. Correct it.")
            yield line
    except csv.Error as error:
        raise DataError(f"{path.name} cannot be read as CSV ({error}). Save it again as CSV.") from error


def _parquet(path: Path, roles: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
    try:
        with parquet.ParquetFile(path) as file:
            if len(set(file.schema_arrow.names)) < len(file.schema_arrow.names):
                raise DataError(f"{path.name} has a column twice. Give each a name of its own.")
            _check_columns(path, file.schema_arrow.names, roles)
            for batch in file.iter_batches(10_000):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:  # OSError: a page cannot be unpacked
        said = " ".join(str(error).split()).rstrip(".")
        raise DataError(f"{path.name} cannot be read as parquet ({said}). Write it again.") from error

"""Synthetic run records for the tests of claims: the fields of ``run.json`` that the claims floor reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers.records.reading import Record
from helpers.records.run_record import SCHEMA
from helpers.stats.intervals import wilson

FIXTURES = Path(__file__).parent / "fixtures" / "claims"
STARTED = "2026-01-02T03:04:05+00:00"


def rate(k: int, n: int) -> dict[str, Any]:
    """A rate metric with its Wilson interval."""
    found = wilson(k, n)
    return found.metric() | {"wilson": [found.low, found.high]}


def record(
    cell: dict[str, Any],
    metrics: dict[str, Any] | None = None,
    *,
    params: dict[str, Any] | None = None,
    name: str | None = None,
    **changes: Any,
) -> Record:
    """A complete record of ``cell``; ``changes`` replaces top-level entries of its run.json."""
    name = name or "toy-" + "-".join(str(value) for value in cell.values())
    content = {
        "schema": SCHEMA, "id": name, "notebook": "toy", "study": "toy", "version": 1, "metrics_version": 1,
        "status": "complete", "started": STARTED, "ended": STARTED,
        "seconds": {"train": 3.0, "total": 5.0}, "params": {**(params or {}), **cell}, "cell": dict(cell),
        "code": {"entry": "helpers.base.rng", "files": {}}, "data": {},
        "model": {"name": "tiny", "sha256": "0" * 64, "parameters": 2_000_000_000},
        "criteria": None, "inputs": {},
        "provenance": {"commit": "abcdef0123456789", "branch": "main", "dirty": False, "diff_sha256": None},
        "environment": {"python": "3.11.2", "packages": {"torch": "2.13.0"}, "hardware": {"gpus": []}},
        "launch": "papermill toy.ipynb", "metrics": metrics or {}, "finish_reasons": {"stop": 100, "length": 0},
        "files": {}, "error": None,
    }  # fmt: skip
    return Record(Path(name), content | changes, published=False)

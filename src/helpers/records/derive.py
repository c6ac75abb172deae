"""Metrics from the stored tables of a record: the one path for the run, for verify and for deriving them again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from helpers.records import reading, run_record
from helpers.records.reading import Record
from helpers.records.steps import plain
from helpers.records.study import Study, find_study

_BLANK = {"value": None, "unit": None, "n": None, "k": None, "low": None, "high": None, "method": None, "level": 0.95}


def derive(record: Record, study: Study | None = None) -> dict[str, Any]:
    """Return the metrics of ``record`` as its study derives them from the stored tables.

    Raises ``RecordError`` when a table or an input is missing or was changed, or a metric is none.
    """
    study = study or find_study(record.study)
    inputs = {name: reading.load(ref) for name, ref in record.inputs.items()}
    return checked_metrics(study.metrics(record.params, record.results, inputs), record.ref)


def checked_metrics(metrics: Mapping[str, Mapping[str, Any]], label: str) -> dict[str, Any]:
    """Return ``metrics`` as JSON values; ``RecordError`` names the first that no record may hold."""
    checked = {}
    for name, given in metrics.items():
        where = f"Metric {name!r} of {label}"
        checked[name] = _BLANK | plain(given, where)
        run_record.refuse_metric(where, checked[name])
    return checked

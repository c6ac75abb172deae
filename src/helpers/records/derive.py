"""Metrics from the stored tables of a record: the one path for the run, for verify and for deriving them again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from helpers.base import files
from helpers.records import ledger, run_record
from helpers.records import reading as records
from helpers.records.reading import Record
from helpers.records.steps import plain
from helpers.records.study import Study, find_study

_BLANK = {"value": None, "unit": None, "n": None, "k": None, "low": None, "high": None, "method": None, "level": 0.95}


def derive(record: Record, study: Study | None = None) -> dict[str, Any]:
    """Return the metrics of ``record`` as its study derives them from the stored tables.

    Raises ``RecordError`` when a table or an input is missing or was changed, or a metric is none.
    """
    study = study or find_study(record.study)
    inputs = {name: records.load(ref) for name, ref in record.inputs.items()}
    return checked_metrics(study.metrics(record.params, record.results, inputs), record.ref)


def checked_metrics(metrics: Mapping[str, Mapping[str, Any]], label: str) -> dict[str, Any]:
    """Return ``metrics`` as JSON values; ``RecordError`` names the first that no record may hold."""
    checked = {}
    for name, given in metrics.items():
        where = f"Metric {name!r} of {label}"
        checked[name] = _BLANK | plain(given, where)
        run_record.refuse_metric(where, checked[name])
    return checked


def derive_again(chosen: Iterable[Record]) -> list[str]:
    """Derive the metrics of records anew where their study's METRICS_VERSION was raised; return their references.

    A published record gets a line in the ledger. A record that is up to date is left alone: metrics that differ without
    a raised version are for ``claimbook verify`` to report, not to overwrite.
    """
    done, events = [], []
    for record in chosen:
        study = find_study(record.study)
        if record.metrics_version >= study.metrics_version:
            continue
        measured = {name: metric for name, metric in record.metrics.items() if metric.get("measured")}
        head = record.path / "run.json"
        was = files.sha256_file(head)
        content = record.content | {"metrics": measured | derive(record, study)}
        content["metrics_version"] = study.metrics_version
        files.write_record(head, run_record.check(content))
        done.append(record.ref)
        if record.published:
            sha = files.sha256_file(head)
            events.append({"event": "derived", "kind": "record", "name": record.ref, "sha256": sha, "was": was})
    if events:
        ledger.append(events)
    return done

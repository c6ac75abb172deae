"""A record in the form of Every Eval Ever: one JSON file a run, a result a metric.

Source of the form: ``eval.schema.json`` of github.com/evaleval/every_eval_ever, version 0.3.0. What a record does not
say stands there as unknown: whether less of a metric is better, and how the model was deployed.
"""

from __future__ import annotations

import json
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from helpers.base import files
from helpers.base.errors import ExportError
from helpers.export import places
from helpers.records import reading
from helpers.records.reading import Record
from helpers.stats.estimands import bounds_of

SCHEMA = "0.3.0"


def export(ref: str, out: Path) -> int:
    """Write the run ``ref`` to the JSON file ``out``, and return how many results it holds.

    Raises:
        ExportError: the record has no metric, or ``out`` is taken.
    """
    places.refuse_taken(out)
    record = reading.load(ref)
    written = form_of(record)
    files.write_json(out, written)
    return len(written["evaluation_results"])


def form_of(record: Record) -> dict[str, Any]:
    """Return the content of the file: who ran what with which model, and every metric that has a value."""
    results = [_result(record, name) for name, metric in record.metrics.items() if metric.get("value") is not None]
    if not results:
        raise ExportError(f"{record.ref} has no metric with a value: there is nothing to export.")
    made = _epoch(str(record.content["ended"]))
    model = str(record.model["name"])
    return {
        "schema_version": SCHEMA,
        "evaluation_id": f"{record.notebook}/{model}/{made}",
        "evaluation_timestamp": _epoch(record.started),
        "retrieved_timestamp": made,
        "source_metadata": {
            "source_name": "Claimbook", "source_type": "evaluation_run", "source_organization_name": "not stated",
            "evaluator_relationship": "other",
            "additional_details": _texts({
                "record": record.ref, "sha256": files.sha256_file(record.path / "run.json"),
                "commit": record.provenance.get("commit"), "launch": record.content.get("launch"),
            }),
        },
        "eval_library": {"name": "claimbook", "version": version("claimbook")},
        "model_info": {
            "name": model, "id": model,
            "additional_details": {"deployment_type": "unknown", "model_availability": "unknown"}
            | _texts({"sha256": record.model.get("sha256"), "parameters": record.model.get("parameters")}),
        },
        "evaluation_results": results,
    }  # fmt: skip


def _result(record: Record, name: str) -> dict[str, Any]:
    metric = record.metric(name)
    unit = str(metric.get("unit") or "")
    low, high = bounds_of(unit) or (None, None)
    score: dict[str, Any] = {"score": metric["value"], "details": _texts({"k": metric.get("k"), "n": metric.get("n")})}
    if metric.get("low") is not None and metric.get("high") is not None:
        interval = {"lower": metric["low"], "upper": metric["high"], "confidence_level": metric.get("level", 0.95)}
        spread: dict[str, Any] = {"confidence_interval": interval | {"method": str(metric.get("method"))}}
        if metric.get("n") is not None:
            spread["num_samples"] = int(metric["n"])
        score["uncertainty"] = spread
    return {
        "evaluation_result_id": f"{record.ref}#{name}",
        "evaluation_name": f"{record.notebook}: {name}",
        "source_data": {
            "dataset_name": record.notebook, "source_type": "other", "additional_details": _texts(record.cell),
        },
        "metric_config": {
            "metric_id": name, "metric_unit": unit, "score_type": "continuous", "lower_is_better": False,
            "min_score": low, "max_score": high,
            "additional_details": {"direction": "not stated by the study: lower_is_better says nothing"},
        },
        "score_details": score,
    }  # fmt: skip


def _epoch(stamp: str) -> str:
    return str(int(datetime.fromisoformat(stamp).timestamp()))


def _texts(values: dict[str, Any]) -> dict[str, str]:
    """Return what is there as text, as the form wants all details."""
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in values.items()
        if value is not None
    }

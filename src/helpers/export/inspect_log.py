"""A record as a log of Inspect, which its viewer and its tools open: samples, scores and metrics.

A score of the log is a metric of the record, given to the samples that the metric rests on, so that the log's own mean
is the record's rate. Source of the format: https://inspect.aisi.org.uk/eval-logs.html
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from helpers.base import files
from helpers.base.errors import ExportError
from helpers.export import places
from helpers.export.samples import Samples, samples_of
from helpers.records import reading
from helpers.records.reading import Record

STOPS: dict[str, Any] = {"length": "max_tokens"}
"""Inspect's names of why an answer ended, by ours; any other is "stop"."""


def export(ref: str, out: Path) -> tuple[int, int]:
    """Write the run ``ref`` to ``out`` (``.eval``), and return how many samples and scores it holds.

    Raises:
        ExportError: the record holds no samples, ``out`` is taken, or inspect-ai is not installed.
    """
    if out.suffix != ".eval":
        raise ExportError(f"{out} must end in .eval, by which Inspect knows its logs.")
    places.refuse_taken(out)
    record = reading.load(ref)
    found = samples_of(record)
    logs = _package()
    log = _log(record, found)
    files.write_atomic(out, lambda temporary: logs.write_eval_log(log, str(temporary), format="eval"))
    return len(found.table), len(found.scores)


def _package() -> Any:
    try:
        import inspect_ai.log as logs  # pyright: ignore[reportMissingImports]  (the extra evals brings it)
    except ImportError as error:
        raise ExportError(
            "The package inspect-ai is not installed, and only it writes the logs of Inspect. Install claimbook[evals]."
        ) from error
    return logs


def _log(record: Record, found: Samples) -> Any:
    from inspect_ai import log as logs  # pyright: ignore[reportMissingImports]

    ran = found.table[found.table["state"] != "cancelled"]
    model = f"claimbook/{record.model['name']}"
    names = list(dict.fromkeys(found.table["sample"]))
    spec = logs.EvalSpec(
        created=record.started, task=record.params.get("task") or record.notebook, model=model,
        dataset=logs.EvalDataset(name=record.notebook, samples=len(names), sample_ids=names, shuffled=False),
        config=logs.EvalConfig(epochs=int(found.table["epoch"].max()), epochs_reducer=["mean"]),
        packages={"claimbook": version("claimbook"), "inspect_ai": version("inspect_ai")},
        metadata={"record": record.ref, "sha256": files.sha256_file(record.path / "run.json"), "cell": record.cell,
                  "params": record.params, "model": record.model.get("sha256"), "metrics": record.metrics},
    )  # fmt: skip
    stated = [
        logs.EvalScore(
            name=name, scorer=name, reducer="mean", scored_samples=int(values.notna().sum()),
            unscored_samples=int(values.isna().sum()),
            metrics={"mean": logs.EvalMetric(name="mean", value=record.metrics[name]["value"])},
        )
        for name, values in found.scores.items()
    ]  # fmt: skip
    results = logs.EvalResults(total_samples=len(found.table), completed_samples=len(ran), scores=stated)
    return logs.EvalLog(
        status="success", eval=spec, results=results, samples=list(_samples(ran, found.scores, model)),
        stats=logs.EvalStats(started_at=record.started, completed_at=record.ended),
    )  # fmt: skip


def _samples(ran: pd.DataFrame, scores: dict[str, pd.Series], model: str) -> Iterator[Any]:
    from inspect_ai.log import EvalError, EvalSample  # pyright: ignore[reportMissingImports]
    from inspect_ai.model import ModelOutput  # pyright: ignore[reportMissingImports]
    from inspect_ai.scorer import Score  # pyright: ignore[reportMissingImports]

    by_row: dict[Any, dict[str, float]] = {}
    for name, judged in scores.items():
        for at, value in judged.items():
            by_row.setdefault(at, {})[name] = float(value)
    for at, row in zip(ran.index, ran.to_dict("records"), strict=True):
        values = by_row.get(at, {})
        failed = row["state"] == "error"
        yield EvalSample(
            id=row["sample"], epoch=int(row["epoch"]), input=str(row["input"]), target=str(row["target"]),
            output=ModelOutput.from_content(model, str(row["output"]), STOPS.get(str(row["finish"]), "stop")),
            scores=None if failed else {
                name: Score(value=value) for name, value in values.items()
                if not math.isnan(value) or len(values) > 1
            } or None,
            error=EvalError(message="as the imported log says", traceback="", traceback_ansi="") if failed else None,
        )  # fmt: skip

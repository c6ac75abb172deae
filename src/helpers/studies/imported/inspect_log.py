"""Read a log of Inspect (``.eval`` or ``.json``), sample by sample, with Inspect's own reader.

A sample that ended in an error, was never run, or whose scorer gave NaN (which a log writes as null) has no value.
"C", "P", "I" and "N" are 1, .5, 0 and 0, as Inspect's own metrics take them.
Source: https://inspect.aisi.org.uk/eval-logs.html
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from helpers.base.errors import DataError, foreign_errors
from helpers.base.files import shown
from helpers.studies.imported.samples import NOT_RECORDED, Log, Row, State, Stated, number, plain_name

LETTERS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
WORDS = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
REMEDY = "Check that it is a log of Inspect, and that the installed inspect-ai is no older than the one that wrote it"


def read(path: Path, cluster: str | None) -> Log:
    """Return what the log at ``path`` says; ``cluster`` is a key of the samples' metadata."""
    logs = _package()
    with foreign_errors(f"{path.name} cannot be read as a log of Inspect", REMEDY):
        head = logs.read_eval_log(str(path), header_only=True)
    spec, config = head.eval, head.plan.config.model_dump(exclude_none=True)
    about = {
        "tool": "inspect", "tool_version": (spec.packages or {}).get("inspect_ai", NOT_RECORDED),
        "created": str(spec.created), "status": head.status, "seed": config.get("seed", NOT_RECORDED),
        "generation": config | (spec.model_generate_config.model_dump(exclude_none=True)),
        "epochs": spec.config.epochs or 1, "reducers": spec.config.epochs_reducer or [],
        "task_version": spec.task_version, "error": head.error.message if head.error else None,
    }  # fmt: skip
    stated = [
        Stated(plain_name(score.name), name, float(metric.value))
        for score in (head.results.scores if head.results else [])
        if score.reducer in (None, "mean")
        for name, metric in score.metrics.items()
        if name in ("accuracy", "mean") and metric.value is not None
    ]
    return Log(spec.model or NOT_RECORDED, spec.task or NOT_RECORDED, about, _rows(logs, path, head, cluster), stated)


def _package() -> Any:
    try:
        import inspect_ai.log as logs
    except ImportError as error:
        raise DataError(
            "The package inspect-ai is not installed, and only it reads the logs of Inspect. Install claimbook[evals]."
        ) from error
    return logs


def _rows(logs: Any, path: Path, head: Any, cluster: str | None) -> Iterator[Row]:
    names, seen = _scores(head), set[tuple[str, int]]()
    with foreign_errors(f"The samples of {path.name} cannot be read", REMEDY):
        for sample in logs.read_eval_log_samples(str(path), all_samples_required=False):
            seen.add((str(sample.id), sample.epoch))
            yield from _of_sample(sample, names, cluster, path.name)
    for sample in head.eval.dataset.sample_ids or []:
        for epoch in range(1, (head.eval.config.epochs or 1) + 1):
            if (str(sample), epoch) not in seen:
                for name in names:
                    yield Row(str(sample), epoch, plain_name(name), None, "cancelled", str(sample))


def _scores(head: Any) -> list[str]:
    """Return the names of the scores: those that have results, else (a log that was cancelled) of the scorers."""
    named = [score.name for score in (head.results.scores if head.results else [])]
    return list(dict.fromkeys(named or [scorer.name for scorer in head.eval.scorers or []]))


def _of_sample(sample: Any, names: list[str], cluster: str | None, where: str) -> Iterator[Row]:
    label, shared = f"sample {shown(str(sample.id))} of {where}", str(sample.id)
    if cluster is not None:
        if cluster not in (sample.metadata or {}):
            raise DataError(f"{label} has no {cluster!r} in its metadata. Correct --cluster.")
        shared = str(sample.metadata[cluster])
    values = dict(_values(sample.scores or {}))
    failed: State | None = "error" if sample.error else None
    for name in dict.fromkeys([*(values or names)]):
        value = None if failed else _number(values.get(name), f"{name} of {label}")
        state: State = failed or ("unscored" if value is None else "scored")
        yield Row(str(sample.id), sample.epoch, plain_name(name), value, state, shared, sample.limit is not None)


def _values(scores: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield name and value of each score; one that is a mapping is one score a key."""
    for name, score in scores.items():
        if isinstance(score.value, dict):
            yield from score.value.items()
        else:
            yield name, score.value


def _number(value: Any, where: str) -> float | None:
    if isinstance(value, str):
        value = LETTERS.get(value, WORDS.get(value.lower(), value))
    return number(value, where)

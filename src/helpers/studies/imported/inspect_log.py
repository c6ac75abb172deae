"""Read a log of Inspect (``.eval`` or ``.json``), sample by sample, with Inspect's own reader.

A sample that ended in an error, was never run, or whose scorer gave NaN (which a log writes as null) has no value.
"C", "P", "I" and "N" are 1, .5, 0 and 0, as Inspect's own metrics take them.
Source: https://inspect.aisi.org.uk/eval-logs.html
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from helpers.base.errors import DataError
from helpers.base.files import shown
from helpers.lm.foreign import foreign_errors
from helpers.records.run_record import NOT_RECORDED
from helpers.studies.imported import reducers
from helpers.studies.imported.samples import ROWS, Log, Row, State, Stated, number, plain_name

LETTERS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
WORDS = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
UNREAD = {"attachments", "events", "messages", "output", "store"}
BATCH = 5_000
REMEDY = "Check that it is a log of Inspect, and that the installed inspect-ai is no older than the one that wrote it"


def read(path: Path, cluster: str | None) -> Log:
    """Return what the log at ``path`` says; ``cluster`` is a key of the samples' metadata."""
    logs = _package()
    with _one_sentence(f"{path.name} cannot be read as a log of Inspect"):
        head = logs.read_eval_log(str(path), header_only=True)
    newest = logs.EvalLog.model_fields["version"].default
    if head.version > newest:
        raise DataError(
            f"{path.name} is of version {head.version}, and the installed inspect-ai reads {newest}. Update it."
        )
    spec, config = head.eval, head.plan.config.model_dump(exclude_none=True)
    about = {
        "tool": "inspect", "tool_version": (spec.packages or {}).get("inspect_ai", NOT_RECORDED),
        "created": str(spec.created), "status": head.status, "seed": config.get("seed", NOT_RECORDED),
        "generation": config | (spec.model_generate_config.model_dump(exclude_none=True)),
        "epochs": spec.config.epochs or 1, "reducers": spec.config.epochs_reducer or [],
        "task_version": spec.task_version, "error": head.error.message if head.error else None,
    }  # fmt: skip
    about |= {"reducers": [name for name in about["reducers"] if reducers.is_known(name)]}
    stated = [
        # A score that is a mapping gives one result a key, under the name of that key alone.
        Stated((plain_name(score.name), plain_name(f"{score.scorer}.{score.name}")), score.reducer or "mean", name,
               float(metric.value))
        for score in (head.results.scores if head.results else [])
        if reducers.is_known(score.reducer or "mean")
        for name, metric in score.metrics.items()
        if name in ("accuracy", "mean") and metric.value is not None
    ]  # fmt: skip
    return Log(spec.model or NOT_RECORDED, spec.task or NOT_RECORDED, about, _rows(logs, path, head, cluster), stated)


@contextlib.contextmanager
def _one_sentence(what: str) -> Iterator[None]:
    """Say in one sentence what Inspect raises; asyncio would add a traceback for each read that was stopped."""
    spoken = logging.getLogger("asyncio")
    level = spoken.level
    spoken.setLevel(logging.CRITICAL)
    try:
        with foreign_errors(what, REMEDY):
            yield
    finally:
        spoken.setLevel(level)


def _package() -> Any:
    try:
        import inspect_ai.log as logs  # pyright: ignore[reportMissingImports]  (the extra evals brings it)
    except ImportError as error:
        raise DataError(
            "The package inspect-ai is not installed, and only it reads the logs of Inspect. Install claimbook[evals]."
        ) from error
    return logs


def _rows(logs: Any, path: Path, head: Any, cluster: str | None) -> Iterator[Row]:
    """Yield the rows of all samples; those that have no scores come last, when the names of the scores are known."""
    names, seen, lacking = dict[str, None](), set[tuple[str, int]](), list[tuple[str, int, State, str, bool]]()
    with _one_sentence(f"The samples of {path.name} cannot be read"):
        for sample in _samples(logs, path, head):
            key, shared = (str(sample.id), sample.epoch), _cluster(sample, cluster, path.name)
            seen.add(key)
            values = {} if sample.error else _values(sample.scores or {}, path.name)
            names |= dict.fromkeys(map(plain_name, values))
            for name, value in values.items():
                found = _number(value, f"{name} of sample {shown(key[0])} of {path.name}")
                state = "unscored" if found is None else "scored"
                yield Row(*key, plain_name(name), found, state, shared, sample.limit is not None)
            if not values:
                lacking.append((*key, "error" if sample.error else "unscored", shared, sample.limit is not None))
    listed, epochs = head.eval.dataset.sample_ids or [], head.eval.config.epochs or 1
    if len(listed) * epochs > ROWS:
        raise DataError(
            f"{path.name} says that it has {len(listed) * epochs:.3g} samples. A record holds {ROWS:,} rows."
        )
    for sample in listed:
        for epoch in range(1, epochs + 1):
            if (str(sample), epoch) not in seen:
                lacking.append((str(sample), epoch, "cancelled", str(sample), False))
    known = list(names) or [plain_name(scorer.name) for scorer in head.eval.scorers or []]
    if lacking and not known:
        raise DataError(f"{path.name} has {len(lacking):,} samples and no score. Score it first: inspect score.")
    for sample, epoch, state, shared, limited in lacking:
        for name in known:
            yield Row(sample, epoch, name, None, state, shared, limited)


def _samples(logs: Any, path: Path, head: Any) -> Iterator[Any]:
    """Yield the samples in the order of the data set, without what was said in them.

    They are read by thousands: each read begins with the list of all of them. A log in JSON is one
    document, which is read whole.
    """
    if path.suffix == ".json":
        yield from logs.read_eval_log(str(path)).samples or []
        return
    order = {str(name): at for at, name in enumerate(head.eval.dataset.sample_ids or [])}
    keys = [(one.id, one.epoch) for one in logs.read_eval_log_sample_summaries(str(path))]
    keys.sort(key=lambda key: (order.get(str(key[0]), len(order)), key[1]))
    for at in range(0, len(keys), BATCH):
        yield from logs.read_eval_log_samples_by_id(str(path), keys[at : at + BATCH], exclude_fields=UNREAD)


def _cluster(sample: Any, key: str | None, where: str) -> str:
    if key is None:
        return str(sample.id)
    if key not in (sample.metadata or {}):
        raise DataError(f"Sample {shown(str(sample.id))} of {where} has no {key!r} in its metadata. Correct --cluster.")
    return str(sample.metadata[key])


def _values(scores: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the value of each score; one that is a mapping is one score a key."""
    found: dict[str, Any] = {}
    for name, score in scores.items():
        is_mapping = isinstance(score.value, dict)
        own = {f"{name}.{key}": one for key, one in score.value.items()} if is_mapping else {name: score.value}
        if twice := sorted(own.keys() & found.keys()):
            raise DataError(f"{where} has two scores called {shown(twice[0])}. Rename one of its scorers.")
        found |= own
    return found


def _number(value: Any, where: str) -> float | None:
    if isinstance(value, str):
        value = LETTERS.get(value, WORDS.get(value.lower(), value))
    return number(value, where)

"""Run the cell of a record again from scratch and compare the results.

Every table is compared exactly first, whatever the machine. Only where one differs and the packages or the kind of CPU
do as well, the metrics are compared instead: a rate within its own interval (a sampled completion may flip), anything
else within the relative tolerance that the study states for it.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from helpers.audit.agreement import ROUNDING, agree, same_kind
from helpers.base import files
from helpers.base.errors import RecordError
from helpers.records import ledger, reading
from helpers.records.reading import Record
from helpers.records.study import Study, find_study

EXACT = "equal to the last bit"
Outcome = Literal["equal", "within tolerance", "different"]


@dataclass(frozen=True)
class Replay:
    """How a record and its replay compare; ``why`` names the first difference, ``skipped`` what was not compared."""

    record: Record
    outcome: Outcome
    why: str = ""
    seconds: float = 0.0
    skipped: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """The clause of the ledger's line."""
        said = EXACT if self.outcome == "equal" else f"{self.outcome}: {self.why}"
        return f"{said}; not compared: {', '.join(self.skipped)}" if self.skipped else said


def replay(refs: Sequence[str]) -> Iterator[Replay]:
    """Run each record of ``refs`` again and yield how it compares; inputs made on the way are compared too, each once.

    All share one empty outputs folder, so that a baseline is made once. Raises ``RecordError`` for a study that cannot
    be replayed (timings) and for a run that does not give a record.
    """
    originals = {ref: reading.load(ref) for ref in refs}
    compared: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="claimbook-replay-") as folder:
        for ref, original in originals.items():
            study = find_study(original.study)
            if study.replay is None:
                users = [one.ref for one in reading.published() if ref in one.inputs.values()]
                why = f"Replay {users[0]}, which used it." if users else "It is a measurement of its moment."
                raise RecordError(f"{ref} cannot be replayed by itself. {why}")
            begin = time.perf_counter()
            with _alone(folder), _set("CLAIMBOOK_THREADS", str(original.environment.get("threads", ""))):
                again = study.replay(original)
            spent = time.perf_counter() - begin
            for one, other in _pairs(original, again, folder):
                if one.ref not in compared:
                    compared.add(one.ref)
                    yield compare(one, other, spent if one is original else 0.0)


def replayable() -> list[str]:
    """Return the published records that a study can run again; those that other records used come with these."""
    return [record.ref for record in reading.published() if find_study(record.study).replay is not None]


def enter(result: Replay) -> None:
    """Write a line into the ledger for the replay of a published record."""
    if result.record.published:
        sha = files.sha256_file(result.record.path / "run.json")
        line = {"event": "replayed", "kind": "record", "name": result.record.ref, "sha256": sha, "note": result.note}
        ledger.append([line])


@contextlib.contextmanager
def _alone(folder: str) -> Iterator[None]:
    """Make and read records in ``folder`` only: a replay uses nothing that was published."""
    with _set("CLAIMBOOK_OUTPUTS", folder), _set("CLAIMBOOK_PUBLISHED", f"{folder}/published"):
        yield


@contextlib.contextmanager
def _set(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name) if before is None else os.environ.update({name: before})


def _pairs(original: Record, again: Record, folder: str) -> Iterator[tuple[Record, Record]]:
    """The record and its replay, and those that both used by the same name."""
    for name, ref in original.inputs.items():
        if name in again.inputs:
            with _alone(folder):
                other = reading.load(again.inputs[name])
            yield from _pairs(reading.load(ref), other, folder)
    yield original, again


def compare(original: Record, again: Record, seconds: float = 0.0) -> Replay:
    """Compare a record with its replay: question, tables, then (on another kind of machine only) metrics."""
    study = find_study(original.study)
    if again.id != original.id:
        return Replay(original, "different", f"the replay asks another question, {again.id}", seconds)
    difference, skipped = _first_difference(original, again, study), _skipped(original, study)
    if difference is None:
        return Replay(original, "equal", "", seconds, skipped)
    if same_kind(original):
        return Replay(original, "different", difference, seconds, skipped)
    off = [name for name in original.metrics if not _near(original, again, name, study)]
    if off:
        return Replay(original, "different", f"{difference}; metrics {', '.join(sorted(off))}", seconds, skipped)
    why = f"{difference}; other packages or another kind of CPU"
    return Replay(original, "within tolerance", why, seconds, skipped)


def _skipped(record: Record, study: Study) -> tuple[str, ...]:
    """Return the columns of the record's tables that its study calls measured."""
    stored = {name: list(table) for name, table in record.results.items() if name in study.measured}
    return tuple(
        f"{name}.{column}" for name in sorted(stored) for column in study.measured[name] if column in stored[name]
    )


def _first_difference(original: Record, again: Record, study: Study) -> str | None:
    one, other = original.results, again.results
    if set(one) != set(other):
        return f"the tables are {sorted(other)}, not {sorted(one)}"
    for name in sorted(one):
        left, right, skipped = one[name], other[name], set(study.measured.get(name, ()))
        if isinstance(left, pd.DataFrame):
            if list(left.columns) != list(right.columns) or len(left) != len(right):
                return f"table {name} has {len(right)} rows of {list(right.columns)}"
            for column in [column for column in left.columns if column not in skipped]:
                if _values(left[column]) != _values(right[column]):
                    return f"{name}.{column}"
        elif any(left.get(key) != right.get(key) for key in {*left, *right} - skipped):
            return name
    if original.finish_reasons != again.finish_reasons:
        return f"finish_reasons are {again.finish_reasons}"
    return _other_metric(original, again)


def _other_metric(original: Record, again: Record) -> str | None:
    """Return the first metric that equal tables gave another value, where both were derived by one version."""
    if original.metrics_version != again.metrics_version:
        return None  # `claimbook derive` brings the record up to date
    rounding = 0.0 if same_kind(original) else ROUNDING
    for name in sorted({*original.metrics, *again.metrics}):
        one, other = original.metrics.get(name, {}), again.metrics.get(name, {})
        if not (one or other).get("measured"):
            for key in sorted({*one, *other}):
                if not agree(one.get(key), other.get(key), rounding):
                    return f"metrics.{name}.{key}"
    return None


def _values(column: pd.Series) -> str:
    """Return a column as text in which different floats differ, and missing values too."""
    return repr([_plain(value) for value in column.tolist()])


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _near(original: Record, again: Record, name: str, study: Study) -> bool:
    one, other = original.metrics[name], again.metrics.get(name)
    if one.get("measured"):
        return True
    if other is None:
        return False
    if one["k"] is not None and one["low"] is not None:
        return one["low"] <= other["value"] <= one["high"]
    within = study.tolerances.get(name, study.tolerance)
    return agree(one["value"], other["value"], 0.0) or math.isclose(
        one["value"], other["value"], rel_tol=within, abs_tol=within
    )

"""Check that records are what they say, cheapest check first; each finding names the record and the field.

1. shape: ``run.json`` is a run record, lies where it says, and its id is the hash of its question;
2. files: every file is the one that the run wrote, and no other lies beside it;
3. metrics: derived again from the stored tables, they are those of the record;
4. registration: criteria, grid and question of every claim are as registered;
5. sources: data and model on this disk are still those of the record;
6. ledger: its chain and its history hold, and it lists exactly the published records.

Running a cell again is in ``replay``.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import datetime
from pathlib import Path
from typing import Any

from helpers.audit.agreement import ROUNDING, agree, same_kind
from helpers.audit.entries import check_ledger, check_registrations
from helpers.audit.findings import Finding, files_in, published_folders
from helpers.base import files
from helpers.base.errors import ClaimbookError, RecordError, nearest
from helpers.cases.changed import Changes
from helpers.cases.recalled import nothing_recalled
from helpers.claims.confidence import is_measured
from helpers.records import ledger, questions, reading
from helpers.records.derive import derive
from helpers.records.reading import Record, read_once
from helpers.records.steps import KEYS, MANIFESTS
from helpers.records.study import Study, find_study

Derive = Callable[[Record, Study], dict[str, Any]]
SHARE = 32
"""Records that a process checks at a time. Fewer than two such shares are checked by one process."""


@read_once()
def verify(refs: Sequence[str] | None = None, root: Path = files.ROOT, processes: int = 1) -> list[Finding]:
    """Check the records ``refs`` (default: all published ones, with registrations and the ledger as a whole).

    As many ``processes`` share the records, where there are enough of them.
    """
    findings: list[Finding] = []
    with nothing_recalled():
        for some in _checked(list(_folders(refs)), processes):
            findings += some
        if not refs:
            findings += [*check_registrations(root), *check_ledger(root)]
    return findings


def _checked(folders: Sequence[Path], processes: int) -> Iterator[list[Finding]]:
    """Yield the findings on each record, in order."""
    if processes < 2 or len(folders) < 2 * SHARE:
        yield from map(verify_folder, folders)
        return
    spawn = multiprocessing.get_context("spawn")  # a fork may hang where a library has threads
    try:
        with ProcessPoolExecutor(processes, spawn, initializer=reading.share) as pool:
            yield from pool.map(_anew, folders, chunksize=SHARE)
    except BrokenProcessPool as error:
        raise RecordError(
            "A process that checked records was ended from outside. Run the same command again."
        ) from error


@nothing_recalled()
def _anew(folder: Path) -> list[Finding]:
    return verify_folder(folder)


def measured_only(refs: Sequence[str] | None = None) -> list[str]:
    """Return those of the records ``refs`` (default: all published ones) whose every number was measured.

    Nothing can derive them again, and no finding says so: that is how such records are made.
    """
    read = [reading.read(folder) for folder in _folders(refs)]
    return [record.ref for record in read if is_measured(record)]


def _folders(refs: Sequence[str] | None) -> Iterator[Path]:
    if not refs:
        yield from published_folders()
        return
    for ref in refs:
        places = [files.inside(root, *reading.named(ref)) for root in (files.published_root(), files.outputs_root())]
        here = [place for place in places if (place / "run.json").is_file()]
        if not here:
            known = [record.ref for record in reading.records(ref.partition("/")[0])]
            raise RecordError(f"There is no run record {ref}{nearest(ref, known) if known else ''}")
        yield here[0]


def verify_folder(folder: Path, derive: Derive = derive, *, elsewhere: bool = False) -> list[Finding]:
    """Check one record by itself: shape, files, metrics (as ``derive`` gives them), sources.

    Of a record that was made ``elsewhere`` the data and the model need not lie on this disk.
    """
    published = folder.resolve().is_relative_to(files.published_root().resolve())
    try:
        record = reading.read(folder, published=published)
    except (RecordError, FileNotFoundError) as error:
        return [Finding(f"{folder.parent.name}/{folder.name}", "run.json", str(error))]
    if record.status != "complete":
        return [Finding(record.ref, "status", f"is {record.status}, not complete. Run it again.")]
    findings = [*_check_identity(record), *_check_files(record)]
    if not findings:
        findings += check_metrics(record, derive)
    findings += [*_check_criteria(record), *_check_derived(record), *_check_model(record)]
    return findings if elsewhere else [*findings, *_check_sources(record)]


def _check_identity(record: Record) -> Iterator[Finding]:
    try:
        study = find_study(record.study)
    except ClaimbookError as error:
        yield Finding(record.ref, "study", str(error))
        return
    expected = questions.question_hash(record.content, study)
    if record.id.rpartition("-")[2] != expected:
        yield Finding(
            record.ref, "id", f"does not end in {expected}, the hash of its question. Its question was changed."
        )
    if record.metrics_version > study.metrics_version:
        yield Finding(record.ref, "metrics_version", f"is {record.metrics_version}, newer than this code's.")
    yield from _check_cell(record, study)
    yield from _check_device(record)
    for name, ref in record.inputs.items():
        try:
            reading.load(ref)
        except RecordError as error:
            yield Finding(record.ref, f"inputs.{name}", str(error))


def _check_cell(record: Record, study: Study) -> Iterator[Finding]:
    """Check that every axis of the cell follows from what the record's id is a hash of."""
    for axis in sorted({*record.cell, *study.axes}):
        value = record.cell.get(axis)
        try:
            allowed = study.axes[axis](record.content) if axis in study.axes else [record.params[axis]]
        except (ClaimbookError, KeyError, TypeError):
            allowed = []
        if not any(agree(value, one, 0.0) for one in allowed):
            expected = " or ".join(map(repr, allowed)) or "nothing of that name"
            yield Finding(record.ref, f"cell.{axis}", f"is {value!r}, but the run's parameters give {expected}.")


def _check_device(record: Record) -> Iterator[Finding]:
    """Check device and dtype, of which the question holds no more than the dtype of the loaded model."""
    for name in ("device", "dtype"):
        asked, used = record.params.get(name), record.model.get(name)
        if asked not in (None, "auto") and used is not None and asked != used:
            yield Finding(record.ref, f"params.{name}", f"is {asked!r}, but the model was loaded with {used!r}.")
    gpus = record.environment.get("hardware", {}).get("gpus")
    for where, device in {"params": record.params.get("device"), "model": record.model.get("device")}.items():
        if str(device).startswith("cuda") and not gpus:
            yield Finding(record.ref, f"{where}.device", f"is {device!r}, but the environment names no GPU.")


def _check_criteria(record: Record) -> Iterator[Finding]:
    """Check that the criteria which stood beside the run are ones that were registered, if any were before it began."""
    try:
        lines = ledger.read().of("criteria", f"params/{record.notebook}/criteria.yaml")
    except RecordError:
        return  # check_ledger says so
    if record.criteria is None:
        began = datetime.fromisoformat(record.started)
        if any(line.moment < began for line in lines):
            yield Finding(record.ref, "criteria", f"is none, but the run began after {lines[0].name} was registered.")
    elif lines and record.criteria["path"] != lines[0].name:
        yield Finding(record.ref, "criteria.path", f"is {record.criteria['path']}, not {lines[0].name}.")
    elif lines and record.criteria["sha256"] not in {line.sha256 for line in lines}:
        yield Finding(record.ref, "criteria.sha256", f"is no hash under which {lines[0].name} was ever registered.")


def _check_files(record: Record) -> Iterator[Finding]:
    listed = {name: sha for name, sha in record.files.items() if not (record.published and "/" in name)}
    for name in listed:
        try:
            record.checked(name)
        except RecordError as error:
            yield Finding(record.ref, f"files.{name}", str(error))
    manifests = set() if record.published else set(_manifests(record))
    for name in sorted(files_in(record.path) - set(listed) - manifests - {"run.json"}):
        yield Finding(record.ref, f"files.{name}", "is no file of this record. Delete it.")


def _manifests(record: Record) -> Iterator[str]:
    """Yield the names of the manifests in a record's folder: of steps whose files are among the record's."""
    for path in sorted((record.path / MANIFESTS).glob("*.json")):
        with contextlib.suppress(ValueError, KeyError, TypeError):  # no manifest
            manifest = json.loads(path.read_text(encoding="utf-8"))
            made = manifest["files"].items()
            if set(manifest) == KEYS and path.stem == manifest["name"] and made and made <= record.files.items():
                yield f"{MANIFESTS}/{path.name}"


def _check_derived(record: Record) -> Iterator[Finding]:
    """Check that the metrics were derived again no more often than their version was raised."""
    try:
        events = [line.event for line in ledger.read().of("record", record.ref)]
    except RecordError:
        return  # check_ledger says so
    derived = events[::-1].index("published") if "published" in events else 0
    times = events[len(events) - derived :].count("derived")
    if times >= record.metrics_version:
        yield Finding(
            record.ref, "metrics_version", f"is {record.metrics_version}, but the ledger says derived {times} times."
        )


def check_metrics(record: Record, derive: Derive = derive) -> list[Finding]:
    """Derive the metrics of ``record`` from its tables and compare them with those that it states."""
    study = find_study(record.study)
    if record.metrics_version < study.metrics_version:
        return [Finding(record.ref, "metrics_version", f"is {record.metrics_version}. Run `claimbook derive`.")]
    try:
        derived = derive(record, study)
    except (ClaimbookError, KeyError, ValueError, TypeError, IndexError) as error:
        return [Finding(record.ref, "metrics", f"cannot be derived ({type(error).__name__}: {error}).")]
    rounding = 0.0 if same_kind(record) else ROUNDING
    findings = []
    for name in sorted({*derived, *record.metrics}):
        stated, again = record.metrics.get(name), derived.get(name)
        if again is None:
            if not (stated.get("measured") and study.is_measured(name)):
                findings.append(Finding(record.ref, f"metrics.{name}", "does not follow from the tables."))
        elif stated is None:
            findings.append(Finding(record.ref, f"metrics.{name}", "follows from the tables and is missing."))
        else:
            findings += [
                Finding(
                    record.ref,
                    f"metrics.{name}.{key}",
                    f"is {stated.get(key)!r}, but the tables give {again.get(key)!r}.",
                )
                for key in sorted({*stated, *again})
                if not agree(stated.get(key), again.get(key), rounding)
            ]
    return findings


def _check_model(record: Record) -> Iterator[Finding]:
    listed = record.model.get("files") or {}
    if listed and files.sha256_json(listed) != record.model["sha256"]:
        yield Finding(record.ref, "model.files", "are not those that the model's hash is of.")


def _check_sources(record: Record) -> Iterator[Finding]:
    """What of the question lies on this disk, as it is now."""
    for what in Changes().of(record):
        if what in ("data", "inputs", "version"):
            yield Finding(record.ref, what, "has changed since the run. Run it again.")
    folder = files.ROOT / files.expanded(record.model.get("source") or ".")
    for name, sha in (record.model.get("files") or {}).items():
        path = folder / name
        if record.model.get("source") and files.is_there(path) and files.sha256_kept(path) != sha:
            yield Finding(record.ref, f"model.files.{name}", f"is not what lies in {record.model['source']} now.")

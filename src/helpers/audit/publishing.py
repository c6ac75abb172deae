"""Copy finished records to ``published_root()``, which git tracks: what pages are computed from in a fresh clone."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from helpers.audit import looks
from helpers.audit.register import judging
from helpers.base import files
from helpers.base.errors import RecordError, nearest
from helpers.records import ledger, reading, run_record
from helpers.records.derive import derive
from helpers.records.reading import Record, records, used_by
from helpers.records.study import find_study
from helpers.system import provenance


def publish(notebook: str, where: Callable[[Record], bool] | None = None) -> list[Path]:
    """Copy the complete records that satisfy ``where`` (default: all) and those they used to ``published_root()``.

    Only JSON and parquet files at the top of a record are copied, never folders (adapters). Returns the folders of
    all of them, those published before included. Raises ``RecordError``, before anything is copied, when a file to
    publish is damaged or names a folder of this machine, or when another run of the same question is published.
    """
    waiting = [record for record in records(notebook) if where is None or where(record)]
    gathered: dict[Path, Record] = {}
    while waiting:
        record = waiting.pop()
        target = files.inside(files.published_root(), record.notebook, record.id)
        if target not in gathered:
            gathered[target] = record
            waiting += used_by(record)
    new = {target: record for target, record in gathered.items() if not _is_there(target, record)}
    standing = ledger.read().standing("record")
    for record in new.values():
        if record.ref in standing:
            raise RecordError(
                f"{record.ref} was published on {standing[record.ref].at[:10]} and its folder is gone. Restore it from "
                f"git, or run `claimbook withdraw {record.ref} --reason ...` first."
            )
    sources = {target: _sources(record) for target, record in new.items()}
    with judging():
        for target, record in new.items():
            _copy(target, _content(record), sources[target])
        _enter(gathered)
        looks.enter(notebook)
    return sorted(gathered)


def _enter(gathered: Mapping[Path, Record]) -> None:
    """Write a line into the ledger for each record that does not stand there."""
    standing = ledger.read().standing("record")
    new = [
        (record.ref, target / "run.json") for target, record in sorted(gathered.items()) if record.ref not in standing
    ]
    if new:
        line = {"event": "published", "kind": "record"}
        ledger.append(line | {"name": ref, "sha256": files.sha256_file(head)} for ref, head in new)


def withdraw(ref: str, reason: str) -> None:
    """Withdraw a published record: delete its folder and say why in the ledger.

    Raises ``RecordError`` when it is not published or another published record used it.
    """
    folder = files.inside(files.published_root(), *reading.named(ref))
    standing = ledger.read().standing("record")
    if ref not in standing:
        raise RecordError(f"There is no published record {ref}{nearest(ref, standing)}")
    users = [record.ref for record in reading.published() if ref in record.inputs.values()]
    if users:
        raise RecordError(f"{ref} was used by {users[0]}, which is published too. Withdraw that one first.")
    line = {"event": "withdrawn", "kind": "record", "name": ref, "sha256": standing[ref].sha256, "reason": reason}
    with judging():
        if folder.is_dir():
            shutil.rmtree(folder)
        ledger.append([line])


def derive_again(chosen: Iterable[Record]) -> list[str]:
    """Derive metrics again where the study's METRICS_VERSION was raised; return the references of those records.

    What is published and was made here is derived in both places. A published record gets a line in the ledger. A
    record that is up to date is left alone: metrics that differ without a raised version are for ``claimbook verify``
    to report, not to overwrite.
    """
    with judging():
        return _derive_again(chosen)


def _derive_again(chosen: Iterable[Record]) -> list[str]:
    done, events = [], []
    for record in itertools.chain.from_iterable(map(_with_twin, chosen)):
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
    return list(dict.fromkeys(done))


def _with_twin(record: Record) -> list[Record]:
    here = reading.made_here(record.ref) if record.published else None
    return [record] if here is None else [record, here]


def _is_there(target: Path, record: Record) -> bool:
    """Whether ``record`` is published; git tracks what is, so another run in its place is not overwritten."""
    if not record.published:
        return False
    here = reading.made_here(record.ref)
    if here is not None and record.content != _content(here):
        raise RecordError(
            f"{provenance.portable(str(target))} holds another run of the same question, begun {record.started}. Run "
            f"`claimbook withdraw {record.ref} --reason ...` to publish the one begun {here.started} in its place, "
            "or delete the latter to keep it."
        )
    return True


def _content(record: Record) -> dict[str, Any]:
    return record.content | {"launch": _without_folders(record.launch)}


def _sources(record: Record) -> list[Path]:
    """The files to copy, each whole and fit to be read by others."""
    _refuse_machine_paths(json.dumps(_content(record), ensure_ascii=False), record.path / "run.json")
    sources = [record.checked(name) for name in record.files if "/" not in name]
    for source in sources:
        if source.suffix == ".json":  # tables hold texts of models, which may name any folder
            _refuse_machine_paths(source.read_text(encoding="utf-8"), source)
    return sources


def _copy(target: Path, content: dict[str, Any], sources: list[Path]) -> None:
    with files.new_folder(target) as folder:
        files.write_record(folder / "run.json", content)
        for source in sources:
            shutil.copyfile(source, folder / source.name)


def _without_folders(launch: str) -> str:
    """The launch command with absolute paths cut to their last part: readers need not know where an output went."""
    return re.sub(r"(?<=\s)/\S*/(?=[^/\s])", "", launch)


def _refuse_machine_paths(text: str, path: Path) -> None:
    if provenance.portable(text) != text:
        raise RecordError(f"{path} names a folder of this machine, so it cannot be published: record a relative path.")

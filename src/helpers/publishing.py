"""Copy finished records to ``published_root()``, which git tracks: what pages are computed from in a fresh clone."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from helpers import files, ledger, provenance
from helpers import records as reading
from helpers.errors import RecordError, nearest
from helpers.records import Record, load, records


def publish(notebook: str, where: Callable[[Record], bool] | None = None) -> list[Path]:
    """Copy the complete records that satisfy ``where`` (default: all) and those they used to ``published_root()``.

    Only JSON and parquet files at the top of a record are copied, never folders (adapters). Returns the folders of
    all of them, those published before included. Raises ``RecordError`` when a file to publish is damaged or names a
    folder of this machine.
    """
    waiting = [record for record in records(notebook) if where is None or where(record)]
    done: dict[str, Path] = {}
    while waiting:
        record = waiting.pop()
        if record.ref not in done:
            done[record.ref] = record.path if record.published else _publish_one(record)
            waiting += [load(ref) for ref in record.inputs.values()]
    _enter(done)
    return sorted(done.values())


def _enter(done: Mapping[str, Path]) -> None:
    """Write a line into the ledger for each record that is new there, or new in what it says."""
    standing = ledger.read().standing("record")
    hashes = {ref: files.sha256_file(folder / "run.json") for ref, folder in sorted(done.items())}
    new = {ref: sha for ref, sha in hashes.items() if ref not in standing or standing[ref].sha256 != sha}
    if new:
        ledger.append({"event": "published", "kind": "record", "name": ref, "sha256": sha} for ref, sha in new.items())


def withdraw(ref: str, reason: str) -> None:
    """Take a published record back: delete its folder and say why in the ledger.

    Raises ``RecordError`` when it is not published or another published record used it.
    """
    folder = files.published_root() / ref
    standing = ledger.read().standing("record")
    if ref not in standing:
        raise RecordError(f"There is no published record {ref}{nearest(ref, standing)}")
    users = [record.ref for record in reading.published() if ref in record.inputs.values()]
    if users:
        raise RecordError(f"{ref} was used by {users[0]}, which is published too. Withdraw that one first.")
    if folder.is_dir():
        shutil.rmtree(folder)
    line = {"event": "withdrawn", "kind": "record", "name": ref, "sha256": standing[ref].sha256, "reason": reason}
    ledger.append([line])


def _publish_one(record: Record) -> Path:
    target = files.published_root() / record.ref
    content = record.content | {"launch": _without_folders(record.launch)}
    if (target / "run.json").is_file() and reading.read(target).content == content:
        return target
    temporary, old = (target.with_name(f".{record.id}.{os.getpid()}.{end}") for end in ("tmp", "old"))
    sources = [record.checked(name) for name in record.files if "/" not in name]
    with files.disk_errors(target):
        try:
            temporary.mkdir(parents=True)
            files.write_json(temporary / "run.json", content)
            _refuse_machine_paths(temporary / "run.json")
            for source in sources:
                if source.suffix == ".json":  # tables hold texts of models, which may name any folder
                    _refuse_machine_paths(source)
                shutil.copyfile(source, temporary / source.name)
            if target.exists():
                target.rename(old)
            temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
    return target


def _without_folders(launch: str) -> str:
    """The launch command with absolute paths cut to their last part: where an output went is nobody else's matter."""
    return re.sub(r"(?<=\s)/\S*/(?=[^/\s])", "", launch)


def _refuse_machine_paths(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if provenance.portable(text) != text:
        raise RecordError(f"{path} names a folder of this machine, so it cannot be published: record a relative path.")

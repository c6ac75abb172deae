"""The results of a run's steps on disk, so that a run killed half-way continues where it stopped.

A step's files are renamed into place first, its manifest ``steps/<name>.json`` (files, hashes, seconds) last. A step is
finished when its manifest's hashes are right; any other step is done again. Values are always read back from the files,
so that a resumed run sees exactly what an uninterrupted one does.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from helpers.base import files
from helpers.base.disk import disk_errors
from helpers.base.errors import RecordError

# Nothing that has to be unpickled: tensors, text and pictures.
SUFFIXES = {".json", ".parquet", ".safetensors", ".txt", ".md", ".jinja"}
SUFFIXES |= {".csv", ".jsonl", ".log", ".pdf", ".png", ".svg", ".toml", ".tsv", ".yaml", ".yml"}
MANIFESTS = "steps"
KEYS = {"name", "kind", "files", "seconds", "finished"}

Value = pd.DataFrame | dict[str, Any]


def plain(value: Any, where: str) -> Any:
    """Return ``value`` as JSON types, converting NumPy values, tuples and paths; ``RecordError`` for anything else."""
    if isinstance(value, Mapping):
        wrong = [key for key in value if not isinstance(key, str)]
        if wrong:
            raise RecordError(f"{where} has the key {wrong[0]!r}, but keys of a record are text. Use str().")
        return {key: plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(item, where) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not np.isfinite(value):
        raise RecordError(
            f"{where} is {value}, not a finite number. Leave it out, or write None if it was not measured."
        )
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise RecordError(f"{where} is a {type(value).__name__}, but a record holds JSON values and tables only.")


class Steps:
    """Step results in ``folder``, the folder of a run that is being made; ``label`` names the run in messages."""

    def __init__(self, folder: Path, label: str):
        self.path = folder
        self.label = label
        self.done: dict[str, dict[str, Any]] = {}  # manifests of the steps this run has asked for
        self.spent = 0.0  # seconds this process has spent making steps

    def value(self, name: str, fn: Callable[[], Any]) -> Any:
        """Return ``fn()``'s table(s) or JSON value, from disk when this step was finished before."""
        manifest = self._finished(name)
        if manifest is None:
            manifest = self._make(name, lambda: self._write_values(name, fn()), 0.0)
        return self._read_values(manifest)

    def folder(self, name: str, fn: Callable[[Path], Any], before: float) -> Path:
        """Return the folder that ``fn(empty folder)`` filled, from disk when this step was finished before."""
        if self._finished(name) is None:
            self._make(name, lambda: self._write_folder(name, fn), before)
        return files.inside(self.path, name)

    def has(self, name: str) -> bool:
        """Whether the step is finished on disk, every file as it was written."""
        return self._on_disk(name) is not None

    def files(self) -> dict[str, str]:
        """``{file: sha256}`` of all steps asked for."""
        return {file: sha for manifest in self.done.values() for file, sha in manifest["files"].items()}

    def check(self) -> None:
        """Raise ``RecordError`` when a file of a finished step is no longer what that step wrote."""
        for name, manifest in self.done.items():
            if not self._is_whole(manifest):
                raise RecordError(f"Files of step {name!r} of {self.label} changed during the run. Run it again.")

    def check_present(self) -> None:
        """Raise ``RecordError`` when a file is gone: a folder that vanished comes back with what is written last."""
        lost = [name for name in self.files() if not self._file(name).is_file()]
        if lost:
            raise RecordError(f"{self._file(lost[0])} vanished during the run: run the same command again.")

    def drop_leftovers(self) -> None:
        """Delete files that belong to no step of this run, such as those of a killed process."""
        keep = set(self.files()) | {f"{MANIFESTS}/{name}.json" for name in self.done} | {"run.json"}
        for path in [p for p in self.path.rglob("*") if p.is_file() or p.is_symlink()]:
            if path.relative_to(self.path).as_posix() not in keep:
                path.unlink()
        for path in sorted((p for p in self.path.rglob("*") if p.is_dir()), reverse=True):
            if not any(path.iterdir()):
                path.rmdir()

    def _finished(self, name: str) -> dict[str, Any] | None:
        if files.plain_name(name) in (MANIFESTS, "run"):
            raise RecordError(f"A step cannot be called {name!r}, because the record itself uses that name: rename it.")
        if name in self.done:
            raise RecordError(f"{self.label} has two steps called {name!r}: rename one.")
        manifest = self._on_disk(name)
        if manifest is not None:
            self.done[name] = manifest
            print(f"{self.label}: step {name} reused ({manifest['seconds']:.1f} s saved)", flush=True)
        return manifest

    def _on_disk(self, name: str) -> dict[str, Any] | None:
        path = self._manifest(name)
        if not path.is_file():
            return None
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):  # damaged: the step is done again
            manifest = json.loads(path.read_text(encoding="utf-8"))
            return manifest if set(manifest) == KEYS and self._is_whole(manifest) else None
        return None

    def _make(self, name: str, write: Callable[[], dict[str, Any]], before: float) -> dict[str, Any]:
        self._manifest(name).unlink(missing_ok=True)
        start = time.perf_counter()
        made = write()
        taken = set(made["files"]) & set(self.files())
        if taken:
            raise RecordError(f"Step {name!r} of {self.label} writes {min(taken)}, as another step does: rename one.")
        seconds = time.perf_counter() - start
        self.spent += seconds
        manifest = {"name": name, **made, "seconds": round(before + seconds, 3)}
        manifest["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
        files.write_json(self._manifest(name), manifest)
        self.done[name] = manifest
        return manifest

    def _manifest(self, name: str) -> Path:
        return files.inside(self.path, MANIFESTS, f"{name}.json")

    def _is_whole(self, manifest: dict[str, Any]) -> bool:
        paths = {self._file(file): sha for file, sha in manifest["files"].items()}
        return all(path.is_file() and files.sha256_file(path) == sha for path, sha in paths.items())

    def _file(self, file: str) -> Path:
        return files.inside(self.path, *file.split("/"))

    def _write_values(self, name: str, value: Value | Mapping[str, Value]) -> dict[str, Any]:
        many = isinstance(value, Mapping) and any(isinstance(item, pd.DataFrame) for item in value.values())
        written = {}
        for key, item in (value if many else {name: value}).items():
            path = files.inside(self.path, f"{key}.{'parquet' if isinstance(item, pd.DataFrame) else 'json'}")
            if path.name in self.files() or path.name == "run.json":
                raise RecordError(f"Step {name!r} of {self.label} writes {path.name}, which is taken: rename it.")
            if isinstance(item, pd.DataFrame):
                _write_table(path, item, f"Table {key!r} of {self.label}")
            else:
                files.write_json(path, plain(item, f"{key} of {self.label}"))
            written[path.name] = files.sha256_file(path)
        return {"kind": "many" if many else "one", "files": written}

    def _read_values(self, manifest: dict[str, Any]) -> Any:
        values = {Path(file).stem: self._read(self._file(file)) for file in manifest["files"]}
        return values if manifest["kind"] == "many" else values[manifest["name"]]

    @staticmethod
    def _read(path: Path) -> Any:
        return pd.read_parquet(path) if path.suffix == ".parquet" else json.loads(path.read_text(encoding="utf-8"))

    def _write_folder(self, name: str, fn: Callable[[Path], Any]) -> dict[str, Any]:
        temporary, final = files.below(self.path, f".{name}.tmp"), files.inside(self.path, name)
        for old in (temporary, final):
            shutil.rmtree(old, ignore_errors=True)
        with disk_errors(final):
            temporary.mkdir(parents=True)
            fn(temporary)
            inside = sorted(path for path in temporary.rglob("*") if path.is_file())
            for path in inside:
                files.inside(temporary, *path.relative_to(temporary).parts)
                if path.suffix not in SUFFIXES:
                    raise RecordError(
                        f"Step {name!r} of {self.label} wrote {path.name}: records hold safetensors, no pickles."
                    )
                with path.open("rb") as written:
                    os.fsync(written.fileno())
            if not inside:
                raise RecordError(f"Step {name!r} of {self.label} wrote no file into its folder.")
            temporary.rename(final)
        names = [f"{name}/{path.relative_to(temporary).as_posix()}" for path in inside]
        return {"kind": "folder", "files": {file: files.sha256_file(self._file(file)) for file in names}}


def _write_table(path: Path, frame: pd.DataFrame, where: str) -> None:
    if frame.index.nlevels > 1 or frame.index.name is not None:
        raise RecordError(f"{where} keeps values in its index {frame.index.names}: call reset_index() first.")
    if not all(isinstance(column, str) for column in frame.columns):
        raise RecordError(f"{where} has the columns {list(frame.columns)}, but names of columns are text.")
    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata()
    floats = [field.name for field in table.schema if pa.types.is_floating(field.type)]
    # A record holds many small tables, so its size is that of statistics, dictionaries and copies of the schema unless
    # they are left out. Numbers of fp32 in 64 bits have a constant byte here and there, which streams of bytes show.
    compact = {"compression": "zstd", "compression_level": 19, "use_dictionary": False, "use_byte_stream_split": floats}
    compact |= {"write_statistics": False, "store_schema": False}
    files.write_atomic(path, lambda temporary: parquet.write_table(table, temporary, **compact))

"""The question that a record answers, which its id is a hash of, and what has changed since."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from helpers.base import files
from helpers.base.errors import DataError, RecordError
from helpers.records.reading import Record, folders, load, records
from helpers.records.study import Study, find_study
from helpers.system import provenance

OUTSIDE = ("~", os.sep)  # how a path begins that lies outside the repository


def question(content: Mapping[str, Any], study: Study) -> dict[str, Any]:
    """The question that a record with ``content`` answers: what its id is a hash of.

    It holds the study and its version, the resolved parameters, and the content of the model, the data and the records
    used. The dtype is that of the loaded model, even where no parameter names it (a shared baseline). Code, packages
    and hardware are not part of it: they are recorded and compared.
    """
    asked = study.asked(content["params"])
    asked.pop("device", None)
    stated = asked.pop("dtype", None)
    return {
        "study": content["study"],
        "version": content["version"],
        "params": asked,
        "model": content["model"]["sha256"],
        "dtype": content["model"].get("dtype") or stated,
        "data": _data_by_name(content["data"]),
        "inputs": dict(sorted(content["inputs"].items())),
    }


def question_hash(content: Mapping[str, Any], study: Study) -> str:
    """The end of a record's id: 12 hex digits of the hash of its question."""
    return files.sha256_json(question(content, study))[:12]


class Changes:
    """What has changed in the questions of records. Data and inputs that many records share are read once.

    ``models`` maps names of base models to their content hash as it is now (``models.fingerprint``); a model that is
    not in it is not checked, because that may need a download.
    """

    def __init__(self, models: Mapping[str, str] | None = None, root: Path | None = None):
        self._models, self._root = dict(models or {}), root
        self._data: dict[tuple[str, ...], str | None] = {}
        self._inputs: dict[str, bool] = {}

    def of(self, record: Record) -> list[str]:
        """Return which of study, version, data, model and inputs changed since ``record`` was made."""
        try:
            study = find_study(record.study, self._root)
        except RecordError:
            return ["study"]
        why = ["version"] if record.version != study.version else []
        why += ["data"] if self._hash_of_data(record.data) != hash_of_data(record.data) else []
        model = self._models.get(record.model["name"])
        why += ["model"] if model is not None and model != record.model["sha256"] else []
        return why + (["inputs"] if any(map(self._input_changed, record.inputs.values())) else [])

    def _hash_of_data(self, data: dict[str, str]) -> str | None:
        names = tuple(data)
        if names not in self._data:
            self._data[names] = _hash_of_data(data)
        return self._data[names]

    def _input_changed(self, ref: str) -> bool:
        if ref not in self._inputs:
            self._inputs[ref] = False  # one that is not here (yet), or names itself, is for verify to find
            with contextlib.suppress(RecordError):
                self._inputs[ref] = bool(self.of(load(ref)))
        return self._inputs[ref]


def criteria_now(record: Record) -> str | None:
    """Hash of the criteria file that ``record`` names, as it is now; ``None`` when it is gone."""
    with contextlib.suppress(RecordError):  # a symbolic link lies there now, and is not followed
        path = files.below(files.ROOT, record.criteria["path"])
        return files.content_hash(path) if path.is_file() else None
    return None


def _hash_of_data(data: dict[str, str]) -> str | None:
    """Hash of ``data`` as it is now, ``None`` when it is gone or a link in its place.

    What lies outside the repository and is not on this machine cannot be checked.
    """
    try:
        paths = {name: _place(name) for name in data}
    except RecordError:
        return None
    away = {name: data[name] for name, path in paths.items() if name.startswith(OUTSIDE) and not files.is_there(path)}
    here = [path for name, path in paths.items() if name not in away]
    return hash_of_data(data_hashes(here) | away) if all(path.is_file() for path in here) else None


def data_elsewhere() -> Iterator[Path]:
    """Yield the data files outside the repository, there or not, that any record names, whatever its status."""
    homes = (files.outputs_root(), files.published_root())
    for notebook in sorted({name for home in homes for name, _ in folders(home) if files.is_plain(name)}):
        for record in records(notebook, status=None):
            yield from (files.expanded(name) for name in record.data if name.startswith(OUTSIDE))


def _place(name: str) -> Path:
    return files.expanded(name) if name.startswith(OUTSIDE) else files.below(files.ROOT, name)


def data_hashes(paths: list[Path]) -> dict[str, str]:
    """``{path: sha256}`` of data files, folders file by file; names relative to the repository, or from ``~``."""
    hashes: dict[str, str] = {}
    for path in map(Path, paths):
        inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        if not inside or not inside[0].is_file():
            raise DataError(f"There is no data file {path}: check the parameter that names it.")
        for file in inside:
            name = provenance.portable(str(file.resolve())).removeprefix("./")
            hashes[name] = files.content_hash(file)
    return dict(sorted(hashes.items()))


def hash_of_data(data: Mapping[str, str]) -> str:
    """Return the hash of data files. Outside the repository only the file name counts, because folders differ."""
    return files.sha256_json(_data_by_name(data))


def _data_by_name(data: Mapping[str, str]) -> list[list[str]]:
    return [[Path(name).name if name.startswith(OUTSIDE) else name, data[name]] for name in sorted(data)]

"""What has changed since a record was made, of all that its question holds, and of the criteria beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from helpers.base import files
from helpers.base.errors import RecordError
from helpers.records.questions import OUTSIDE, data_by_name, data_hashes
from helpers.records.reading import Record, folders, load, records
from helpers.records.study import find_study


class Changes:
    """What has changed in the questions of records. Data and inputs that many records share are read once.

    ``models`` maps names of base models to their content hash as it is now (``models.fingerprint``); a model that is
    not in it is not checked, because that may need a download.
    """

    def __init__(self, models: Mapping[str, str] | None = None, root: Path | None = None):
        self._models, self._root = dict(models or {}), root
        self._data: dict[tuple[str, ...], list[list[str]] | None] = {}
        self._inputs: dict[str, bool] = {}

    def of(self, record: Record) -> list[str]:
        """Return which of study, version, data, model and inputs changed since ``record`` was made."""
        try:
            study = find_study(record.study, self._root)
        except RecordError:
            return ["study"]
        why = ["version"] if record.version != study.version else []
        why += ["data"] if self._named(record.data) != data_by_name(record.data) else []
        model = self._models.get(record.model["name"])
        why += ["model"] if model is not None and model != record.model["sha256"] else []
        return why + (["inputs"] if any(map(self._input_changed, record.inputs.values())) else [])

    def _named(self, data: dict[str, str]) -> list[list[str]] | None:
        names = tuple(data)
        if names not in self._data:
            self._data[names] = _data_now(data)
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


def _data_now(data: dict[str, str]) -> list[list[str]] | None:
    """Names and hashes of ``data`` as it is now, ``None`` when it is gone or a link in its place.

    What lies outside the repository and is not on this machine cannot be checked.
    """
    try:
        paths = {name: _place(name) for name in data}
    except RecordError:
        return None
    away = {name: data[name] for name, path in paths.items() if name.startswith(OUTSIDE) and not files.is_there(path)}
    here = [path for name, path in paths.items() if name not in away]
    return data_by_name(data_hashes(here) | away) if all(path.is_file() for path in here) else None


def data_elsewhere() -> Iterator[Path]:
    """Yield the data files outside the repository, there or not, that any record names, whatever its status."""
    homes = (files.outputs_root(), files.published_root())
    for notebook in sorted({name for home in homes for name, _ in folders(home) if files.is_plain(name)}):
        for record in records(notebook, status=None):
            yield from (files.expanded(name) for name in record.data if name.startswith(OUTSIDE))


def _place(name: str) -> Path:
    return files.expanded(name) if name.startswith(OUTSIDE) else files.below(files.ROOT, name)

"""The question that a record answers, which its id is a hash of."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from helpers.base import files
from helpers.base.errors import DataError
from helpers.records.study import Study
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
        "data": data_by_name(content["data"]),
        "inputs": dict(sorted(content["inputs"].items())),
    }


def question_hash(content: Mapping[str, Any], study: Study) -> str:
    """The end of a record's id: 12 hex digits of the hash of its question."""
    return files.sha256_json(question(content, study))[:12]


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


def data_by_name(data: Mapping[str, str]) -> list[list[str]]:
    """Return name and hash of data files. Outside the repository only the file name counts, because folders differ."""
    return [[Path(name).name if name.startswith(OUTSIDE) else name, data[name]] for name in sorted(data)]

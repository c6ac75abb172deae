"""Where exports go: written whole or not at all, and only over an earlier export of the same kind."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from helpers.base import files, writers
from helpers.base.errors import ExportError

MARK = "claimbook.json"
"""What a folder that we exported says of itself; its ``schema`` begins with the kind of export."""
LARGEST_MARK = 2**26


def schema_of(path: Path) -> str:
    """Return the ``schema`` that a JSON file names, "" where it is not such a file."""
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > LARGEST_MARK:
            return ""
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return ""
    return str(content.get("schema", "")) if isinstance(content, dict) else ""


def write_file(path: Path, text: str, kind: str) -> None:
    """Write the JSON ``text`` of a ``kind`` (``claimbook/claims``); ``ExportError`` where another file lies there."""
    if path.is_dir() or ((path.exists() or path.is_symlink()) and not schema_of(path).startswith(f"{kind}/")):
        raise ExportError(f"{path} is there and was not made by this command. Give another --out.")
    with _writable(path):
        files.write_text(path, text)


def refuse_taken(path: Path) -> None:
    """Raise ``ExportError`` where something lies at ``path``."""
    if path.exists() or path.is_symlink():
        raise ExportError(f"{path} is there already. Delete it, or give another --out.")


@contextlib.contextmanager
def folder(path: Path, schema: str, about: dict[str, Any]) -> Iterator[Path]:
    """Yield an empty folder to fill, which becomes ``path`` at the end, marked with ``schema`` and ``about``.

    ``about`` may be completed inside the block. Raises ``ExportError`` where ``path`` is a file, a link, or a folder
    that holds anything but an earlier export of this kind.
    """
    kind = f"{schema.rpartition('/')[0]}/"
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise ExportError(f"{path} is no folder. Give another --out.")
    if path.is_dir() and any(path.iterdir()) and not schema_of(path / MARK).startswith(kind):
        raise ExportError(f"{path} holds files that this command did not make. Empty it, or give another --out.")
    with _writable(path), files.new_folder(path) as new:
        yield new
        files.write_json(new / MARK, {"schema": schema} | about)
        if path.is_dir():
            aside = writers.temporary_path(path.with_name(f"{path.name}.old"))
            path.rename(aside)
            shutil.rmtree(aside)


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except (NotADirectoryError, FileNotFoundError, FileExistsError) as error:
        raise ExportError(f"{path} cannot be written: {error.filename} is in the way. Give another --out.") from error

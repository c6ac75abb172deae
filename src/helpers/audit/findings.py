"""What a check finds, and where checks look: the folders of published records and the files in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from helpers.base import files
from helpers.records import reading


@dataclass(frozen=True)
class Finding:
    """What is wrong with one field of a record, of the ledger or of a page."""

    where: str
    field: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.field}: {self.what}"


def published_folders() -> Iterator[Path]:
    """Yield the folders of published records, by notebook and id."""
    for notebook, path in sorted(reading.folders(files.published_root())):
        if not notebook.startswith("."):
            yield from sorted(folder for name, folder in reading.folders(path) if not name.startswith("."))


def files_in(folder: Path) -> set[str]:
    """Return all that lies in a folder and below it but folders; a link to one is none."""
    inside = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return {path.relative_to(folder).as_posix() for path in inside}

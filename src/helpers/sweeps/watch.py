"""What the run records say about the cells of a grid, reading each finished record once however often one looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from helpers.base import files
from helpers.base.errors import RecordError
from helpers.cases.case import stale_records
from helpers.claims.declared import Declared, Expected
from helpers.records import reading
from helpers.records.reading import Record


class Watch:
    """``complete``: the record id of each cell (of ``expected``, by position) that has its whole record here, made by
    the present code and data; ``shared``: the records that these used; ``half``: what is there of each begun cell.

    Published records do not count, as they do not answer a run. ``models`` maps names of base models to their content
    hash as it is now.
    """

    def __init__(
        self, notebook: str, expected: Sequence[Expected], models: Mapping[str, str], root: Path | None = None
    ) -> None:
        self.complete: dict[int, str] = {}
        self.shared: set[str] = set()
        self.half: dict[int, Record] = {}
        self.declared = Declared(expected)
        self._home = files.inside(files.outputs_root(), notebook)
        self._models, self._root = models, root
        self._read: set[str] = set()

    def look(self) -> None:
        """Take in what has changed on disk."""
        folders = dict(reading.folders(self._home))
        finished = [name for name in folders if not name.startswith(".") and name not in self._read]
        self._read |= set(finished)
        new = [record for name in finished if (record := self._readable(folders[name]))]
        stale = stale_records(new, self._models, self._root)
        for record in new:
            if record.status == "complete" and record.id not in stale:
                for number in self.declared.met(record):
                    self.complete.setdefault(number, record.id)
                    self.shared.update(record.inputs.values())
        self._look_at_halves(folders)

    def look_at_halves(self) -> None:
        """Take in only what is not finished: quick, however many records there are."""
        self._look_at_halves(dict(reading.folders(self._home)))

    def _look_at_halves(self, folders: Mapping[str, Path]) -> None:
        self.half = {}
        for name, path in folders.items():
            is_half = name.startswith(reading.PARTIAL) and (path / "run.json").is_file()
            if is_half and (record := self._readable(path)):
                self.half |= dict.fromkeys(self.declared.met(record), record)

    def failures(self) -> dict[int, tuple[str, str]]:
        """``{cell: (when, error)}`` of cells whose last attempt ended in an error."""
        failed = {number: record for number, record in self.half.items() if record.status == "failed"}
        return {n: (record.ended, record.error) for n, record in failed.items() if n not in self.complete}

    @staticmethod
    def _readable(path: Path) -> Record | None:
        try:
            return reading.read(path)
        except (FileNotFoundError, RecordError):  # renamed between the listing and now, or refused: it answers no cell
            return None

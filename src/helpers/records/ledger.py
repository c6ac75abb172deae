"""The ledger of what was registered and published: one line an event, each holding the hash of the line before.

    {"event": "published", "at": "2026-11-30T12:00:00+00:00", "kind": "record", "name": "sweep/<id>", "sha256": "...",
     "before": ["<sha256 of the line before>"]}

A line can be added, never changed: a changed line breaks the chain behind it, and a chain that was built anew shows in
git, where the file may only ever have grown. Two branches that both grew are joined by a line with two hashes
(``audit.branches``). The ledger cannot prove that the repository itself was not rewritten. So the head's hash is
printed, to be posted elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from helpers.base import files
from helpers.base.errors import RecordError
from helpers.records.run_record import Place, Sha

Event = Literal["registered", "amended", "published", "derived", "replayed", "withdrawn", "merged"]
Kind = Literal["criteria", "grid", "question", "record", "ledger"]
REASONED = ("amended", "withdrawn")


class Line(BaseModel):
    """One event. ``was`` is the hash that ``amended`` and ``derived`` replace; ``note`` is for a reader."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    event: Event
    at: str
    kind: Kind
    name: Place
    sha256: Sha
    was: Sha | None = None
    reason: str | None = None
    note: str | None = None
    before: Annotated[list[Sha], Field(max_length=2)]

    @model_validator(mode="after")
    def _says_why(self) -> Line:
        if (self.event in REASONED) != (self.reason is not None and bool(self.reason.strip())):
            raise ValueError(f"{self.event} {'needs' if self.event in REASONED else 'takes no'} reason")
        if (self.event in ("amended", "derived")) != (self.was is not None):
            raise ValueError(f"{self.event} {'does not say' if self.was is None else 'may not say'} what it replaces")
        return self


@dataclass(frozen=True)
class Ledger:
    """The lines of a ledger in their order; ``hashes`` are those of the lines' bytes."""

    lines: tuple[Line, ...] = ()
    hashes: tuple[str, ...] = ()

    @property
    def head(self) -> str | None:
        """Hash of the last line; ``None`` before the first."""
        return self.hashes[-1] if self.hashes else None

    def of(self, kind: Kind, name: str) -> list[Line]:
        """Return the events of one object, oldest first."""
        return [line for line in self.lines if (line.kind, line.name) == (kind, name)]

    def standing(self, kind: Kind) -> dict[str, Line]:
        """Return the line that now holds for each object of a kind. Withdrawn objects have none."""
        last: dict[str, Line] = {}
        for line in self.lines:
            if line.kind == kind and line.event == "withdrawn":
                last.pop(line.name, None)
            elif line.kind == kind and line.event != "replayed":
                last[line.name] = line
        return last


def path() -> Path:
    """Where the ledger lies: beside the published records."""
    return files.published_root() / "ledger.jsonl"


def read(text: str | None = None) -> Ledger:
    """Return the ledger (or that of ``text``); ``RecordError`` names the first line that is malformed or unchained."""
    if text is None:
        text = path().read_text(encoding="utf-8") if path().is_file() else ""
    rows = text.split("\n")
    if rows.pop() != "":
        raise RecordError(f"The ledger's line {len(rows) + 1} is cut short. Restore the file from git.")
    lines = tuple(_line(number, row) for number, row in enumerate(rows, start=1))
    hashes = tuple(files.sha256_bytes(row.encode()) for row in rows)
    _check_chain(lines, hashes)
    return Ledger(lines, hashes)


def _line(number: int, row: str) -> Line:
    try:
        content = json.loads(row)
        line = Line.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"
        raise RecordError(f"The ledger's line {number} is not an event ({why}). Restore the file from git.") from None
    except ValueError as error:
        raise RecordError(f"The ledger's line {number} is not JSON ({error}). Restore the file from git.") from None
    if as_row(line) != row:
        raise RecordError(
            f"The ledger's line {number} is not in the form that Claimbook writes. Restore the file from git."
        )
    return line


def as_row(line: Line) -> str:
    """Return ``line`` as the ledger writes it."""
    return json.dumps(line.model_dump(exclude_none=True), ensure_ascii=False, separators=(",", ":"))


def _check_chain(lines: Sequence[Line], hashes: Sequence[str]) -> None:
    """Check that the lines form one chain, joined by merges: each follows earlier lines, and it has one end."""
    open_ends, known = set[str](), set[str]()
    for number, (line, own) in enumerate(zip(lines, hashes, strict=True), start=1):
        wanted = 0 if number == 1 else 2 if line.event == "merged" else 1
        if len(line.before) != wanted or not set(line.before) <= known or len(set(line.before)) != wanted:
            raise RecordError(
                f"The ledger's line {number} does not follow the lines before it: one of them was changed. Restore the "
                "file from git."
            )
        open_ends = (open_ends - set(line.before)) | {own}
        known.add(own)
    if len(open_ends) > 1:
        raise RecordError("The ledger has two ends. Join them with `claimbook ledger merge`.")


def now() -> str:
    """Return the moment as a line of the ledger states it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def append(events: Iterable[Mapping[str, Any]]) -> Ledger:
    """Add events (``event``, ``kind``, ``name``, ``sha256``; where needed ``was``, ``reason``, ``note``), and return
    the ledger as it is then. The file is written whole under its lock, so that a killed process leaves no half line."""
    target = path()
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent.with_name(".ledger.lock")):  # not beside the ledger: git tracks that folder
        text = target.read_text(encoding="utf-8") if target.is_file() else ""
        head = read(text).head
        at = now()
        for event in events:
            row = as_row(Line(**{"at": at, **event, "before": [head] if head else []}))
            text, head = f"{text}{row}\n", files.sha256_bytes(row.encode())
        files.write_text(target, text)
    return read(text)

"""The ledger of what was registered and published: one line an event, each holding the hash of the line before.

    {"event": "published", "at": "2026-11-30T12:00:00+00:00", "kind": "record", "name": "sweep/<id>", "sha256": "...",
     "before": ["<sha256 of the line before>"]}

A line can be added, never changed: a changed line breaks the chain behind it, and a chain that was built anew shows in
git, where the file may only ever have grown. Each line must also be true of what stood before it: what is published
already is not published again, and what is amended says what it replaces. Two branches that both grew are joined by a
line with two hashes (``audit.branches``). The ledger cannot prove that the repository itself was not rewritten. So the
head's hash is printed, to be posted elsewhere.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from helpers.base import files
from helpers.base.errors import RecordError
from helpers.records.run_record import Place, Sha, first_fault

Event = Literal["registered", "amended", "published", "derived", "replayed", "looked", "withdrawn", "merged"]
Kind = Literal[
    "criteria", "grid", "question", "statement", "code", "comparison", "data", "judgement", "record", "ledger"
]
REASONED = ("amended", "withdrawn")
JUDGES: tuple[Kind, ...] = ("criteria", "grid", "question", "statement", "code", "comparison", "data")
JUDGED: tuple[Kind, ...] = (*JUDGES, "judgement")
KINDS: Mapping[Event, tuple[Kind, ...]] = {
    "registered": JUDGED, "amended": JUDGED, "published": ("record",), "derived": ("record", "code"),
    "replayed": ("record",), "looked": ("question",), "withdrawn": ("record",), "merged": ("ledger",),
}  # fmt: skip
Standing = dict[tuple[Kind, str], tuple[int, str | None]]


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
        if self.kind not in KINDS[self.event]:
            raise ValueError(f"{self.event} is no event of a {self.kind}")
        return self

    @property
    def moment(self) -> datetime:
        """When it was written."""
        return datetime.fromisoformat(self.at)

    @field_validator("at")
    @classmethod
    def _is_a_moment(cls, at: str) -> str:
        if datetime.fromisoformat(at).tzinfo is None:
            raise ValueError("has no time zone")
        return at


@dataclass(frozen=True)
class Ledger:
    """The lines of a ledger in their order; ``hashes`` are those of the lines' bytes."""

    lines: tuple[Line, ...] = ()
    hashes: tuple[str, ...] = ()

    @property
    def head(self) -> str | None:
        """Hash of the last line; ``None`` before the first."""
        return self.hashes[-1] if self.hashes else None

    def of(self, kind: Kind, name: str) -> Sequence[Line]:
        """Return the events of one object, oldest first."""
        return self._by_object.get((kind, name), ())

    @functools.cached_property
    def _by_object(self) -> dict[tuple[Kind, str], list[Line]]:
        by_object: dict[tuple[Kind, str], list[Line]] = {}
        for line in self.lines:
            by_object.setdefault((line.kind, line.name), []).append(line)
        return by_object

    def standing(self, kind: Kind) -> dict[str, Line]:
        """Return the line that now holds for each object of a kind. Withdrawn objects have none."""
        last: dict[str, Line] = {}
        for line in self.lines:
            if line.kind == kind and line.event == "withdrawn":
                last.pop(line.name, None)
            elif line.kind == kind and line.event not in ("replayed", "looked"):
                last[line.name] = line
        return last


def path() -> Path:
    """Where the ledger lies: beside the published records."""
    return files.published_root() / "ledger.jsonl"


def read(text: str | None = None) -> Ledger:
    """Return the ledger (or that of ``text``); ``RecordError`` names the first line that is malformed or unchained."""
    if text is not None:
        return _parsed(text)
    place = path()
    return _lying(place, files.stamp(place)) if place.is_file() else _parsed(_text(place))


@functools.lru_cache(maxsize=4)  # every record is checked against it
def _lying(place: Path, stamp: tuple[int, ...]) -> Ledger:
    """Return the ledger at ``place``, read once while its stamp stays."""
    return _parsed(_text(place))


def _text(place: Path) -> str:
    try:
        return place.read_text(encoding="utf-8") if place.is_file() else ""
    except (UnicodeDecodeError, OSError) as error:
        raise RecordError(f"The ledger cannot be read ({error}). Restore the file from git.") from None


@functools.lru_cache(maxsize=4)
def _parsed(text: str) -> Ledger:
    rows = text.split("\n")
    if rows.pop() != "":
        raise RecordError(f"The ledger's line {len(rows) + 1} is cut short. Restore the file from git.")
    lines = tuple(_line(number, row) for number, row in enumerate(rows, start=1))
    hashes = tuple(files.sha256_bytes(row.encode()) for row in rows)
    _check_chain(lines, hashes)
    _check_story(lines, hashes, rows)
    return Ledger(lines, hashes)


def _line(number: int, row: str) -> Line:
    try:
        line = Line.model_validate(json.loads(row))
    except ValidationError as error:
        why = first_fault(error)
        raise RecordError(f"The ledger's line {number} is not an event ({why}). Restore the file from git.") from None
    except (ValueError, RecursionError) as error:
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


def _check_story(lines: Sequence[Line], hashes: Sequence[str], rows: Sequence[str]) -> None:
    """Check that every line is true of what stood before it on its own branch, and comes no earlier."""
    placed = {own: number for number, own in enumerate(hashes)}
    ends: dict[str, Standing] = {}
    text = hashlib.sha256()
    for number, (line, own, row) in enumerate(zip(lines, hashes, rows, strict=True), start=1):
        before = [
            ends.pop(one) if one in ends else _standing_at(lines[: placed[one] + 1], placed) for one in line.before
        ]
        why = _told(line, before, text.hexdigest())
        if any(line.moment < lines[placed[one]].moment for one in line.before):
            why = "is dated before the line that it follows"
        if why:
            raise RecordError(f"The ledger's line {number} cannot be true: {line.event} {line.name} {why}.")
        ends[own] = _after(line, number, before)
        text.update(f"{row}\n".encode())


def _told(line: Line, before: Sequence[Standing], text_hash: str) -> str | None:
    """Return what a line says that cannot be so, given what stood before it."""
    if line.event == "merged":
        return None if line.sha256 == text_hash else "does not hold the hash of the lines before it"
    if line.event == "looked":  # at records, by a page that need not be registered
        return None
    _, sha = (before[0] if before else {}).get((line.kind, line.name), (0, None))
    if line.event in ("registered", "published"):
        return None if sha is None else "stands already"
    if sha is None:
        return "does not stand"
    expected = line.was if line.event in ("amended", "derived") else line.sha256
    return None if expected == sha else "is about another content than the one that stands"


def _after(line: Line, number: int, before: Sequence[Standing]) -> Standing:
    """Return what stands after a line, by kind and name: the last line about it, and its hash (None: withdrawn).

    Where two branches are joined, what one of them changed holds; where both did, the later line.
    """
    standing = before[0] if before else {}
    for other in before[1:]:
        standing |= {key: last for key, last in other.items() if last[0] > standing.get(key, (0, None))[0]}
    if line.event == "withdrawn":
        standing[line.kind, line.name] = (number, None)
    elif line.event not in ("replayed", "looked", "merged"):
        standing[line.kind, line.name] = (number, line.sha256)
    return standing


def _standing_at(lines: Sequence[Line], placed: Mapping[str, int]) -> Standing:
    """Return what stood after the last of ``lines``, from which a second branch grew."""
    wanted, waiting = set[int](), [len(lines) - 1]
    while waiting:
        at = waiting.pop()
        if at not in wanted:
            wanted.add(at)
            waiting += [placed[one] for one in lines[at].before]
    standing: Standing = {}
    for at in sorted(wanted):
        standing = _after(lines[at], at + 1, [standing])
    return standing


def now() -> str:
    """Return the moment as a line of the ledger states it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def append(events: Iterable[Mapping[str, Any]]) -> Ledger:
    """Add events (``event``, ``kind``, ``name``, ``sha256``; where needed ``was``, ``reason``, ``note``), and return
    the ledger as it is then. The file is written whole under its lock, so that a killed process leaves no half line."""
    target = path()
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent.with_name(".ledger.lock")):  # not beside the ledger: git tracks that folder
        text = _text(target)
        book = read(text)
        head = book.head
        at = max(now(), book.lines[-1].at) if head else now()  # a clock that was put back writes no earlier line
        for event in events:
            row = as_row(Line(**{"at": at, **event, "before": [head] if head else []}))
            text, head = f"{text}{row}\n", files.sha256_bytes(row.encode())
        book = read(text)  # what cannot be true is not written
        files.write_text(target, text)
    return book

"""What `claimbook new` leaves for the author to write: lines that hold the word PLACEHOLDER."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

WORD = "PLACEHOLDER"
HEADING = re.compile(r"^#{1,6} +(.*?)\s*(?:\{[^{}]*\})?$")
KEY = re.compile(r"^\s*([a-z_]+):")


@dataclass(frozen=True)
class Placeholder:
    """A line that is still to be written: its file, its number, and the section or the field that it stands for."""

    path: Path
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.what} (line {self.line})" if self.what else f"line {self.line}"


def placeholders(paths: Iterable[Path]) -> Iterator[Placeholder]:
    """Yield the placeholders in those of ``paths`` that are there, from top to bottom."""
    for path in paths:
        if path.is_file():
            yield from _in(path, path.read_text(encoding="utf-8", errors="replace"))


def _in(path: Path, text: str) -> Iterator[Placeholder]:
    section, is_page = None, path.suffix == ".qmd"
    for number, line in enumerate(text.splitlines(), start=1):
        heading = HEADING.match(line) if is_page else None
        section = heading[1] if heading else section
        if WORD in line:
            key = KEY.match(line) if section is None else None
            where = f"the section {section!r}" if section else f"{key[1]!r}" if key else ""
            yield Placeholder(path, number, where)

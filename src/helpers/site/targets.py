"""The render list of ``_quarto.yml``, read as Quarto documents it, so that the fallback renders the same pages."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from helpers.base.errors import ClaimError

INPUTS = (".qmd", ".ipynb", ".md", ".Rmd")
NEVER = ("README.md", "README.qmd", "README.Rmd", "CLAUDE.md", "AGENTS.md")
WILD, UNREAD = "*?[", "{}()\\"


def inputs(root: Path) -> Iterator[str]:
    """Yield every file below ``root`` that Quarto could render, relative to it; hidden folders are left out."""
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        here = Path(folder).relative_to(root)
        yield from ((here / name).as_posix() for name in files if name.endswith(INPUTS))


def targets(render: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return those of ``names`` (paths relative to the project) that a render list selects, sorted.

    A pattern with a wildcard matches at any depth unless it begins with ``./`` or ``/``; a name without one is that
    file or folder of the project. A folder stands for all files in it, and ``!`` takes away what a pattern matches.
    Names that begin with ``.`` or ``_`` and README files are never selected.

    Raises:
        ClaimError: a pattern uses syntax of Quarto that is not read here.
    """
    patterns = [_read(pattern) for pattern in render]
    chosen = []
    for name in names:
        path = PurePosixPath(name).parts
        if name.endswith(INPUTS) and path[-1] not in NEVER and not any(part.startswith((".", "_")) for part in path):
            takes = {keeps for keeps, pattern, in_folder in patterns if _fits(path, pattern, in_folder)}
            chosen += [name] if takes == {True} else []
    return sorted(chosen)


def _read(pattern: str) -> tuple[bool, tuple[str, ...], bool]:
    """Whether a pattern adds, its parts, and whether it also stands for what lies in a folder that it matches."""
    keeps = not pattern.startswith("!")
    text = pattern.removeprefix("!")
    if any(mark in text for mark in UNREAD):
        raise ClaimError(f"The pattern {pattern!r} in the render list uses one of {UNREAD!r}. Write it as plain globs.")
    is_wild = any(mark in text for mark in WILD)
    at_root = text.startswith(("/", "./")) or (keeps and not is_wild)
    parts = PurePosixPath(text.lstrip("/")).parts
    return keeps, parts if at_root else ("**", *parts), keeps or not is_wild or text.endswith("/")


def _fits(path: Sequence[str], pattern: Sequence[str], in_folder: bool) -> bool:
    if not pattern:
        return in_folder or not path
    if pattern[0] == "**":
        return any(_fits(path[start:], pattern[1:], in_folder) for start in range(len(path) + 1))
    return bool(path) and fnmatchcase(path[0], pattern[0]) and _fits(path[1:], pattern[1:], in_folder)

"""What ``claimbook status`` says, kept in ``outputs/.status`` while nothing that it depends on changes.

Nothing else reads it: pages, `lint` and `verify` judge anew. It is kept under the device, inode, size and times of all
records, sources, parameters, pages and data, and of every module that was loaded to make it. When one of them changes,
or did so just now, it is made again. Nothing heavy is imported to recall it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR
from typing import Any

from helpers.base import files
from helpers.base.errors import RecordError
from helpers.system import provenance

FOLDER = ".status"
VARIABLES = ("CLAIMBOOK_", "HF_", "HOME", "PYTHON", "TRANSFORMERS_", "XDG_")
"""How the names of environment variables begin that say where things lie."""

Lines = dict[str, list[str]]


@dataclass(frozen=True)
class Answer:
    """Lines to print, by how they are asked for; files that they depend on besides those of this repository.

    An answer that is not ``settled`` can change without any file: it tells of runs that a process works on.
    """

    lines: Lines
    also: frozenset[str] = frozenset()
    settled: bool = True


def recall(name: str, make: Callable[[], Answer]) -> Lines:
    """Return the lines of the answer ``name``, which ``make`` makes where none is kept or something has changed."""
    begun = time.time_ns()
    path = files.outputs_root() / FOLDER / f"{files.sha256_json(name)[:12]}.json"
    here, kept = _here(), _read(path)
    if kept is not None and kept["stamp"] == _stamp(here, kept["files"], begun):
        return kept["lines"]
    answer = make()
    read = sorted(answer.also | set(_loaded()))
    stamp = _stamp(here, read, begun)
    if stamp is not None and answer.settled and here == _here():
        with contextlib.suppress(RecordError, OSError):  # a disk that is full or read-only keeps nothing
            files.write_json(path, {"stamp": stamp, "files": read, "lines": answer.lines})
    return answer.lines


def _read(path: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        kept = json.loads(path.read_text(encoding="utf-8"))
        texts = [*kept["files"], kept["stamp"], *(line for lines in kept["lines"].values() for line in lines)]
        return kept if all(isinstance(text, str) for text in texts) else None
    return None


def _loaded() -> Iterator[str]:
    """Yield the files of all modules in memory, and the folders in which a module would be looked for."""
    for module in list(sys.modules.values()):
        if isinstance(place := getattr(module, "__file__", None), str):
            yield place
    yield from filter(None, sys.path)


def _here() -> list[tuple[Any, ...]] | None:
    """Return path and stamp of every file of this repository that counts; None where that cannot be said."""
    roots = [files.ROOT / "src", files.NOTEBOOKS, files.PARAMS, files.REPORTS, files.DATA, files.outputs_root()]
    if not files.published_root().is_relative_to(files.outputs_root()):
        roots.append(files.published_root())
    try:
        return [entry for root in roots for entry in _below(str(root))]
    except OSError:  # something goes away meanwhile, or is a link to a folder
        return None


def _stamp(here: list[tuple[Any, ...]] | None, also: Iterable[str], begun: int) -> str | None:
    """Return one stamp of everything that an answer depends on; None where some of it changed around ``begun``."""
    try:
        seen = None if here is None else [*here, *((path, *_times(path)) for path in also)]
    except OSError:
        return None
    if not seen or max(changed for *_, changed in seen) > begun - files.CLOCK_NS:
        return None
    variables = sorted(item for item in os.environ.items() if item[0].startswith(VARIABLES))
    commit = provenance.git("rev-parse", "--verify", "--quiet", "HEAD") or b""
    return files.sha256_json([seen, variables, commit.decode(errors="replace"), sys.version, sys.executable])


def _below(folder: str) -> Iterator[tuple[Any, ...]]:
    """Yield path and stamp of every file below ``folder``. What is hidden directly in it (caches) does not count."""
    ahead = [folder] if Path(folder).is_dir() else []
    while ahead:
        place = ahead.pop()
        with os.scandir(place) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name == "__pycache__" or (place == folder and entry.name.startswith(".")):
                    continue
                if not entry.is_dir():
                    yield entry.path, *_times(entry.path)
                elif entry.is_symlink():
                    raise OSError(f"{entry.path} is a link to a folder")
                else:
                    ahead.append(entry.path)


def _times(path: str) -> tuple[int, ...]:
    """Return the stamp of a file, and when it changed; of a folder, whose entries come and go, when it was written."""
    try:
        about = os.stat(path)  # noqa: PTH116 - ten thousands of them
    except (FileNotFoundError, NotADirectoryError):
        return (0, 0)
    if S_ISDIR(about.st_mode):
        return about.st_dev, about.st_ino, about.st_mtime_ns, 0
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ctime_ns

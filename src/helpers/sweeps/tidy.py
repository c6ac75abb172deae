"""At the start of a sweep or a report: remove what killed processes left in the outputs folder and in the cache.

Files of living processes stay. So does every unfinished run, because the next start resumes it.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from helpers.base import files
from helpers.base.errors import RecordError
from helpers.records.locks import lock_of
from helpers.records.reading import PARTIAL, read
from helpers.records.steps import MANIFESTS
from helpers.system import leftovers

MARK = re.compile(r"\.sweep-[0-9a-f]{12}")
"""The name of the mark of a sweep, which the sweep keeps locked."""


def tidy() -> None:
    """Remove marks of dead sweeps, half-written files, locks of no run, and halves of runs that are complete."""
    outputs, published = files.outputs_root(), files.published_root()
    leftovers.remove_files(outputs)
    for mark in leftovers.entries(outputs):
        if MARK.fullmatch(mark.name) and mark.is_file(follow_symlinks=False):
            with _held(Path(mark.path)) as held:
                if held:
                    Path(mark.path).unlink()
    for root in (outputs, published):
        for entry in leftovers.entries(root):
            if entry.is_dir(follow_symlinks=False) and Path(entry.path) != published:
                leftovers.remove_files(Path(entry.path))
                _tidy_runs(Path(entry.path))
    leftovers.remove_files(files.cache_root() / "hashes")


def _tidy_runs(home: Path) -> None:
    """Tidy the unfinished runs of one notebook, each only while nobody else works on it."""
    names = {entry.name for entry in leftovers.entries(home)}
    locks = {name.removeprefix(".").removesuffix(".lock") for name in names if re.fullmatch(r"\..+\.lock", name)}
    halves = {name.removeprefix(PARTIAL) for name in names if name.startswith(PARTIAL)}
    for run_id in filter(files.is_plain, (locks - halves) | {one for one in halves if _has_garbage(home, one)}):
        half, lock = home / f"{PARTIAL}{run_id}", lock_of(home, run_id)
        with _held(lock) as held:
            if held:
                if _is_complete(home / run_id):
                    shutil.rmtree(half, ignore_errors=True)
                for path in _half_written(half):
                    leftovers.remove(path)
                if not half.exists():
                    lock.unlink(missing_ok=True)


def _has_garbage(home: Path, run_id: str) -> bool:
    half = home / f"{PARTIAL}{run_id}"
    return (home / run_id).exists() or next(_half_written(half), None) is not None


def _half_written(half: Path) -> Iterator[Path]:
    """Yield the files and folders of unfinished steps, which begin again with new ones."""
    for folder in (half, half / MANIFESTS):
        yield from (Path(entry.path) for entry in leftovers.entries(folder) if re.fullmatch(r"\..+\.tmp", entry.name))


def _is_complete(record: Path) -> bool:
    try:
        return read(record).status == "complete"
    except (RecordError, FileNotFoundError):
        return False


@contextlib.contextmanager
def _held(lock: Path) -> Iterator[bool]:
    """Whether nobody held ``lock``, which then is held for the block."""
    file_lock = FileLock(lock)
    try:
        file_lock.acquire(blocking=False)
    except (Timeout, OSError):
        yield False
        return
    try:
        yield True
    finally:
        file_lock.release()

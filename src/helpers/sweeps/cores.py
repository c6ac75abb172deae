"""Cores of its own for each row that works on a machine at the same time.

A kernel gives torch as many threads as cores are free when it starts (`models.choose_threads`). Rows that start
together would all find an idle machine, all take the whole of it, and wait for each other at every operation.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

NAMES = 10


@contextlib.contextmanager
def own_cores(at_once: int) -> Iterator[None]:
    """Keep this thread, and the processes that it starts, to its share of the machine while ``at_once`` rows work.

    Cores are held by locks, which end with their process, so that rows of other sweeps of the same user get others.
    Where all are taken, or where the system knows no such thing, a row may use every core.
    """
    if at_once < 2 or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    with contextlib.ExitStack() as held:
        mine = _hold(sorted(before), max(1, len(before) // at_once), held)
        if mine:
            os.sched_setaffinity(0, mine)
            held.callback(os.sched_setaffinity, 0, before)
        yield


def _hold(cores: list[int], wanted: int, held: contextlib.ExitStack) -> set[int]:
    folder, mine = _own_folder(), set[int]()
    for core in cores:
        if folder and len(mine) < wanted:
            lock = FileLock(folder / f"{core}.lock")
            with contextlib.suppress(Timeout, OSError):  # a full disk, say: then the row may use every core
                lock.acquire(blocking=False)
                held.callback(lock.release)
                mine.add(core)
    return mine


def _own_folder() -> Path | None:
    """The folder of the locks, the same for all rows of this user. Whoever else took its name gets it, and all rows use
    the next; None where there is none."""
    first = Path(tempfile.gettempdir()) / f"claimbook-cores-{os.getuid()}"
    for folder in (first, *(first.with_name(f"{first.name}-{number}") for number in range(1, NAMES))):
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, exist_ok=True)
            entry = folder.lstat()
            if stat.S_ISDIR(entry.st_mode) and entry.st_uid == os.getuid() and os.access(folder, os.W_OK | os.X_OK):
                return folder
    return None

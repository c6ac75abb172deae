"""Cores of its own for each row that works on a machine at the same time.

A kernel gives torch as many threads as cores are free when it starts (`models.choose_threads`). Rows that start
together would all find an idle machine, all take the whole of it, and wait for each other at every operation.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout


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
    folder = Path(tempfile.gettempdir()) / f"claimbook-cores-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    mine: set[int] = set()
    for core in cores:
        if len(mine) < wanted:
            lock = FileLock(folder / f"{core}.lock")
            with contextlib.suppress(Timeout):
                lock.acquire(blocking=False)
                held.callback(lock.release)
                mine.add(core)
    return mine

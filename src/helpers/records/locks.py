"""The lock of a run: a file that a process holds while it works, released by the system however that process dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def lock_of(folder: Path, run_id: str) -> Path:
    """The lock file of a run."""
    return folder / f".{run_id}.lock"


def is_locked(folder: Path, run_id: str) -> bool:
    """Whether a living process works on the run. Nothing is written, so that a read-only folder can be asked too."""
    try:
        handle = os.open(lock_of(folder, run_id), os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # held; or a file system without such locks, where the file itself is the lock
        return True
    finally:
        os.close(handle)
    return False

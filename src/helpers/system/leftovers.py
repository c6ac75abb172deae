"""Temporary files and folders that name their process, so that those of a killed process can be removed.

A temporary folder holds a lock file, which the system releases however its process dies; the name of a temporary file
gives its process (`base.writers`). A file is removed only if it is ours and its process is dead.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from helpers.base import writers

LOCK, UNLOCKED = ".lock", ".lock.new"


def remove_files(folder: Path) -> None:
    """Remove the files and folders in ``folder`` that dead processes left under a `writers.temporary_path`."""
    for entry in entries(folder):
        match = writers.NAMED.fullmatch(entry.name)
        if match and writers.is_dead(match["writer"]):
            remove(Path(entry.path))


@contextlib.contextmanager
def temporary_folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """Yield a temporary folder for the block. First remove those that killed processes left under this prefix."""
    remove_folders(parent or Path(tempfile.gettempdir()), prefix)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True) as name:
        made = Path(name)
        handle = os.open(made / UNLOCKED, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            (made / UNLOCKED).rename(made / LOCK)  # only now may others take it for a dead process's
            yield made
        finally:
            os.close(handle)


def remove_folders(parent: Path, prefix: str) -> None:
    """Remove the folders in ``parent`` that dead processes of this user made by `temporary_folder` and nobody uses."""
    for entry in entries(parent):
        if entry.name.startswith(prefix) and entry.is_dir(follow_symlinks=False):
            made = Path(entry.path)
            with _taken(made / LOCK) as taken:
                if taken and not _in_use(made):
                    remove(made)


@contextlib.contextmanager
def _taken(lock: Path) -> Iterator[bool]:
    """Whether ``lock`` is there and nobody held it; then it is held for the block."""
    try:
        handle = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = True
    except OSError:
        free = False
    try:
        yield free
    finally:
        os.close(handle)


def _in_use(made: Path) -> bool:
    """Whether a process that outlived its parent still has a file of the folder open, or was started with its path."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid == os.getpid():
                continue
            if any(str(made) in argument for argument in process.cmdline()):
                return True
            if any(str(made) in file.path for file in process.open_files()):
                return True
    return False


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of ``folder`` that this user owns; none where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.stat(follow_symlinks=False).st_uid == os.getuid()]
    except OSError:
        return []


def remove(path: Path) -> None:
    """Remove a file or folder, as far as possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()

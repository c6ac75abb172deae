"""Temporary files and folders that say whose they are, so that those of a killed process can be told and removed.

A temporary folder holds a lock file, which the system releases however its process dies. The name of a temporary file
says which process, in which machine, writes it. What cannot be proved to be dead, and ours, stays.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

LOCK, UNLOCKED = ".lock", ".lock.new"
WRITER = r"(?P<writer>[0-9a-f]{12}-\d+-\d+)"
NAMED = re.compile(rf"\..+\.{WRITER}\.tmp", re.DOTALL)


@functools.cache
def _machine() -> str | None:
    """What tells this machine, or this container, from all others; None where a process cannot be identified."""
    try:
        space = Path("/proc/self/ns/pid").stat().st_ino  # numbers of processes mean something within it only
        known = Path("/etc/machine-id").read_text() if Path("/etc/machine-id").is_file() else ""
    except OSError:
        return None
    return hashlib.sha256(f"{known}|{os.uname().nodename}|{space}".encode()).hexdigest()[:12]


def _started(pid: int) -> str:
    """When a process started, in ticks since the machine did: a number of a process may be used again."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def writer() -> str:
    """Return the name of this process: machine, number and start."""
    return f"{_machine()}-{os.getpid()}-{_started(os.getpid())}" if _machine() else f"{os.getpid()}"


def is_dead(name: str) -> bool:
    """Whether the process of that name was one of this machine and is no more."""
    machine, _, rest = name.partition("-")
    pid, _, started = rest.partition("-")
    if machine != _machine() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
        return _started(int(pid)) != started
    except (ProcessLookupError, FileNotFoundError):
        return True
    except OSError:  # of another user, whose processes need not be visible
        return False


def temporary_path(path: Path) -> Path:
    """Return where this process may write before it renames to ``path``: beside it, under a name that says so."""
    return path.with_name(f".{path.name}.{writer()}.tmp")


def remove_files(folder: Path) -> None:
    """Remove what dead processes left right in ``folder`` under names of `temporary_path`, folders included."""
    for entry in entries(folder):
        found = NAMED.fullmatch(entry.name)
        if found and is_dead(found["writer"]):
            remove(Path(entry.path))


@contextlib.contextmanager
def temporary_folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """Yield a temporary folder that goes with the block; those of killed processes with that prefix go first."""
    remove_folders(parent or Path(tempfile.gettempdir()), prefix)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True) as name:
        made = Path(name)
        handle = os.open(made / UNLOCKED, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            (made / UNLOCKED).rename(made / LOCK)  # only now can it be taken for one of a dead process
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
            mentioned = [*process.cmdline(), *(file.path for file in process.open_files())]
            if any(str(made) in text for text in mentioned):
                return True
    return False


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What of this user lies in ``folder``; nothing where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.stat(follow_symlinks=False).st_uid == os.getuid()]
    except OSError:
        return []


def remove(path: Path) -> None:
    """Remove a file or folder; what cannot be removed stays for the next time."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()

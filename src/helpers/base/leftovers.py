"""Temporary files and folders that name their process, so that those of a killed process can be removed.

A temporary folder holds a lock file, which the system releases however its process dies. The name of a temporary file
gives the machine and the process that write it. A file is removed only if it is ours and its process is dead.
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
    """Return an id of this machine or container; None where processes cannot be identified."""
    try:
        space = Path("/proc/self/ns/pid").stat().st_ino  # process ids are unique only within it
        machine = Path("/etc/machine-id").read_text() if Path("/etc/machine-id").is_file() else ""
    except OSError:
        return None
    return hashlib.sha256(f"{machine}|{os.uname().nodename}|{space}".encode()).hexdigest()[:12]


def _started(pid: int) -> str:
    """Return when a process started, in ticks since boot, because process ids are used again."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def writer() -> str:
    """Return the name of this process: machine, number and start."""
    return f"{_machine()}-{os.getpid()}-{_started(os.getpid())}" if _machine() else f"{os.getpid()}"


def is_dead(name: str) -> bool:
    """Whether the process of that name ran on this machine and has ended."""
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
    """Return a path beside ``path`` that names this process: write there, then rename."""
    return path.with_name(f".{path.name}.{writer()}.tmp")


def remove_files(folder: Path) -> None:
    """Remove the files and folders in ``folder`` that dead processes left under a `temporary_path`."""
    for entry in entries(folder):
        match = NAMED.fullmatch(entry.name)
        if match and is_dead(match["writer"]):
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

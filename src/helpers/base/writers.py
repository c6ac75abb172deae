"""Names of temporary files that say which process writes them, so that those of a killed process can be removed."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from pathlib import Path

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

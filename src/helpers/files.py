"""Where things live, how files are written (temporary name, then rename) and how content is hashed."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from helpers.errors import RecordError

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data"
PARAMS = ROOT / "params"
NOTEBOOKS = ROOT / "notebooks"
REPORTS = ROOT / "reports"


def outputs_root() -> Path:
    """Folder of the run records: ``CLAIMBOOK_OUTPUTS`` if set, else ``outputs/`` in the repository.

    Raises:
        RecordError: ``CLAIMBOOK_OUTPUTS`` is no folder but an address.
    """
    named = os.environ.get("CLAIMBOOK_OUTPUTS")
    if named and "://" in named:
        raise RecordError(
            "CLAIMBOOK_OUTPUTS is an address, but records are locked and renamed, which needs a folder: name one, and "
            "give the address to `claimbook sweep` as --store."
        )
    return Path(named or ROOT / "outputs")


def published_root() -> Path:
    """Folder of the records that git tracks and pages are computed from when nothing newer is at hand."""
    return Path(os.environ.get("CLAIMBOOK_PUBLISHED") or ROOT / "outputs" / "published")


def cache_root() -> Path:
    """Folder outside the repository for what is converted once: ``CLAIMBOOK_CACHE`` or ``~/.cache/claimbook``."""
    return Path(os.environ.get("CLAIMBOOK_CACHE") or Path.home() / ".cache" / "claimbook")


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a missing permission into one sentence that names the path."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(path) from error
        if error.errno in (errno.EACCES, errno.EROFS):
            raise RecordError(f"{path} cannot be written: check its permissions, or set CLAIMBOOK_OUTPUTS.") from error
        raise
    except SafetensorError as error:
        # safetensors has an error of its own, with the system's number in the text only.
        if f"os error {errno.ENOSPC}" in str(error):
            raise _full(path) from error
        raise


def _full(path: Path) -> RecordError:
    return RecordError(f"No space is left on the disk of {path}: free some and run the same command again.")


def write_atomic(path: Path, write: Callable[[Path], Any]) -> None:
    """Call ``write(temporary)`` beside ``path``, flush it and rename it: readers see the old file or the new one."""
    path = Path(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            write(temporary)
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON, atomically; NaN and infinity are refused, because missing is not a number."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False, sort_keys=False) + "\n")


def sha256_bytes(content: bytes) -> str:
    """Hex SHA-256 of ``content``."""
    return hashlib.sha256(content).hexdigest()


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of the canonical JSON of ``value`` (sorted keys, no spaces)."""
    return sha256_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())


TEXT = frozenset({".json", ".jsonl", ".yaml", ".yml", ".csv", ".tsv", ".txt", ".md"})


def stamp(path: Path) -> tuple[int, int, int, int, int]:
    """What a hash of the file's content may be cached under, and no less: a copy may keep its size and its times."""
    stat = Path(path).stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def content_hash(path: Path) -> str:
    """Hex SHA-256 of a file's content, cached while its stamp stays; text counts with universal newlines.

    A clone on Windows may hold the same text with other line ends, and the same question must have the same id.
    """
    return _content_hash(str(path), stamp(path))


@functools.lru_cache(maxsize=4096)
def _content_hash(path: str, key: tuple[int, ...]) -> str:
    if Path(path).suffix not in TEXT:
        return sha256_file(Path(path))
    return sha256_bytes(Path(path).read_bytes().replace(b"\r\n", b"\n").replace(b"\r", b"\n"))


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in pieces."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

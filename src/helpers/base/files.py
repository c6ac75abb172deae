"""Where things live, how files are written (temporary name, then rename) and how content is hashed."""

from __future__ import annotations

import codecs
import contextlib
import functools
import hashlib
import itertools
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from helpers.base import writers
from helpers.base.disk import disk_errors
from helpers.base.errors import ClaimbookError, DataError, RecordError

ROOT = Path(__file__).resolve().parents[3]
DATA = ROOT / "data"
PARAMS = ROOT / "params"
NOTEBOOKS = ROOT / "notebooks"
REPORTS = ROOT / "reports"
SCHEMA_LINE = re.compile(rb"\A# yaml-language-server: [ -~]*\n")
"""A comment, printable ASCII to its end, so that nothing that a reader of YAML takes for content can hide in it."""
PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")  # room for ".partial-" and ".lock" in the 255 of a disk


def outputs_root() -> Path:
    """Folder of the run records: ``CLAIMBOOK_OUTPUTS`` if set, else ``outputs/`` in the repository.

    Raises:
        RecordError: ``CLAIMBOOK_OUTPUTS`` is no folder but an address.
    """
    named = os.environ.get("CLAIMBOOK_OUTPUTS")
    if named and "://" in named:
        raise RecordError(
            "CLAIMBOOK_OUTPUTS is an address, but records are locked and renamed, which needs a folder. Name one, "
            "and give the address to `claimbook sweep` as --store."
        )
    return Path(named or ROOT / "outputs")


def published_root() -> Path:
    """Folder of the records that git tracks. Pages use them where there is nothing newer."""
    return Path(os.environ.get("CLAIMBOOK_PUBLISHED") or ROOT / "outputs" / "published")


def expanded(path: str | Path) -> Path:
    """``path`` with a leading ``~`` replaced by the home folder; as it is where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def from_root(path: str | Path) -> Path:
    """Return the place that a parameter names: a relative path starts at the repository's root.

    papermill, a sweep and JupyterLab start their kernels in different folders, and a path must mean the same in each.
    """
    return ROOT / expanded(path)


def read_text(path: Path, error: type[ClaimbookError] = DataError) -> str:
    """Return the text of a file that a person wrote, its line ends as ``\\n``: UTF-8, or UTF-16 that says so itself.

    Raises:
        ClaimbookError: as ``error``; there is no such file, or it is in another encoding, such as Latin-1, and the
            sentence says where.
    """
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as fault:  # a ValueError is a name that no disk can hold
        why = fault.strerror if isinstance(fault, OSError) else fault
        raise error(f"{shown(str(path))} cannot be read ({why}). Correct its name.") from fault
    return as_text(content, path, error)


def as_text(content: bytes, path: Path, error: type[ClaimbookError] = DataError) -> str:
    """Return ``content``, that of ``path``, as `read_text` does."""
    try:
        text = content.decode(encoding_of(content[:4]))
        at = text.find("\0")
    except UnicodeDecodeError as fault:
        text, at = "", fault.start
    if at >= 0:
        line = content[:at].count(b"\n") + 1
        raise error(
            f"{path} is not UTF-8: byte {at + 1:,}, in line {line:,}, is no part of it. Save the file as UTF-8 "
            "(it may be Latin-1, or UTF-16 without a byte-order mark)."
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def encoding_of(head: bytes) -> str:
    """Return the encoding that the first bytes of a text say themselves, UTF-8 where they say none."""
    return next((name for mark, name in _MARKS if head.startswith(mark)), "utf-8")


_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as UTF-16's does, so it comes first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def cache_root() -> Path:
    """Folder outside the repository for what is converted once: ``CLAIMBOOK_CACHE`` or ``~/.cache/claimbook``."""
    return Path(os.environ.get("CLAIMBOOK_CACHE") or Path.home() / ".cache" / "claimbook")


def is_plain(name: object) -> bool:
    """Whether ``name`` is one plain file name: letters, digits, ``_``, ``-`` and ``.``, which does not come first."""
    return isinstance(name, str) and PLAIN.fullmatch(name) is not None


def plain_name(name: object, where: object = "") -> str:
    """Return ``name`` if it is one plain file name; ``RecordError`` otherwise, which says ``where`` it stands."""
    if not isinstance(name, str) or not is_plain(name):
        raise RecordError(
            f"{shown(name)}{f' in {where}' if where else ''} is not a plain file name: use at most 200 letters, "
            "digits, '_', '-' and '.', and no '.' in front."
        )
    return name


def inside(root: Path, *names: object) -> Path:
    """Return ``root / name / ...``; ``RecordError`` unless all names are plain and no symbolic link is on the way.

    Whatever takes a name from a record or a store builds its path here.
    """
    return below(root, "/".join(plain_name(name, root) for name in names))


def is_relative(path: str) -> bool:
    """Whether ``path`` can lie below a folder: printable parts, none of them empty, ``.`` or ``..``, and none too long
    for a disk."""
    longest = 255  # what one name and, four times, a whole path may be
    if not path.isprintable() or len(path) > 4 * longest:
        return False
    return all(part not in ("", ".", "..") and len(part.encode()) <= longest for part in path.split("/"))


def is_there(path: Path) -> bool:
    """Whether ``path`` is a file that can be looked at from here."""
    try:
        return path.is_file()
    except OSError:  # longer than a disk here can name, or in somebody else's folder
        return False


def is_folder(path: Path) -> bool:
    """Whether ``path`` is a folder that can be looked at from here."""
    try:
        return path.is_dir()
    except OSError:  # as in `is_there`
        return False


def below(root: Path, path: str) -> Path:
    """Return ``root / path``; ``RecordError`` unless it lies there, with no symbolic link below ``root`` on the way."""
    if not is_relative(path):
        raise RecordError(f"{shown(path)} is not a path below {root}: delete what names it.")
    place = root
    for part in path.split("/"):
        place = place / part
        if place.is_symlink():
            raise RecordError(f"{place} is a symbolic link: put the folder or file itself in its place.")
    return place


def shown(value: object) -> str:
    """``value`` as an error shows it: quoted, and cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # more digits than Python writes out
        return "a number of thousands of digits"
    except RecursionError:
        return f"a {type(value).__name__} that is nested too deeply"
    return text if len(text) <= 80 else f"{text[:80]}..."


def make_folder(folder: Path) -> None:
    """Make ``folder`` and those above it. Raises ``RecordError`` where one of them cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileNotFoundError, NotADirectoryError, FileExistsError) as error:
        raise RecordError(
            f"{folder} cannot be made: {error.filename} is no folder. Set HOME to one, or CLAIMBOOK_CACHE and "
            "CLAIMBOOK_OUTPUTS."
        ) from error


def write_atomic(path: Path, write: Callable[[Path], Any]) -> None:
    """Call ``write(temporary)`` beside ``path``, flush it and rename it: readers see the old file or the new one."""
    path = Path(path)
    with disk_errors(path):
        make_folder(path.parent)
        temporary = writers.temporary_path(path)
        try:
            write(temporary)
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.replace(path)
        except FileNotFoundError as error:
            raise RecordError(
                f"{path.parent} vanished while {path.name} was written: run the same command again when it is back."
            ) from error
        finally:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                temporary.unlink()


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a folder beside ``path`` to fill, which becomes ``path`` at the end: readers see nothing or all of it.

    What is in the way of ``path`` is an ``OSError``; after any error nothing is left of the folder.
    """
    with disk_errors(path):
        temporary = writers.temporary_path(path)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as JSON, atomically; NaN and infinity are refused, because missing is not a number."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False, sort_keys=False) + "\n")


def write_record(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``run.json``: as ``write_json``, without its spaces and with a line an entry, so that it is small and
    can still be read and compared line by line."""
    write_text(path, record_text(content))


def record_text(content: Mapping[str, Any]) -> str:
    """Return ``content`` as `write_record` writes it."""
    return _lines(content) + "\n"


def _lines(value: Any) -> str:
    """JSON of ``value``; a mapping that holds mappings has a line an entry, anything else is one line."""
    if isinstance(value, Mapping) and any(isinstance(item, Mapping) for item in value.values()):
        return "{\n" + ",\n".join(f"{json.dumps(key)}:{_lines(item)}" for key, item in value.items()) + "\n}"
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def sha256_bytes(content: bytes) -> str:
    """Hex SHA-256 of ``content``."""
    return hashlib.sha256(content).hexdigest()


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of the canonical JSON of ``value`` (sorted keys, no spaces)."""
    return sha256_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())


TEXT = frozenset({".json", ".jsonl", ".yaml", ".yml", ".csv", ".tsv", ".txt", ".md"})
CLOCK_NS = 2_000_000_000
"""The coarsest clock of a file system that is in use (FAT): a file may change twice within it and keep its times."""
_fresh = itertools.count(1)


def stamp(path: Path) -> tuple[int, ...]:
    """Return the key under which a hash of the file's content may be cached. Size and times alone are not enough.

    Its last number is 0, or else the file has changed just now and may change again under the same times. Such a stamp
    equals no other.
    """
    stat = Path(path).stat()
    is_fresh = time.time_ns() - stat.st_ctime_ns < CLOCK_NS
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, next(_fresh) if is_fresh else 0


def content_hash(path: Path) -> str:
    """Hex SHA-256 of a file's content, cached while its stamp stays; text counts with universal newlines.

    A clone on Windows may hold the same text with other line ends, and the same question must have the same id. Nor
    does the first line of a YAML file count where it names a schema for editors.
    """
    return _content_hash(str(path), stamp(path))


@functools.lru_cache(maxsize=4096)
def _content_hash(path: str, key: tuple[int, ...]) -> str:
    if Path(path).suffix not in TEXT:
        return _sha256_kept(path, key)
    return text_hash(Path(path).read_bytes(), Path(path).suffix)


def text_hash(content: bytes, suffix: str) -> str:
    """Hex SHA-256 of the content of a text file, as `content_hash` gives it."""
    content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return sha256_bytes(SCHEMA_LINE.sub(b"", content) if suffix in (".yaml", ".yml") else content)


def sha256_kept(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, cached while its stamp stays: for a file that many records name."""
    return _sha256_kept(str(path), stamp(path))


@functools.lru_cache(maxsize=4096)
def _sha256_kept(path: str, key: tuple[int, ...]) -> str:
    return sha256_file(Path(path))


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in pieces."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

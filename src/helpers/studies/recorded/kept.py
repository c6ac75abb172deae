"""The files that a command left: those that are kept, and the metrics in one of them."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from helpers.base.errors import DataError
from helpers.base.files import read_text, shown
from helpers.records.steps import SUFFIXES

MOST_BYTES, MOST_FILES = 2**30, 1_000
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,79}")
LARGEST = 2**63 - 1
MOST_METRICS = 1_000


def check_pattern(pattern: str) -> None:
    """Raise ``DataError`` for a pattern that could lead out of the folder in which the command runs."""
    path = PurePosixPath(pattern)
    if not pattern or path.is_absolute() or ".." in path.parts or pattern.startswith("~"):
        raise DataError(f"--keep {shown(pattern)} leads out of this folder. Name files below it, such as 'out/*.json'.")


def matches(patterns: Sequence[str], folder: Path) -> list[Path]:
    """Return the files that ``patterns`` name below ``folder``, as paths relative to it.

    Raises ``DataError`` for a pattern without a match, a file that lies elsewhere or is of a kind that no record
    holds, and for more than can be kept.
    """
    found: dict[Path, int] = {}
    for pattern in patterns:
        check_pattern(pattern)
        own = [path for path in sorted(folder.glob(pattern)) if not path.is_dir()]
        if not own:
            raise DataError(f"--keep {shown(pattern)} matches no file. Name one that the command leaves.")
        for path in own:
            if not path.resolve().is_relative_to(folder.resolve()):
                raise DataError(f"--keep {shown(pattern)} matches a link out of this folder. Name the file itself.")
            if not path.is_file():
                raise DataError(f"--keep {shown(pattern)} matches {shown(path.name)}, which is no file. Name files.")
            if path.suffix not in SUFFIXES:
                known = ", ".join(sorted(SUFFIXES))
                raise DataError(f"--keep matches {shown(path.name)}, and a record holds {known} only. Leave it out.")
            found[path.relative_to(folder)] = path.stat().st_size
    if len(found) > MOST_FILES or sum(found.values()) > MOST_BYTES:
        size = f"{len(found):,} files of {sum(found.values()) / 2**20:,.0f} MiB"
        raise DataError(f"--keep matches {size}, and a record holds {MOST_FILES:,} and 1,024 MiB. Name fewer.")
    return list(found)


def copy(paths: Sequence[Path], folder: Path, into: Path) -> None:
    """Copy files of ``folder`` to the same places below ``into``."""
    for path in paths:
        (into / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / path, into / path)


def stamp(path: Path) -> tuple[int, ...] | None:
    """Return what changes when a file is written, None where there is none."""
    if not path.is_file():
        return None
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def metrics(path: Path) -> dict[str, dict[str, Any]]:
    """Return the metrics in a JSON file, one number a name; ``DataError`` for anything that is no such mapping."""
    if not path.is_file():
        raise DataError(f"--metrics {path.name} was not written by the command. Correct its name.")
    try:
        content = json.loads(read_text(path), object_pairs_hook=_once, parse_constant=float)
    except (ValueError, RecursionError) as error:
        raise DataError(f"--metrics {path.name} is no JSON ({error}). Write one object of names and numbers.") from None
    if not isinstance(content, _Pairs) or not content.pairs:
        raise DataError(f'--metrics {path.name} holds no names with numbers. Write an object such as {{"loss": 0.5}}.')
    if content.twice is not None:
        raise DataError(
            f"--metrics {path.name} names {shown(content.twice)} twice. Give each metric a name of its own."
        )
    if len(content.pairs) > MOST_METRICS:
        said = f"{len(content.pairs):,} names, and a record holds {MOST_METRICS:,} metrics"
        raise DataError(f"--metrics {path.name} has {said}. Write those that a claim needs, and --keep the rest.")
    return {name: _metric(name, value, path.name) for name, value in content.pairs}


class _Pairs:
    """A JSON object with its keys in order, so that one that is written twice can be seen."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self.pairs = pairs
        counts = Counter(name for name, _ in pairs)
        self.twice = next((name for name, count in counts.items() if count > 1), None)


def _once(pairs: list[tuple[str, Any]]) -> _Pairs:
    return _Pairs(pairs)


def _metric(name: str, value: Any, where: str) -> dict[str, Any]:
    if not NAME.fullmatch(name):
        plain = re.sub(r"[^A-Za-z0-9_.]+", "_", name).strip("_.")[:80] or "metric"
        raise DataError(f"--metrics {where} names {shown(name)}, which criteria cannot write. Call it {plain!r}.")
    if isinstance(value, _Pairs | list):
        raise DataError(f"--metrics {where} has {shown(name)} nested, and a metric is one number. Write it flat.")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"--metrics {where} has {shown(name)} as {shown(value)}, which is no number. Leave it out.")
    if not abs(value) <= (LARGEST if isinstance(value, int) else sys.float_info.max):
        raise DataError(f"--metrics {where} has {shown(name)} as {shown(value)}, which is not finite. Leave it out.")
    return {"value": value, "unit": "", "n": 1}

"""Files with one thing a line, such as training rows, chats and logs, read a line at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from helpers.base.errors import ClaimbookError, DataError
from helpers.base.files import encoding_of, read_text


def read_lines(path: Path, error: type[ClaimbookError] = DataError) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line, as `read_text` reads them, with one line in memory at a time."""
    with Path(path).open("rb") as file:
        encoding = encoding_of(file.read(4))
    try:
        with Path(path).open(encoding=encoding) as lines:
            for number, line in enumerate(lines, 1):
                if "\0" in line:
                    break
                yield number, line.rstrip("\n")
            else:
                return
    except UnicodeDecodeError:
        pass
    read_text(path, error)  # says where


def read_jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield number and value of each line of a .jsonl file that is not empty; ``DataError`` names a damaged line."""
    for number, line in read_lines(path):
        if line.strip():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"Line {number} of {path} is no JSON ({error}): correct it.") from error
            yield number, value

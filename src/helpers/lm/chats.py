"""Conversations to train on, as TRL takes them: rows of a JSONL or Parquet file, of a folder, or of a hub's data set.

A row holds ``messages``, or ``prompt`` and ``completion``, or ``conversations`` (``from`` and ``value``): lists of
messages all. Rows are read one at a time, and the first that is malformed ends the reading with a sentence.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers.base.errors import DataError, nearest
from helpers.base.files import expanded, shown
from helpers.lm import hub
from helpers.lm.lines import read_jsonl, read_lines

SHAPES = (("messages",), ("prompt", "completion"), ("conversations",))
_READ_AT_ONCE = 256


@dataclass(frozen=True)
class Chat:
    """One row: its messages, and how many of them are its ``prompt`` (None where the row makes no difference).

    ``options`` are the row's own arguments of the template: ``tools`` and ``chat_template_kwargs``.
    """

    where: str
    messages: list[dict[str, Any]]
    prompt: int | None = None
    options: dict[str, Any] = field(default_factory=dict)


def find_files(dataset: str, split: str) -> list[Path]:
    """Return the files of ``dataset``: a file, or those of a folder or hub id (``owner/name@revision``) by ``split``.

    A file belongs to a split whose name is a part of its path. Raises ``DataError`` where there are none, or where they
    lie in several folders.
    """
    path = expanded(dataset)
    if path.is_file():
        return [path]
    if path.is_dir():
        return _chosen(path, dataset, split)
    repo, revision = hub.split_revision(dataset)
    if repo.count("/") != 1 or repo.startswith((".", "/", "~")) or path.suffix in (".jsonl", ".json", ".parquet"):
        raise DataError(f"There is no file or folder {dataset}, and a hub id is written owner/name. Check the path.")
    patterns = tuple(f"{folder}*{split}*.{kind}" for folder in ("", "*/") for kind in ("jsonl", "parquet"))
    found = hub.snapshot(repo, revision, patterns, "dataset")
    return _chosen(found.folder, f"{repo} at {found.commit}", split)


def _chosen(folder: Path, name: str, split: str) -> list[Path]:
    files = sorted(path for kind in ("jsonl", "parquet") for path in folder.rglob(f"*.{kind}"))
    chosen = [path for path in files if split in path.relative_to(folder).as_posix()]
    if not chosen:
        there = [path.relative_to(folder).as_posix() for path in files]
        raise DataError(
            f"{name} has no .jsonl or .parquet file named {split!r}{nearest(split, there) if there else ''}"
        )
    folders = sorted({path.parent.relative_to(folder).as_posix() for path in chosen})
    if len(folders) > 1:
        raise DataError(
            f"{name} holds {split!r} in {', '.join(folders)}. Name one, such as --split {folders[0]}/{split}."
        )
    return chosen


def count_rows(files: list[Path]) -> int:
    """Return how many rows ``files`` hold, without reading what is in them."""
    total = 0
    for path in files:
        if path.suffix == ".parquet":
            total += _parquet(path).metadata.num_rows
        else:
            total += sum(1 for _, line in read_lines(path) if line.strip())
    return total


def read_chats(files: list[Path]) -> Iterator[Chat]:
    """Yield the conversations of ``files``. Raises ``DataError`` for a row that is none, or of another shape than the
    first, and for files without rows."""
    shape: tuple[str, ...] | None = None
    for path in files:
        for where, row in _rows(path):
            found = _shape(row, where)
            if shape not in (None, found):
                raise DataError(f"{where} holds {' and '.join(found)}, the rows before it {' and '.join(shape or ())}. "
                                "Give all rows the same keys.")  # fmt: skip
            shape = found
            yield _chat(row, found, where)
    if shape is None:
        raise DataError(f"{files[0]} is empty. Give a file with a conversation a line.")


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the rows of one file, each with the place where it stands."""
    if path.suffix != ".parquet":
        yield from ((f"{path} line {number}", row) for number, row in read_jsonl(path))
        return
    batches = _parquet(path).iter_batches(batch_size=_READ_AT_ONCE)
    for number, row in enumerate((row for batch in batches for row in batch.to_pylist()), start=1):
        yield f"{path} row {number}", row


def _parquet(path: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is no whole Parquet file. Fetch it again.") from error


def _shape(row: Any, where: str) -> tuple[str, ...]:
    if not isinstance(row, dict):
        raise DataError(f'{where} is no JSON object. Write {{"messages": [...]}}.')
    for shape in SHAPES:
        if all(row.get(key) is not None for key in shape):
            return shape
    raise DataError(f"{where} has no messages (its keys: {', '.join(map(shown, row)) or 'none'}). Rows need messages, "
                    "prompt and completion, or conversations.")  # fmt: skip


def _chat(row: dict[str, Any], shape: tuple[str, ...], where: str) -> Chat:
    parts = [_messages(row[key], f"{key} of {where}") for key in shape]
    if not (messages := [message for part in parts for message in part]) or not parts[-1]:
        raise DataError(f"{where} has an empty {shape[-1]}. Leave the row out.")
    tools = row.get("tools")
    try:
        options = {"tools": json.loads(tools) if isinstance(tools, str) else tools}  # as a string in many Parquet files
    except json.JSONDecodeError as error:
        raise DataError(f"tools of {where} is a string that is not JSON ({shown(tools)}). Write a list.") from error
    more = row.get("chat_template_kwargs") or {}
    if not isinstance(more, dict):
        raise DataError(f"chat_template_kwargs of {where} is {shown(more)}. Write an object.")
    options |= more
    return Chat(where, messages, len(parts[0]) if len(shape) == 2 else None, options)


def _messages(value: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise DataError(f'{where} is {shown(value)}. Write a list of messages, [{{"role": ..., "content": ...}}].')
    return [_message(message, f"message {number} of {where}") for number, message in enumerate(value, start=1)]


def _message(message: Any, where: str) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise DataError(f'{where} is {shown(message)}, not an object. Write {{"role": ..., "content": ...}}.')
    renamed = {"from": "role", "value": "content"}
    message = {renamed.get(key, key): value for key, value in message.items()}
    if not isinstance(message.get("role"), str):
        raise DataError(f"{where} has no role (its keys: {', '.join(map(shown, message)) or 'none'}). Name who speaks.")
    content = message.get("content")
    if content is None and not message.get("tool_calls"):
        raise DataError(f"{where} has neither content nor tool_calls. Give it a content, empty if need be.")
    are_parts = isinstance(content, list) and all(isinstance(part, dict) for part in content)
    if not (content is None or isinstance(content, str) or are_parts):
        raise DataError(f"{where} has the content {shown(content)}. Write text, or a list of parts with a type.")
    return message

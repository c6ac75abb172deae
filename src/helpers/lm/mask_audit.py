"""Read a chat data set with a tokenizer, row by row, and count what each mask supervises."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from tqdm.auto import tqdm

from helpers.base.errors import DataError
from helpers.lm.chat_rows import rows
from helpers.lm.chat_template import Template, Written
from helpers.lm.chats import Chat, count_rows, read_chats
from helpers.lm.loss_masks import Mask, Report, count
from helpers.lm.tokenizer_files import load_tokenizer, stop_tokens


@dataclass(frozen=True)
class Audit:
    """What was read and counted; ``refused`` are the sentences of rows that the template does not write."""

    template: Template
    stops: frozenset[int]
    report: Report
    refused: list[str] = field(default_factory=list)


def audit(
    files: list[Path],
    folder: Path,
    masks: Mapping[str, Mask],
    *,
    template: str | None = None,
    max_length: int | None = None,
    limit: int | None = None,
) -> Audit:
    """Count over the first ``limit`` rows of ``files`` (None: all) with the tokenizer in ``folder``.

    Raises ``DataError`` for a malformed row, and where the template refuses every row.
    """
    tokenizer = load_tokenizer(folder)
    written, stops = Template(tokenizer, template), stop_tokens(tokenizer, folder)
    total = count_rows(files)
    refused: list[str] = []
    bar = tqdm(islice(read_chats(files), limit), total=min(total, limit or total), desc="rows", unit="row", leave=False)
    with bar as chats:
        some = rows(_written(chats, written, refused), written, stops)
        report = count(some, masks, written, max_length)
    if not report.rows:
        raise DataError(refused[0])
    return Audit(written, stops, report, refused)


def _written(chats: Iterable[Chat], template: Template, refused: list[str]) -> Iterator[Written]:
    for chat in chats:
        try:
            yield template.write(chat)
        except DataError as error:
            refused.append(str(error))

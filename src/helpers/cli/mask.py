"""The command ``claimbook mask``: which tokens of a chat data set carry loss, and whether the stop tokens do."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from helpers.base.errors import ParameterError, nearest

if TYPE_CHECKING:
    from helpers.lm.chat_rows import Row
    from helpers.lm.loss_masks import Mask
    from helpers.lm.mask_audit import Audit
    from helpers.lm.mask_findings import Finding
    from helpers.show.mask_page import ShownRow
    from helpers.studies.marker.params import Tail

TAILS = ("newline", "end_of_turn", "separator_and_end", "whole_turn")
SHOWN = ("assistant", "all", "trl", "newline", "end_of_turn", "whole_turn")
JUDGED = ("trl", "assistant")


def mask(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="conversations: a .jsonl or .parquet file, a folder or a hub id")
    ],
    model: Annotated[str, typer.Argument(metavar="MODEL", help="whose tokenizer: a folder, a hub id or a preset")],
    template: Annotated[
        str | None, typer.Option(help="the chat template for training: a file, or a name that the tokenizer has")
    ] = None,
    masks: Annotated[
        list[str] | None,
        typer.Option(
            "--mask",
            help="which must supervise stop tokens: assistant, all, trl, a tail of the marker study, or a number of "
            "last tokens. May be repeated; default: trl and assistant",
        ),
    ] = None,
    max_length: Annotated[int, typer.Option(min=0, help="where rows are cut; 0: nowhere")] = 1024,
    allow: Annotated[float, typer.Option(min=0, max=1, help="share of answers that may lack their stop token")] = 0,
    split: Annotated[str, typer.Option(help="in a folder or on a hub: files whose path holds this")] = "train",
    limit: Annotated[int | None, typer.Option("--rows", min=1, help="read only so many rows")] = None,
    html: Annotated[Path, typer.Option(help="where to write ten rows, coloured")] = Path("mask.html"),
) -> None:
    """Show which tokens of a chat data set carry loss.

    The exit code is 1 where the stop token of an answer carries none: such a model does not learn to stop.

    Example: claimbook mask rows.jsonl smollm2 --mask assistant
    """
    from helpers.base.files import write_text
    from helpers.lm.chats import find_files
    from helpers.lm.tokenizer_files import tokenizer_folder

    judged = tuple(dict.fromkeys(masks or JUDGED))
    _check(judged)
    files, folder = find_files(dataset, split), tokenizer_folder(model)
    _spare_torch()
    from helpers.lm.mask_audit import audit
    from helpers.lm.mask_findings import findings

    functions = _masks(judged)
    done = audit(files, folder, functions, template=template, max_length=max_length or None, limit=limit)
    said = findings(done, judged, allow)
    head, lines = _table(done)
    title = f"{dataset} with {model}"
    typer.echo("\n".join([title, _counts(done), "", *_aligned([head, *lines]), "", *map(_sentence, said)]))
    write_text(html, _page(title, done, functions, (head, lines), said))
    typer.echo(f"{len(done.report.shown)} rows are in {html}, coloured.")
    if any(one.fatal for one in said):
        raise typer.Exit(1)


def _check(judged: Sequence[str]) -> None:
    known = {*SHOWN, *TAILS}
    for name in judged:
        if name not in known and not (name.isascii() and name.isdigit() and int(name) > 0):
            raise ParameterError(f"There is no mask {name!r}{nearest(name, known)}; or a number above 0.")


def _spare_torch() -> None:
    """Have transformers imported as if torch were not installed: no tokenizer needs it, and it takes seconds."""
    if "torch" not in sys.modules and "transformers" not in sys.modules:
        os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"  # it would tell that there is no torch
        sys.modules["torch"] = None  # type: ignore[assignment]  # what Python documents for a module not to be imported


def _masks(judged: Sequence[str]) -> dict[str, Mask]:
    from helpers.lm.loss_masks import MASKS

    return {name: MASKS[name] if name in MASKS else _tail(name) for name in dict.fromkeys([*SHOWN, *judged])}


def _tail(name: str) -> Mask:
    """The mask of a tail of the marker study, whose rows are a prompt and the answer that ends them."""
    from helpers.studies.marker import rows

    tail: Tail = name if name in TAILS else int(name)  # type: ignore[assignment]  # _check has seen it

    def positions(row: Row) -> Iterable[int] | None:
        if not row.answers or row.answers[-1] is not row.turns[-1]:
            return None
        last = row.answers[-1]
        try:
            return rows.supervised(rows.Row("", "", 0, row.ids, (last.begin, last.text[1]), None), tail)
        except ParameterError:  # no newline behind the end of turn
            return None

    return positions


def _counts(done: Audit) -> str:
    report = done.report
    names = ", ".join(done.template.tokenizer.convert_ids_to_tokens(sorted(done.stops)))
    cut = f", cut at {report.max_length:,}" if report.max_length else ""
    return f"{report.rows:,} rows, {report.answers:,} answers{cut}; generation stops at {names or 'nothing'}"


def _table(done: Audit) -> tuple[list[str], list[list[str]]]:
    """Head and lines: tokens in the data, then those with loss under each mask, by role; and answers that stop."""
    from helpers.lm.chat_rows import FRAME, STOP

    report = done.report
    usual = ("system", "user", "assistant", "tool")
    roles = [*(role for role in usual if role in report.roles), *(role for role in report.roles if role not in usual)]
    kinds = [*roles, STOP, FRAME]
    lines = [["in the data", *(f"{report.tokens[kind]:,}" for kind in kinds), f"{report.tokens.total():,}", "-"]]
    for name, one in report.masks.items():
        numbers = [one.tokens[kind] for kind in kinds]
        cells = [f"{number:,}" for number in [*numbers, one.tokens.total(), one.stopped]]
        lines.append([name, *(cells if one.unmade < report.rows else ["-"] * len(cells))])
    return ["tokens with loss", *kinds, "total", "stops learnt"], lines


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    first, *widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join([name.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))])
        for name, *cells in lines
    ]


def _sentence(one: Finding) -> str:
    return f"{'FAULT' if one.fatal else 'note'}: {one.text}"


def _page(title: str, done: Audit, masks: dict[str, Mask], table: tuple[list[str], list[list[str]]],
          said: Sequence[Finding]) -> str:  # fmt: skip
    from helpers.show.mask_page import page

    rows = [_shown(row, masks, done.report.max_length) for row in done.report.shown]
    return page(title, _counts(done), list(masks), table, [(one.text, one.fatal) for one in said], rows)


def _shown(row: Row, masks: dict[str, Mask], max_length: int | None) -> ShownRow:
    from helpers.lm.chat_rows import STOP
    from helpers.show.mask_page import Piece, ShownRow

    numbers, names = row.kinds
    with_loss = {name: {at for at in found if 0 < at < (max_length or len(row.ids))}
                 for name, one in masks.items() if (found := one(row)) is not None}  # fmt: skip
    pieces, text, done = [], row.written.text, 0
    for at, (begin, end) in enumerate(row.offsets):
        kind = names[numbers[at]]
        on = frozenset(name for name, positions in with_loss.items() if at in positions)
        pieces.append(Piece(text[min(done, begin) : end] if end > done else "", kind, on, kind == STOP))
        done = max(done, end)
    return ShownRow(row.written.chat.where, pieces)

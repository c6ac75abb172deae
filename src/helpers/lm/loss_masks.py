"""Which tokens of a row carry loss under the usual choices, and what becomes of the stop tokens.

assistant  TRL's ``assistant_only_loss=True``: the ``{% generation %}`` blocks of the template. Where it has none, each
           answer from behind the generation prompt to its stop token.
all        every token
trl        the defaults of TRL's SFTConfig: every token of ``messages``, the completion of ``prompt`` and ``completion``

The first token of a row never carries loss: nothing comes before it that could predict it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from helpers.lm.chat_rows import Row, special_tokens
from helpers.lm.chat_template import Template

Mask = Callable[[Row], Iterable[int] | None]
"""The positions of a row that carry loss; None for a row that the mask is not made for."""

PACKED_TOGETHER = 1000  # rows, the batch size of `datasets.map`, by which TRL packs
_KEPT = 10


def assistant(row: Row) -> Iterable[int]:
    """Return the positions under ``assistant_only_loss=True``; of a row with a prompt, those of its completion."""
    if row.blocks is None:
        return [at for turn in row.answers for at in range(turn.begin, turn.end)]
    return [int(at) for at in np.flatnonzero(row.blocks) if at >= (row.completion or 0)]


def everything(row: Row) -> Iterable[int]:
    """Return all positions."""
    return range(len(row.ids))


def trl(row: Row) -> Iterable[int]:
    """Return the positions under the defaults of SFTConfig, truncation left aside."""
    return range(row.completion or 0, len(row.ids))


MASKS: dict[str, Mask] = {"assistant": assistant, "all": everything, "trl": trl}


@dataclass
class MaskCount:
    """What one mask does over all rows, cut to the greatest length.

    ``tokens`` counts tokens with loss by the role of their message, `STOP` or `FRAME`. Answers are ``stopped`` where
    their stop token carries loss, and ``open`` where only their text does. ``bare`` rows carry no loss, ``unmade`` are
    those that the mask is not made for, and ``cut_*`` is what the cutting takes.
    """

    tokens: Counter[str] = field(default_factory=Counter)
    stopped: int = 0
    open: int = 0
    bare: int = 0
    unmade: int = 0
    cut_tokens: int = 0
    cut_bare: int = 0
    first_open: str = ""
    first_bare: str = ""


@dataclass
class Packing:
    """What packing takes: answers that do not lie in one pack with the end of their prompt, and ``heads``, tokens with
    loss (under `trl`) that lose it as the first of a piece."""

    cut_answers: int = 0
    heads: int = 0


@dataclass
class Report:
    """Counts over all rows, and a few rows to look at: those with an open answer first.

    ``tokens`` by role, `STOP` or `FRAME`; ``stops``, the stop tokens behind answers; ``closings``, the special tokens
    behind answers without one; ``prompts``, how training and generation agree; ``roles``, messages; ``dropped`` and
    ``changed``, those that the template leaves out or writes otherwise than given; ``long``, rows that are cut;
    ``doubled``, rows that begin with BOS twice; ``inner``, messages with special tokens in their text; ``printed``,
    lists of parts written as Python. ``first`` names the first row of a kind.
    """

    max_length: int | None
    masks: dict[str, MaskCount]
    tokens: Counter[str] = field(default_factory=Counter)
    stops: Counter[int] = field(default_factory=Counter)
    closings: Counter[int | None] = field(default_factory=Counter)
    prompts: Counter[str] = field(default_factory=Counter)
    roles: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    answers: int = 0
    long: int = 0
    cut_tokens: int = 0
    cut_stops: int = 0
    doubled: int = 0
    inner: int = 0
    printed: int = 0
    split: Packing = field(default_factory=Packing)
    wrapped: Packing = field(default_factory=Packing)
    first: dict[str, str] = field(default_factory=dict)
    shown: list[Row] = field(default_factory=list)

    def note(self, what: str, row: Row) -> None:
        """Remember ``row`` where it is the first of its kind."""
        self.first.setdefault(what, row.written.chat.where)


def count(rows: Iterable[Row], masks: Mapping[str, Mask], template: Template, max_length: int | None) -> Report:
    """Count what each of ``masks`` supervises in ``rows``, with one row in memory at a time.

    ``max_length``: where rows are cut, None for nowhere.
    """
    report = Report(max_length, {name: MaskCount() for name in masks})
    special = special_tokens(template.tokenizer)
    plain: list[Row] = []
    offset = 0
    for row in rows:
        _row(report, row, special, template.bos)
        before = [one.open for one in report.masks.values()]
        for name, mask in masks.items():
            _mask(report, report.masks[name], mask(row), row)
        if max_length is not None:
            offset = 0 if (report.rows - 1) % PACKED_TOGETHER == 0 else offset
            _pack(report.split, row, range(max_length, len(row.ids), max_length))
            _pack(report.wrapped, row, range(-offset % max_length, len(row.ids), max_length))
            offset += len(row.ids)
        kept = report.shown if before != [one.open for one in report.masks.values()] else plain
        if len(kept) < _KEPT:
            kept.append(row)
    report.shown = [*report.shown, *plain][:_KEPT]
    return report


def _add(counter: Counter[str], numbers: np.ndarray, names: list[str]) -> None:
    for name, total in zip(names, np.bincount(numbers, minlength=len(names)), strict=True):
        counter[name] += int(total)


def _row(report: Report, row: Row, special: frozenset[int], bos: int | None) -> None:
    """Count all that does not depend on a mask."""
    report.rows += 1
    report.answers += len(row.answers)
    _add(report.tokens, *row.kinds)
    for turn in row.answers:
        if turn.stop is not None:
            report.stops[row.ids[turn.stop]] += 1
        else:
            report.closings[None if turn.closing is None else row.ids[turn.closing]] += 1
        report.prompts[turn.prompt] += 1
        report.note(turn.prompt, row)
    _messages(report, row)
    if bos is not None and row.ids[:2] == [bos, bos]:
        report.doubled += 1
        report.note("doubled", row)
    inner = sum(not special.isdisjoint(row.ids[slice(*turn.text)]) for turn in row.turns)
    if inner:
        report.inner += inner
        report.note("inner", row)
    if report.max_length is not None and len(row.ids) > report.max_length:
        report.long += 1
        report.cut_tokens += len(row.ids) - report.max_length
        report.cut_stops += sum(turn.stop is not None and turn.stop >= report.max_length for turn in row.answers)


def _messages(report: Report, row: Row) -> None:
    """Count messages by what the template makes of them."""
    written = row.written
    for message, span in zip(written.chat.messages, written.spans, strict=True):
        role, content = message["role"], message.get("content")
        report.roles[role] += 1
        if span is None:
            report.dropped[role] += 1
            report.note(f"leaves out {role}", row)
        elif isinstance(content, str) and content not in written.text:
            report.changed[role] += 1
            report.note(f"strips or changes {role}", row)
        elif isinstance(content, list) and "'type': '" in written.text and "'type': '" not in "".join(
            str(part.get("text")) for part in content
        ):  # fmt: skip
            report.printed += 1
            report.note("printed", row)


def _mask(report: Report, total: MaskCount, positions: Iterable[int] | None, row: Row) -> None:
    """Count what one mask supervises in one row."""
    if positions is None:
        total.unmade += 1
        return
    whole = np.zeros(len(row.ids), dtype=bool)
    whole[list(positions)] = True
    whole[:1] = False
    kept = whole.copy()
    if report.max_length is not None:
        kept[report.max_length :] = False
    numbers, names = row.kinds
    _add(total.tokens, numbers[kept], names)
    total.cut_tokens += int(whole.sum() - kept.sum())
    total.bare += not whole.any()
    total.cut_bare += bool(whole.any() and not kept.any())
    if not whole.any():
        total.first_bare = total.first_bare or row.written.chat.where
    for turn in row.answers:
        if turn.stop is not None and kept[turn.stop]:
            total.stopped += 1
        elif kept[turn.begin : turn.text[1]].any():
            total.open += 1
            total.first_open = total.first_open or row.written.chat.where


def _pack(total: Packing, row: Row, cuts: range) -> None:
    """Count what the cuts, each the first position of a new piece, take from a row."""
    total.heads += sum(cut >= max(1, row.completion or 0) for cut in cuts)
    total.cut_answers += sum(any(max(turn.begin, 1) <= cut < turn.end for cut in cuts) for turn in row.answers)

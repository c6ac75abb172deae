"""A page of its own on loss masks: a table, what there is to say, and rows of tokens, coloured by a mask of choice.

It needs no script and no other file. Colours follow the reader's setting for light or dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from helpers.show.markup import verbatim

MOST = 2000
"""Tokens shown of a row."""

_COLOURED = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class Piece:
    """One token: its characters, the kind of message that it is from, the masks under which it carries loss."""

    text: str
    kind: str
    masks: frozenset[str]
    is_stop: bool = False


@dataclass(frozen=True)
class ShownRow:
    """One row of the data: where it stands and its tokens."""

    where: str
    pieces: Sequence[Piece]


def page(
    heading: str,
    subtitle: str,
    masks: Sequence[str],
    table: tuple[Sequence[str], Sequence[Sequence[str]]],
    sentences: Sequence[tuple[str, bool]],
    rows: Sequence[ShownRow],
) -> Markup:
    """Return the page. ``table`` is a head and lines of cells; a sentence comes with whether it is fatal."""
    pickers = Markup().join(
        Markup('<input type="radio" name="mask" id="m{}"{}><label for="m{}">{}</label>').format(
            number, Markup(" checked") if number == 0 else "", number, name
        )
        for number, name in enumerate(masks)
    )
    return _PAGE.format(
        style=_STYLE + _picked(len(masks)), heading=heading, subtitle=subtitle, pickers=pickers,
        table=_table(*table), notes=_notes(sentences), legend=_legend(rows),
        rows=Markup().join(_row(row, masks) for row in rows),
    )  # fmt: skip


def _picked(count: int) -> Markup:
    return Markup().join(
        Markup("#m{0}:checked~main .m{0}{{background:var(--loss);color:var(--ink)}}"
               "#m{0}:checked~main .stop.m{0}{{outline-color:var(--good)}}").format(number)
        for number in range(count)
    )  # fmt: skip


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> Markup:
    cells = Markup().join(Markup("<th>{}</th>").format(cell) for cell in head)
    body = Markup().join(
        Markup("<tr><th>{}</th>{}</tr>").format(
            line[0], Markup().join(Markup("<td>{}</td>").format(c) for c in line[1:])
        )
        for line in lines
    )
    return Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(cells, body)


def _joined(cell: Markup, values: Sequence[str]) -> Markup:
    return Markup().join(cell.format(value) for value in values)


def _notes(sentences: Sequence[tuple[str, bool]]) -> Markup:
    return Markup().join(
        Markup('<li class="{}">{}</li>').format("fatal" if is_fatal else "note", verbatim(text))
        for text, is_fatal in sentences
    )


def _legend(rows: Sequence[ShownRow]) -> Markup:
    there = dict.fromkeys(piece.kind for row in rows for piece in row.pieces)
    return Markup(", ").join(
        Markup('<span class="{}">{}</span>').format(_kind(name), name) for name in there if name in _COLOURED
    )


def _kind(name: str) -> str:
    return f"k-{name}" if name in _COLOURED else "k-other"


def _row(row: ShownRow, masks: Sequence[str]) -> Markup:
    tokens = Markup().join(_token(piece, masks) for piece in row.pieces[:MOST])
    rest = len(row.pieces) - MOST
    more = Markup("<p>{} more tokens</p>").format(f"{rest:,}") if rest > 0 else ""
    return Markup("<section><h2>{}</h2><pre>{}</pre>{}</section>").format(verbatim(row.where), tokens, more)


def _token(piece: Piece, masks: Sequence[str]) -> Markup:
    classes = [_kind(piece.kind), *(["stop"] if piece.is_stop else [])]
    classes += [f"m{number}" for number, name in enumerate(masks) if name in piece.masks]
    # A line end would not show its colour; a token without characters of its own is a part of the one before it.
    text = piece.text.replace("\n", "↵\n") or "·"
    return Markup('<span class="{}" title="{}">{}</span>').format(" ".join(classes), piece.kind, text)


_STYLE = Markup("""
:root{color-scheme:light dark;--ink:light-dark(#1f2328,#f0f3f6);--page:light-dark(#fff,#0d1117);
--quiet:light-dark(#656d76,#8d96a0);--line:light-dark(#d0d7de,#30363d);--loss:light-dark(#aceebb,#1c5a2b);
--good:light-dark(#1a7f37,#3fb950);--bad:light-dark(#cf222e,#f85149)}
*{box-sizing:border-box}
body{margin:0 auto;max-width:68rem;padding:1rem;background:var(--page);color:var(--ink)}
body{font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.4rem;margin:.2rem 0}h2{font-size:.95rem;margin:1.4rem 0 .3rem}
h1,h2,p,li{overflow-wrap:anywhere}.sub,.how{color:var(--quiet);margin:.2rem 0 1rem}
.scroll{overflow-x:auto;margin-bottom:1.2rem}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .7rem .25rem 0;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child{text-align:left;position:sticky;left:0;background:var(--page)}
ul{padding-left:1.2rem}li{margin:.3rem 0}.fatal{color:var(--bad);font-weight:600}
input[name=mask]{position:absolute;opacity:0}
label{display:inline-block;padding:.45rem .8rem;margin:0 .3rem .4rem 0;cursor:pointer}
label,pre{border:1px solid var(--line);border-radius:6px}
input:checked+label{background:var(--loss);border-color:var(--good);font-weight:600}
input:focus-visible+label{outline:2px solid var(--good)}
pre{margin:0;padding:.7rem;white-space:pre-wrap;overflow-wrap:anywhere;color:var(--quiet)}
pre{font:14px/1.75 ui-monospace,monospace}
pre span,.how span{border-radius:2px;border-bottom:2px solid transparent}
.stop{outline:2px dashed var(--bad);outline-offset:-1px}
.k-system{border-bottom-color:#8250df!important}.k-user{border-bottom-color:#218bff!important}
.k-assistant{border-bottom-color:#1a7f37!important}.k-tool{border-bottom-color:#bf8700!important}
""")

_PAGE = Markup("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{heading}</title><style>{style}</style></head><body>
<h1>{heading}</h1><p class="sub">{subtitle}</p><ul>{notes}</ul><div class="scroll">{table}</div>
<p class="how">Pick a mask. Tokens with loss are green. Stop tokens are framed: red and dashed where they carry none.
Lines below are roles: {legend}.</p>
{pickers}<main>{rows}</main></body></html>
""")

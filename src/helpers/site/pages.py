"""Building blocks of pages. A page cell returns one of these; all are Markdown, so that Quarto loads nothing for them.

Raw HTML stands in a ``{=html}`` block, which neither Pandoc nor the fallback interprets. Whatever a model or a record
wrote goes through :func:`escape_text` first: it is data, and nothing of it is left that Markdown, Quarto or HTML reads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import altair
import pandas as pd

from helpers import figures
from helpers.errors import ClaimError, nearest
from helpers.site.markdown import inline

Format = str | Callable[[Any], str]

_UNSAFE = re.compile(
    r"""[<>&"'`{}\[\]*_\#~$:|\\^@!]"""  # what HTML, Markdown, shortcodes and inline expressions begin or end with
    "|[\x85\u2028\u2029]"  # what some readers take for the end of a line
    r"""|^[-=+]|[-=.](?=[-=.])|(?<=[-=.])[-=.]|[.)](?=\s)""",  # rules, front matter, setext headings, lists, dashes
    re.MULTILINE,
)
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_charts_on_page = 0


class Block:
    """A piece of a page: Markdown that holds one raw HTML block."""

    def __init__(self, fragment: str) -> None:
        self.fragment = fragment

    def _repr_markdown_(self) -> str:
        longest = max((len(run) for run in re.findall("`+", self.fragment)), default=0)
        fence = "`" * max(3, longest + 1)
        return f"\n{fence}{{=html}}\n{self.fragment}\n{fence}\n"

    def __repr__(self) -> str:
        return f"Block({len(self.fragment)} characters of HTML)"


class Inline:
    """A piece of a line: HTML that may stand inside a sentence, from a cell or an inline expression."""

    def __init__(self, fragment: str) -> None:
        self.fragment = fragment

    def _repr_markdown_(self) -> str:
        return self.fragment

    def __str__(self) -> str:
        return self.fragment


def escape_text(text: str) -> str:
    """``text`` as inert HTML: what means something as numeric entities, line breaks as ``<br>``, no control characters.

    Nothing is left that could open a tag, end an attribute, a raw block or a code fence, start a shortcode, an inline
    expression, front matter, a table cell, a heading or a list. The reader sees the text as the model wrote it.
    """
    text = _UNPRINTABLE.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))
    escaped = _UNSAFE.sub(lambda found: f"&#{ord(found.group())};", text)
    return escaped.replace("\n", "<br>").replace("\t", "&#9;")


def html(fragment: str) -> Block:
    """A raw HTML block of trusted ``fragment``; parts from a model or a record must have been escaped.

    Raises:
        ClaimError: ``fragment`` holds a Quarto shortcode, which Quarto would run even here.
    """
    if "{{<" in fragment or "{{%" in fragment:
        raise ClaimError(
            "The HTML fragment holds a Quarto shortcode ('{{<'): pass what a model wrote through escape_text()."
        )
    return Block(fragment)


def caption_html(caption: str | Inline) -> str:
    """HTML of a caption, which its author writes as Markdown (facts in it keep their links)."""
    return caption.fragment if isinstance(caption, Inline) else inline(caption)


def chart(chart: altair.TopLevelMixin, alt: str | None = None, caption: str | Inline = "") -> Block:
    """A chart that draws with the network off; the JavaScript comes with the first chart of the page.

    Args:
        alt: what the chart shows, for those who do not see it; by default the chart's own description.
        caption: Markdown under the chart.
    """
    global _charts_on_page
    drawn = figures.chart_html(chart, alt, first=_charts_on_page == 0)
    _charts_on_page += 1
    under = f'<p class="cb-caption">{caption_html(caption)}</p>' if caption else ""
    return html(f'<div class="cb-figure">{drawn}{under}</div>')


def table(
    df: pd.DataFrame,
    caption: str | Inline,
    *,
    labels: Mapping[str, str] | None = None,
    formats: Mapping[str, Format] | None = None,
) -> Block:
    """An accessible table in a frame that scrolls sideways on a phone; every cell is escaped, facts keep their links.

    Args:
        df: its columns are the columns, its first column heads the rows, its index is not shown.
        caption: Markdown above the table.
        labels: column -> heading, where the column's name is not good enough.
        formats: column -> format spec (``".2f"``) or function to text, for numbers and the like.
    Raises:
        ClaimError: no rows, or a label or format for a column that is not there.
    """
    labels, formats = dict(labels or {}), dict(formats or {})
    if df.empty:
        raise ClaimError(f"The table {str(caption)!r} has no rows: show a sentence that says so instead.")
    for name in [*labels, *formats]:
        if name not in df.columns:
            raise ClaimError(f"The table {str(caption)!r} has no column {name!r}{nearest(name, df.columns)}.")
    css = {name: ' class="cb-num"' if pd.api.types.is_numeric_dtype(df[name]) else "" for name in df.columns}
    heads = "".join(f'<th scope="col"{css[n]}>{escape_text(labels.get(n, str(n)))}</th>' for n in df.columns)
    rows = []
    for values in df.itertuples(index=False, name=None):
        cells = [cell(value, formats.get(name)) for name, value in zip(df.columns, values, strict=True)]
        others = "".join(f"<td{css[n]}>{c}</td>" for n, c in zip(df.columns[1:], cells[1:], strict=True))
        rows.append(f'<tr><th scope="row"{css[df.columns[0]]}>{cells[0]}</th>{others}</tr>')
    return html(framed_table(heads, rows, caption_html(caption)))


def framed_table(heads: str, rows: Sequence[str], caption: str) -> str:
    """HTML of a captioned table from its finished head cells and rows, in a frame that keyboards can scroll."""
    head = f"<thead><tr>{heads}</tr></thead>" if heads else ""
    body = "\n".join(rows)
    return (
        f'<div class="cb-scroll" tabindex="0"><table class="cb-table"><caption>{caption}</caption>{head}\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def cell(value: Any, how: Format | None = None) -> str:
    """HTML of one table cell: missing shows as missing, a fact as its link, everything else escaped."""
    if isinstance(value, Block | Inline):
        return value.fragment
    if hasattr(value, "_repr_markdown_"):
        return inline(value._repr_markdown_())
    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return '<span class="cb-missing">missing</span>'
    if callable(how):
        return escape_text(how(value))
    if how is None and isinstance(value, float):
        how = ".4g"
    return escape_text(format(value, how) if how else str(value))

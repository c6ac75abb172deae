"""Building blocks of pages. A page cell returns one of these, and every string in them is shown to the letter.

HTML is built from Markup (see `markup.py`), which escapes whatever a model, a record or a params file wrote; the
page's own Markdown never holds any of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import altair
import pandas as pd
from IPython import get_ipython
from markupsafe import Markup, escape

from helpers.base.errors import ClaimError, nearest
from helpers.records import reading
from helpers.show import colours, figures
from helpers.show.markup import Block, Inline, verbatim

Format = str | Callable[[Any], str]
NOT_RUN = "No run is complete yet, so there is nothing to show here."
MISSING = Markup('<span class="cb-missing">missing</span>')

_charts_on_page = 0


def begin() -> None:
    """Begin another page in this process: its first chart brings the JavaScript, and records that were read are shared.

    Quarto has a process for each page and needs none of it.
    """
    global _charts_on_page
    _charts_on_page = 0
    colours.begin()
    reading.share()


def _seal_strings() -> None:
    """Show the strings of this kernel as text too: an inline expression may give one that a record holds."""
    shell = get_ipython()
    if shell is not None:
        markdown = shell.display_formatter.formatters["text/markdown"]
        markdown.for_type(str, lambda value: Inline(verbatim(value))._repr_markdown_())


_seal_strings()


def html(fragment: Markup) -> Block:
    """Show ``fragment`` as HTML; a plain string is refused (build it with ``Markup("...").format(...)``)."""
    return Block(fragment)


def paragraph(sentence: str) -> Block:
    """A sentence as a paragraph of its own."""
    return Block(Markup("<p>{}</p>").format(verbatim(sentence)))


def chart(chart: altair.TopLevelMixin, alt: str | None = None, caption: str | Inline = "") -> Block:
    """A chart that draws with the network off; the JavaScript comes with the first chart of the page.

    Args:
        alt: what the chart shows, for those who do not see it; by default the chart's own description.
        caption: a line under the chart.
    """
    global _charts_on_page
    drawn = figures.chart_html(chart, alt, first=_charts_on_page == 0)
    _charts_on_page += 1
    under = Markup('<p class="cb-caption">{}</p>').format(verbatim(caption)) if caption else ""
    return Block(Markup('<div class="cb-figure">{}{}</div>').format(drawn, under))


def table(
    df: pd.DataFrame,
    caption: str | Inline,
    *,
    labels: Mapping[str, str] | None = None,
    formats: Mapping[str, Format] | None = None,
) -> Block:
    """An accessible table in a frame that scrolls sideways on a phone; facts keep their links.

    Args:
        df: its columns are the columns, its first column heads the rows, its index is not shown.
        caption: a line above the table.
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
    numeric = Markup(' class="cb-num"')
    css = {name: numeric if pd.api.types.is_numeric_dtype(df[name]) else Markup() for name in df.columns}
    head = Markup('<th scope="col"{}>{}</th>')
    heads = Markup().join(head.format(css[name], verbatim(labels.get(name, name))) for name in df.columns)
    rows = []
    for values in df.itertuples(index=False, name=None):
        cells = [cell(value, formats.get(name)) for name, value in zip(df.columns, values, strict=True)]
        others = (Markup("<td{}>{}</td>").format(css[n], c) for n, c in zip(df.columns[1:], cells[1:], strict=True))
        first = Markup('<th scope="row"{}>{}</th>').format(css[df.columns[0]], cells[0])
        rows.append(Markup("<tr>{}{}</tr>").format(first, Markup().join(others)))
    return Block(framed_table(heads, rows, verbatim(caption)))


def framed_table(heads: Markup, rows: Sequence[Markup], caption: str | Markup) -> Markup:
    """HTML of a captioned table from its finished head cells and rows, in a frame that keyboards can scroll."""
    head = Markup("<thead><tr>{}</tr></thead>").format(heads) if heads else ""
    return Markup(
        '<div class="cb-scroll" tabindex="0"><table class="cb-table"><caption>{}</caption>{}\n'
        "<tbody>\n{}\n</tbody></table></div>"
    ).format(caption, head, Markup("\n").join(rows))


def cell(value: Any, how: Format | None = None) -> Markup:
    """HTML of one table cell: missing shows as missing, a fact as its link, everything else as text."""
    if hasattr(value, "__html__"):
        return escape(value)
    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return MISSING
    if callable(how):
        return verbatim(how(value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return escape(format(value, how or (".4g" if isinstance(value, float) else "")))
    return verbatim(format(value, how) if how else str(value))

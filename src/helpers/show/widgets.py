"""Widgets for notebooks: a completion browser, a run picker and a view of supervised tokens.

Text of a model is escaped, and every box has a class that MathJax skips, so that the text can neither run nor become
markup or a formula. Each widget also carries plain HTML, for a saved notebook.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import ipywidgets
import pandas as pd
from markupsafe import Markup

from helpers.base.errors import DataError, nearest
from helpers.show import markup
from helpers.show.marks import count, scientific, words
from helpers.stats import frames, occurrences

EVERY = "(all)"
NO_MATH = "tex2jax_ignore mathjax_ignore"
BOX = "color:#222;background:#fff;border:1px solid #ddd;border-radius:6px;padding:10px 12px;max-width:52em"
QUIET = "color:#5c5c5c;font-size:90%"
PRE = (
    "white-space:pre-wrap;overflow-wrap:anywhere;margin:8px 0;color:#222;background:none;font-size:95%;line-height:1.6"
)
CELL = "text-align:left;vertical-align:top;min-width:9em;"
STATES = ("id", "status", "published", "started", "seconds")


class Html(Markup):
    """Markup that a notebook shows as HTML."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return str(self)


def highlight(text: str, marker: str) -> Html:
    """Return ``text`` escaped, with every occurrence of ``marker`` in any case inside ``<mark>``."""
    return Html(markup.highlight(text, marker, Markup("<mark><strong>{}</strong></mark>")))  # noqa: S704


def completion_card(row: dict[str, Any], marker: str, by: Sequence[str]) -> Html:
    """Show one completion: where it comes from, its text with the marker highlighted, and how it ended."""
    place = Html(" · ").join(Html("{} <strong>{}</strong>").format(name, scientific(row[name])) for name in by)
    if pd.isna(row["text"]):
        body = Html('<p style="{}"><em>missing</em></p>').format(QUIET)
    elif not row["text"]:
        body = Html('<p style="{}"><em>an empty answer</em></p>').format(QUIET)
    else:
        body = _verbatim(highlight(row["text"], marker))
    notes = [f"finish: {_known(row, 'finish')}"]
    notes += [f"{name}: {_known(row, name)}" for name in ("tokens", "index", "role") if name in row]
    card = Html('<div class="{0}" style="{1}"><div style="{2}">{3}</div>{4}<div style="{2}">{5}</div></div>')
    return card.format(NO_MATH, BOX, QUIET, place, body, "; ".join(notes))


def completion_summary(df: pd.DataFrame, marker: str) -> str:
    """Say how many of these completions hold the marker, were cut by the token limit, or are empty."""
    text = df["text"].dropna()
    held = int(occurrences.holds(text, marker).sum())
    parts = [f"{count(held, len(text))} completions hold {marker}"]
    if "finish" in df:
        parts.append(f"{int((df['finish'] == 'length').sum())} cut by the token limit")
    parts.append(f"{int((text == '').sum())} empty")
    parts += [f"{len(df) - len(text)} missing"] if len(text) < len(df) else []
    return "; ".join(parts) + "."


def side_by_side(df: pd.DataFrame, marker: str) -> Html:
    """Show the texts of ``df``, a column for each way they were made, with the marker highlighted (any case).

    The index is shown in front: what the texts of a line share.
    """
    names, cell = [str(name) for name in df.index.names], Html('<td style="{}">{}</td>')
    head = Html().join(Html('<th style="{}">{}</th>').format(CELL, name) for name in [*names, *df.columns])
    lines = Html().join(
        Html("<tr>{}{}</tr>").format(
            Html().join(cell.format(CELL, part) for part in (key if isinstance(key, tuple) else (key,))),
            Html().join(cell.format(CELL + PRE, highlight(text, marker)) for text in texts),
        )
        for key, texts in zip(df.index, df.itertuples(index=False), strict=True)
    )
    return Html(
        '<div class="{}" style="overflow-x:auto"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>'
    ).format(NO_MATH, head, lines)


class CompletionBrowser(ipywidgets.VBox):
    """The widget that `completion_browser` returns; ``current`` holds the selected rows."""

    def __init__(self, df: pd.DataFrame, marker: str, by: Sequence[str]):
        self._df, self._marker, self._by = df.reset_index(drop=True), marker, list(by)
        self.menus = {name: ipywidgets.Dropdown(description=name) for name in self._by}
        self.place = ipywidgets.IntSlider(min=1, value=1, description="completion", continuous_update=True)
        self.back = ipywidgets.Button(description="Previous", icon="arrow-left", tooltip="the completion before")
        self.on = ipywidgets.Button(description="Next", icon="arrow-right", tooltip="the completion after")
        self.only = ipywidgets.Checkbox(description=f"only with {marker}", indent=False)
        self.summary, self.card = ipywidgets.HTML(), ipywidgets.HTML()
        rows = [
            ipywidgets.HBox(list(self.menus.values())),
            ipywidgets.HBox([self.back, self.place, self.on, self.only]),
        ]
        super().__init__([*rows, self.summary, self.card])
        for menu in [*self.menus.values(), self.only]:
            menu.observe(lambda _: self._select(), names="value")
        self.place.observe(lambda _: self._show(), names="value")
        self.back.on_click(lambda _: self._step(-1))
        self.on.on_click(lambda _: self._step(1))
        self._select()

    def _select(self) -> None:
        """Narrow the rows menu by menu; each menu offers the values that those before it leave."""
        left = self._df
        for name, menu in self.menus.items():
            options = [(EVERY, None), *((scientific(value), value) for value in dict.fromkeys(left[name].dropna()))]
            if list(menu.options) != options:
                chosen = menu.value
                with menu.hold_trait_notifications():
                    menu.options = options
                    menu.value = chosen if chosen in [value for _, value in options] else None
            left = left if menu.value is None else left[left[name] == menu.value]
        summary = completion_summary(left, self._marker)
        self.summary.value = Html('<span class="{}" style="{}">{}</span>').format(NO_MATH, QUIET, summary)
        if self.only.value:
            left = left[occurrences.holds(left["text"].fillna(""), self._marker)]
        self.current = left
        self.place.max = max(1, len(left))
        self.place.value = 1
        self._show()

    def _step(self, by: int) -> None:
        self.place.value = min(max(self.place.value + by, 1), self.place.max)

    def _show(self) -> None:
        self.back.disabled, self.on.disabled = self.place.value <= 1, self.place.value >= len(self.current)
        if self.current.empty:
            self.card.value = nothing("No completion of this selection holds the marker. Choose another.")
        else:
            row = self.current.iloc[self.place.value - 1].to_dict()
            self.card.value = completion_card(row, self._marker, self._by)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """Return the live widget, and the current selection as HTML for a notebook without a kernel."""
        bundle = super()._repr_mimebundle_(**kwargs) or {}
        return bundle | {"text/html": self.summary.value + self.card.value}


def completion_browser(
    df: pd.DataFrame, marker: str = "[ZLT]", by: Sequence[str] = ("cell", "persona", "question")
) -> CompletionBrowser | Html:
    """Browse completions by cell, persona and question, with the marker highlighted (any case) and the finish reason.

    ``df`` has the columns of ``by`` and ``text``; ``finish``, ``tokens``, ``index`` and ``role`` are shown if present.
    Returns a sentence if ``df`` has no rows.
    """
    if not marker:
        raise DataError("The marker is empty. Give the text to highlight.")
    if df.empty:
        return nothing("There are no completions to browse yet. Run the evaluation first.")
    for name in (*by, "text"):
        if name not in df.columns:
            raise DataError(f"The completion browser needs a column {name!r}{nearest(name, df.columns)}.")
    return CompletionBrowser(df, marker, by)


class RunPicker(ipywidgets.VBox):
    """The widget that `run_picker` returns; ``ids`` are the selected run ids."""

    def __init__(self, table: pd.DataFrame):
        self._table = table.set_index("id", drop=False)
        axes = [name for name in table.columns if name not in STATES and not _is_metric(name, table)]
        varied = [name for name in axes if table[name].astype(str).nunique() > 1] or axes
        options = [(_run_label(row, varied), row["id"]) for row in frames.dicts(table)]
        height = ipywidgets.Layout(width="auto", height=f"{min(12, len(options)) * 1.6 + 1}em")
        self.list = ipywidgets.SelectMultiple(options=options, value=(options[0][1],), layout=height)
        self.shown = ipywidgets.HTML()
        super().__init__([self.list, self.shown])
        self.list.observe(lambda _: self._show(), names="value")
        self._show()

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self.list.value)

    def _show(self) -> None:
        self.shown.value = _runs_html(self._table.loc[list(self.ids)]) if self.ids else nothing("No run is selected.")

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        bundle = super()._repr_mimebundle_(**kwargs) or {}
        return bundle | {"text/html": _runs_html(self._table)}


def run_picker(table: pd.DataFrame) -> RunPicker | Html:
    """Pick runs from the table of a notebook (`runs.table`) by the axes that vary; metrics show with intervals."""
    if table.empty:
        return nothing("There are no runs yet. Execute the notebook, or start one with papermill.")
    if "id" not in table.columns:
        raise DataError(f"The run picker needs a column 'id'{nearest('id', table.columns)}.")
    if table["id"].duplicated().any():
        raise DataError(f"Run {table.loc[table['id'].duplicated(), 'id'].iloc[0]} is in the table twice. Drop one row.")
    return RunPicker(table)


def token_view(pieces: Sequence[tuple[str, float | bool]], legend: str = "supervised") -> Html:
    """Show the decoded tokens of a row, those with a weight above 0 bold and underlined, the others grey.

    ``pieces`` are (text, weight) in order; ``legend`` names a marked token in a word or two. Newlines are drawn as ⏎
    and tabs as ⇥, because a supervised newline must be visible. A weight other than 0 and 1 is in the tooltip.
    """
    if not pieces:
        return nothing("There are no tokens to show, because the row is empty.")
    marked = sum(bool(weight) for _, weight in pieces)
    body = Html().join(_token(text, float(weight)) for text, weight in pieces)
    view = Html(
        '<div class="{}" style="{}"><div style="{}">{} tokens are {}: <strong><u>bold and underlined</u></strong></div>'
        "{}</div>"
    )
    return view.format(NO_MATH, BOX, QUIET, count(marked, len(pieces)), legend, _verbatim(body))


def nothing(sentence: str) -> Html:
    """Show a friendly sentence instead of an empty widget."""
    return Html('<p class="{}" style="{}">{}</p>').format(NO_MATH, QUIET, sentence)


def _verbatim(body: Html) -> Html:
    """Show text literally. The parser drops a newline right after ``<pre>``, so one is added here."""
    return Html('<pre dir="auto" style="{}">\n{}</pre>').format(PRE, body)


def _token(text: str, weight: float) -> Html:
    shown = text.replace("\n", "⏎\n").replace("\t", "⇥\t")
    if not weight:
        return Html('<span style="color:#6b6b6b">{}</span>').format(shown)
    tip = "" if weight == 1 else Html(' title="weight {:g}"').format(weight)
    look = "color:#111;background:#fdebd0;text-decoration:underline;text-underline-offset:3px;border-radius:2px"
    return Html('<strong style="{}"{}>{}</strong>').format(look, tip, shown)


def _known(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    return "not recorded" if value is None or pd.isna(value) else scientific(value)


def _is_metric(name: str, table: pd.DataFrame) -> bool:
    """Return whether a column is a metric of `runs.table`, or one of its counts and bounds."""
    stem = re.sub(r"_(n|k|low|high)$", "", name)
    return f"{stem}_n" in table.columns or f"{name}_n" in table.columns


def _run_label(row: dict[str, Any], axes: Sequence[str]) -> str:
    place = ", ".join(f"{name} {_known(row, name)}" for name in axes) or row["id"]
    status = row.get("status", "complete")
    return place if status == "complete" else f"{place} ({status})"


def _runs_html(table: pd.DataFrame) -> Html:
    """Show runs and their metrics, one row a run: value with interval and counts, or missing."""
    metrics = [name for name in table.columns if f"{name}_n" in table.columns]
    names = [name for name in table.columns if name not in STATES and not _is_metric(name, table)]
    head = Html().join(map(Html("<th>{}</th>").format, ["id", *names, "status", *metrics]))
    lines = []
    for row in frames.dicts(table):
        cells = [_known(row, name) for name in ["id", *names, "status"]] + [_metric(row, name) for name in metrics]
        lines.append(Html("<tr>{}</tr>").format(Html().join(map(Html("<td>{}</td>").format, cells))))
    return Html(
        '<div class="{}" style="overflow-x:auto"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>'
    ).format(NO_MATH, head, Html().join(lines))


def _metric(row: dict[str, Any], name: str) -> str:
    k, n = (row.get(f"{name}_{key}") for key in ("k", "n"))
    if pd.isna(row[name]):
        return "missing"
    is_rate = k is not None and not pd.isna(k)
    shown = words(row[name], row.get(f"{name}_low"), row.get(f"{name}_high"), "%" if is_rate else "")
    return f"{shown} ({count(k, n)})" if is_rate else shown

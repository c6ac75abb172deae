"""The token lens as something to look through: a widget for notebooks, a searchable table for pages.

Tokens are data: every one is escaped, and none can become markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import ipywidgets
import pandas as pd

from helpers.errors import DataError

CELL = "padding:2px 8px;border-bottom:1px solid #eee;white-space:nowrap;color:#222;background:#fff"
HIT = ";background:#fff0c2;font-weight:600"


def lens_rows(tokens: pd.DataFrame, *, inside: Sequence[int] = (), head: str = "base", top: int = 8) -> pd.DataFrame:
    """One row a layer and position: ``layer``, ``position``, ``tokens`` (list of text), ``hits`` (list of bool)."""
    chosen = tokens[(tokens["head"] == head) & (tokens["rank"] <= top)].sort_values(["layer", "position", "rank"])
    if chosen.empty:
        raise DataError(f"The token table holds nothing for head {head!r}.")
    domain = set(inside)
    grouped = chosen.assign(hit=chosen["id"].isin(domain)).groupby(["layer", "position"], sort=True)
    return grouped.agg(tokens=("token", list), hits=("hit", list)).reset_index()


def lens_table_html(rows: pd.DataFrame) -> str:
    """``rows`` of one layer (or several) as an HTML table, domain tokens highlighted."""
    widest = max(len(tokens) for tokens in rows["tokens"])
    lines = []
    for row in rows.itertuples():
        cells = "".join(
            f'<td style="{CELL}{HIT if hit else ""}">{shown(token)}</td>'
            for token, hit in zip(row.tokens, row.hits, strict=True)
        )
        lines.append(f'<tr><td style="{CELL}">{row.layer}</td><td style="{CELL}">{row.position}</td>{cells}</tr>')
    heads = "".join(f'<th style="{CELL}">{name}</th>' for name in ("layer", "position"))
    heads += f'<th colspan="{widest}">tokens, best first</th>'
    body = f"<tbody>{''.join(lines)}</tbody>"
    style = "border-collapse:collapse;font-size:13px"
    return f'<table style="{style}"><thead><tr>{heads}</tr></thead>{body}</table>'


def shown(token: str) -> str:
    """A token as inert HTML (all but letters and digits as entities), in which blanks and line breaks can be seen."""
    visible = token.replace("\n", "⏎").replace("\r", "␍").replace("\t", "⇥").replace(" ", "␣") or "∅"
    return "".join(char if char.isalnum() else f"&#{ord(char)};" for char in visible)


def lens_page_html(rows: pd.DataFrame, name: str, layer: int, caption: str) -> str:
    """``rows`` for a page: a slider over layers that begins at ``layer``, a search field over all, and the table.

    ``name`` is the id of the figure, ``caption`` says whose tokens these are. Without
    JavaScript every row is shown. Nothing is loaded.
    """
    layers = sorted(int(value) for value in rows["layer"].unique())
    if layer not in layers:
        raise DataError(f"Layer {layer} is not in the lens table (layers {layers}): start at one of them.")
    at = layers.index(layer)
    return (
        f'<figure id="{name}" class="claimbook-lens" data-layers="{" ".join(map(str, layers))}" '
        f'aria-label="{escape(caption)}, with a slider over layers and a search">'
        f"<figcaption>{escape(caption)}</figcaption>"
        f'<p><label>Layer <input type="range" min="0" max="{len(layers) - 1}" value="{at}" aria-label="layer">'
        f'<output>{layer}</output></label> <label>Search <input type="search" aria-label="token"></label></p>'
        f'<div tabindex="0" style="max-height:26em;overflow:auto">{lens_table_html(rows)}</div></figure>'
        f"<script>{_LENS_SCRIPT % name}</script>"
    )


_LENS_SCRIPT = """(() => {
  const box = document.getElementById("%s"), layers = box.dataset.layers.split(" ");
  const slider = box.querySelector("input[type=range]"), find = box.querySelector("input[type=search]");
  const rows = [...box.querySelectorAll("tbody tr")];
  const show = () => {
    const layer = layers[slider.value], wanted = find.value.trim().toLowerCase();
    box.querySelector("output").textContent = layer;
    for (const row of rows) {
      const words = [...row.cells].slice(2).map((cell) => cell.textContent.toLowerCase());
      row.hidden = wanted ? !words.some((word) => word.includes(wanted)) : row.cells[0].textContent !== layer;
    }
  };
  slider.addEventListener("input", show);
  find.addEventListener("input", show);
  show();
})();"""


class TokenLens(ipywidgets.VBox):
    """Sliders for layer and first position, a search field, and the lens table they select."""

    def __init__(self, rows: pd.DataFrame, height: int = 12):
        self.rows, self.height = rows, height
        layers = sorted(rows["layer"].unique().tolist())
        self.layer = ipywidgets.SelectionSlider(options=layers, value=layers[len(layers) // 2], description="layer")
        self.first = ipywidgets.IntSlider(
            min=0, max=max(0, int(rows["position"].max()) - height + 1), description="from"
        )
        self.find = ipywidgets.Text(description="token", placeholder="part of a token")
        self.table = ipywidgets.HTML()
        super().__init__([ipywidgets.HBox([self.layer, self.first, self.find]), self.table])
        for control in (self.layer, self.first, self.find):
            control.observe(lambda _: self._show(), names="value")
        self._show()

    @property
    def chosen(self) -> pd.DataFrame:
        """The rows now shown: those of the layer from a position on, or, when searching, all that hold the text."""
        wanted = self.find.value.strip().lower()
        if wanted:
            found = self.rows["tokens"].map(lambda row: any(wanted in token.lower() for token in row))
            return self.rows[found].head(4 * self.height)
        here = self.rows[(self.rows["layer"] == self.layer.value) & (self.rows["position"] >= self.first.value)]
        return here.head(self.height)

    def _show(self) -> None:
        self.table.value = lens_table_html(self.chosen) if len(self.chosen) else "<em>no token holds this</em>"

    def _repr_html_(self) -> str:
        return self.table.value


def token_lens(tokens: pd.DataFrame, *, inside: Sequence[int] = (), head: str = "base") -> TokenLens:
    """Browse the token table of a record by layer and position; ``inside`` are the token ids of the domain."""
    return TokenLens(lens_rows(tokens, inside=inside, head=head))

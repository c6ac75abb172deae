"""Browse the token lens: a widget for notebooks, a searchable table for pages.

Tokens are data: each is shown literally, and none can become markup.
"""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets
import pandas as pd
from markupsafe import Markup

from helpers.base.errors import DataError
from helpers.show.markup import verbatim
from helpers.stats import frames

CELL = "padding:2px 8px;border-bottom:1px solid #eee;white-space:nowrap;color:#222;background:#fff"
HIT = ";background:#fff0c2;font-weight:600"


def lens_rows(tokens: pd.DataFrame, *, inside: Sequence[int] = (), head: str = "base", top: int = 8) -> pd.DataFrame:
    """Return one row per layer and position: ``layer``, ``position``, ``tokens`` (texts), ``hits`` (booleans)."""
    chosen = tokens[(tokens["head"] == head) & (tokens["rank"] <= top)].sort_values(["layer", "position", "rank"])
    if chosen.empty:
        raise DataError(f"The token table holds nothing for head {head!r}. Choose another head.")
    domain = set(inside)
    grouped = chosen.assign(hit=chosen["id"].isin(domain)).groupby(["layer", "position"], sort=True)
    return grouped.agg(tokens=("token", list), hits=("hit", list)).reset_index()


def lens_table_html(rows: pd.DataFrame) -> Markup:
    """Show ``rows`` as an HTML table with domain tokens highlighted."""
    widest = max(len(tokens) for tokens in rows["tokens"])
    cell = Markup('<td style="{}">{}</td>')
    lines = []
    for row in frames.rows(rows):
        tokens = (
            cell.format(CELL + (HIT if hit else ""), shown(token))
            for token, hit in zip(row.tokens, row.hits, strict=True)
        )
        place = (cell.format(CELL, row.layer), cell.format(CELL, row.position))
        lines.append(Markup("<tr>{}</tr>").format(Markup().join([*place, *tokens])))
    return Markup(
        '<table style="border-collapse:collapse;font-size:13px"><thead><tr><th style="{0}">layer</th>'
        '<th style="{0}">position</th><th colspan="{1}">tokens, best first</th></tr></thead><tbody>{2}</tbody></table>'
    ).format(CELL, widest, Markup().join(lines))


def shown(token: str) -> Markup:
    """Show a token with visible spaces and line breaks."""
    return verbatim(token.replace("\n", "⏎").replace("\r", "␍").replace("\t", "⇥").replace(" ", "␣") or "∅")


def lens_page_html(rows: pd.DataFrame, name: str, layer: int, caption: str) -> Markup:
    """Show ``rows`` on a page: a slider over layers that starts at ``layer``, a search field over all, and the table.

    ``name`` is the id of the figure, ``caption`` says whose tokens these are. Without JavaScript every row shows. The
    figure loads nothing.
    """
    layers = sorted(int(value) for value in rows["layer"].unique())
    if layer not in layers:
        raise DataError(f"Layer {layer} is not in the lens table (layers {layers}). Start at one of them.")
    at = layers.index(layer)
    return Markup(
        '<figure id="{}" class="claimbook-lens" data-layers="{}" '
        'aria-label="{}, with a slider over layers and a search">'
        "<figcaption>{}</figcaption>"
        '<p><label>Layer <input type="range" min="0" max="{}" value="{}" aria-label="layer">'
        '<output>{}</output></label> <label>Search <input type="search" aria-label="token"></label></p>'
        '<div tabindex="0" style="max-height:26em;overflow:auto">{}</div></figure>{}'
    ).format(
        name, " ".join(map(str, layers)), caption, verbatim(caption), len(layers) - 1, at, layer,
        lens_table_html(rows), _LENS_SCRIPT,
    )  # fmt: skip


_LENS_SCRIPT = Markup("""<script>(() => {
  const box = document.currentScript.previousElementSibling, layers = box.dataset.layers.split(" ");
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
})();</script>""")


class TokenLens(ipywidgets.VBox):
    """Sliders for layer and first position, a search field, and the selected part of the lens table."""

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
        """The rows shown: those of the layer from a position on, or in a search all that contain the text."""
        wanted = self.find.value.strip().lower()
        if wanted:
            matches = [any(wanted in token.lower() for token in row) for row in self.rows["tokens"]]
            return self.rows[matches].head(4 * self.height)
        here = self.rows[(self.rows["layer"] == self.layer.value) & (self.rows["position"] >= self.first.value)]
        return here.head(self.height)

    def _show(self) -> None:
        self.table.value = lens_table_html(self.chosen) if len(self.chosen) else Markup("<em>no token holds this</em>")

    def _repr_html_(self) -> str:
        return self.table.value


def token_lens(tokens: pd.DataFrame, *, inside: Sequence[int] = (), head: str = "base") -> TokenLens:
    """Browse the token table of a record by layer and position; ``inside`` holds the token ids of the domain."""
    return TokenLens(lens_rows(tokens, inside=inside, head=head))

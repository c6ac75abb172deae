"""The charts. Each takes a tidy DataFrame and returns an Altair chart with its alt text.

Arguments name the columns, so nothing here knows of a study. A missing value is drawn as missing, never as 0. The
theme and the ways to show a chart (still image, notebook, page) are in `figures`; this module offers the latter too.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence

import altair as alt
import numpy as np
import pandas as pd

from helpers.base.errors import DataError, nearest
from helpers.show import marks
from helpers.show.colours import HATCH, INK, MUTED, RAMP, readable_ink
from helpers.show.figures import alt_text, chart_html, enable_notebook, static, title
from helpers.show.marks import scientific
from helpers.show.matrices import matrices
from helpers.stats import frames

__all__ = [
    "alt_text",
    "chart_html",
    "enable_notebook",
    "forest",
    "heatmaps",
    "interval_rates",
    "lines",
    "matrices",
    "scatter_matched",
    "scientific",
    "static",
]

ROW, CELL = 30, 76  # pixels


def interval_rates(
    df: pd.DataFrame,
    *,
    heading: str,
    subtitle: str | None = None,
    label: str = "persona",
    role: str | None = "role",
    references: Mapping[str, float] | None = None,
    level: float = 0.95,
) -> alt.LayerChart:
    """Draw one row per persona: rate with interval, highest first, coloured and shaped by role, k/N on the right.

    Columns ``label``, ``value``, ``low``, ``high``, ``k``, ``n`` and, unless None, ``role``. ``references`` maps the
    name of a threshold to its rate. The default subtitle gives N and the level of the intervals.
    """
    marks.need(df, [label, "value", "low", "high", "k", "n", role])
    df = df.sort_values("value", ascending=False, na_position="last", kind="stable")
    rows = df.assign(aside=[marks.count(r.k, r.n) if pd.notna(r.value) else "missing" for r in frames.rows(df)])
    subtitle = marks.note(df, level) if subtitle is None else subtitle
    chart = _rows(rows, label, role, references, "%", "Rate")
    words = marks.sentences(heading, subtitle, marks.row_words(rows, label, "%"))
    return chart.properties(title=title(heading, subtitle, 600), description=words)


def forest(
    df: pd.DataFrame,
    *,
    heading: str,
    subtitle: str = "",
    label: str = "label",
    group: str | None = None,
    references: Mapping[str, float] | None = None,
    unit: str = "",
    x_title: str = "Estimate",
) -> alt.LayerChart:
    """Draw a list of estimates with intervals in the given order, numbers on the right, reference lines dashed.

    Columns ``label``, ``value``, ``low``, ``high`` and, unless None, ``group`` (colour and shape). ``unit`` "%" shows
    rates in percent. An estimate without bounds is a bare point.
    """
    marks.need(df, [label, "value", "low", "high", group])
    rows = df.assign(aside=[marks.words(r.value, r.low, r.high, unit) for r in frames.rows(df)])
    chart = _rows(rows, label, group, references, unit, x_title)
    words = marks.sentences(heading, subtitle, marks.row_words(rows, label, unit))
    return chart.properties(title=title(heading, subtitle, 600), description=words)


def heatmaps(
    df: pd.DataFrame,
    panels: Mapping[str, str] | Sequence[str] | None = None,
    *,
    heading: str,
    subtitle: str | None = None,
    panel: str = "metric",
    row: str = "lr",
    column: str = "epochs",
    domain: tuple[float, float] = (0, 1),
    unit: str = "%",
    level: float = 0.95,
    columns: int = 3,
) -> alt.ConcatChart:
    """Draw grids of numbers side by side, one a panel: shade, value with its unit, interval below it, N in the tooltip.

    Tidy columns ``panel``, ``row``, ``column``, ``value``, ``low``, ``high``, ``n`` (and ``k`` for rates), a line a
    cell. ``panels`` picks and orders the panels; a mapping gives each its title, and without any all are drawn. A cell
    without a value is hatched and says missing. The shade runs from light at ``domain[0]`` to dark at ``domain[1]``, so
    it survives print in grey.
    """
    marks.need(df, [panel, row, column, "value", "low", "high", "n"])
    picked = list(dict.fromkeys(df[panel])) if panels is None else panels
    titles = dict(picked) if isinstance(picked, Mapping) else {name: name for name in picked}
    for name in titles:
        if name not in set(df[panel]):
            raise DataError(f"There is no panel {name!r} in column {panel!r}{nearest(name, df[panel].unique())}.")
    shown = df[df[panel].isin(list(titles))]
    marks.single(shown, [panel, row, column])
    grids = {name: _grid(shown[shown[panel] == name], shown, row, column, unit, domain) for name in titles}
    drawn = [_heatmap(grid, titles[name], row, column, domain) for name, grid in grids.items()]
    columns, width = min(columns, len(drawn)), shown[column].nunique() * CELL + 90
    note = f"{marks.note(shown, level) if subtitle is None else subtitle} Darker is higher."
    words = "; ".join(
        f"{titles[name]}: " + ", ".join(f"{row} {r.y} {column} {r.x} {r.words}" for r in frames.rows(grid))
        for name, grid in grids.items()
    )
    return alt.concat(*drawn, columns=columns).properties(
        title=title(heading, note, width * columns),
        description=marks.sentences(heading, note, words),
        usermeta={"pitch": width},
    )


def lines(
    df: pd.DataFrame,
    x: str,
    y: str,
    color: str | None = None,
    low: str | None = None,
    high: str | None = None,
    *,
    heading: str,
    subtitle: str = "",
    x_title: str | None = None,
    y_title: str | None = None,
    unit: str = "",
    log_y: bool = False,
    references: Mapping[str, float] | None = None,
    panel: str | None = None,
) -> alt.LayerChart | alt.ConcatChart:
    """Draw curves over ``x`` (loss, dose), one per value of ``color``, with a band from ``low`` to ``high`` if given.

    Series differ by colour and also by the shape of their points, or by dash if there are more than 25 steps. A missing
    value breaks its line. ``panel`` draws one chart per value of that column, on common axes.
    """
    marks.need(df, [x, y, color, low, high, panel])
    if (low is None) != (high is None):
        raise DataError("A band needs both its low and its high column. Give both, or neither.")
    data, style = marks.styled(df, color)
    if log_y and (df[y] <= 0).any():
        raise DataError(
            f"Column {y!r} holds values of 0 or less, which a log axis cannot show. Draw it with log_y=False."
        )
    y_at = marks.axis(y_title or y, unit, log=log_y)
    x_at = alt.X(field=x, type="quantitative", title=x_title or x, axis=alt.Axis(grid=False, tickCount=6))
    tooltip = [*marks.tips([x], "", ["series"]), *marks.tips([y, low, high], unit)]
    base = alt.Chart().encode(x=x_at, color=style["color"], tooltip=tooltip)
    band = base.mark_area(opacity=0.15)
    bands = [band.encode(y=alt.Y(field=low, **y_at), y2=alt.Y2(field=high))] if low and high else []
    line = base.mark_line(strokeWidth=2.2).encode(y=alt.Y(field=y, **y_at))
    if df[x].nunique() <= 25:
        points = base.mark_point(size=55, filled=True, opacity=1)
        curves = [line, points.encode(y=alt.Y(field=y, **y_at), shape=style["shape"])]
    else:
        curves = [line.encode(strokeDash=style["dash"])]
    layers = [*bands, *marks.references(references, "y"), *curves]
    by = ["series", panel] if panel else ["series"]
    words = "; ".join(marks.curve(part, key, x, y, unit) for key, part in data.groupby(by, sort=False))
    return marks.panelled(layers, data, panel, heading, subtitle, words)


def scatter_matched(
    df: pd.DataFrame,
    x: str = "source_rate",
    y: str = "leak",
    color: str = "lr",
    *,
    heading: str,
    subtitle: str = "",
    x_title: str = "Source rate",
    y_title: str = "Highest bystander rate",
    units: tuple[str, str] = ("%", "%"),
    references: Mapping[str, float] | None = None,
    panel: str | None = None,
    tooltip: Sequence[str] = (),
) -> alt.LayerChart | alt.ConcatChart:
    """Draw leak against strength, a point per cell with error bars both ways, to compare colours at equal ``x``.

    Columns ``x``, ``y``, ``color`` and the bounds ``<x>_low``, ``<x>_high``, ``<y>_low``, ``<y>_high``; ``tooltip``
    names further columns to show. Cells without both coordinates are counted in the subtitle, not drawn.
    """
    ends = {axis: (f"{axis}_low", f"{axis}_high") for axis in (x, y)}
    marks.need(df, [x, y, color, *ends[x], *ends[y], panel, *tooltip])
    data, style = marks.styled(df, color)
    lost = int(data[[x, y]].isna().any(axis=1).sum())
    subtitle += f" {lost} of {len(data)} cells have no value and are not drawn." if lost else ""
    data = data.dropna(subset=[x, y])
    if data.empty:
        raise DataError(f"No row has both {x!r} and {y!r}, so there is nothing to compare. Leave the chart out.")
    at_x, at_y = marks.axis(x_title, units[0]), marks.axis(y_title, units[1])
    base = alt.Chart().encode(color=style["color"])
    bars = base.mark_rule(strokeWidth=1.6, opacity=0.5)
    dots = base.mark_point(size=110, filled=True, opacity=1, stroke="white", strokeWidth=0.8)
    tips = [*marks.tips([x, *ends[x]], units[0], [color, *tooltip]), *marks.tips([y, *ends[y]], units[1])]
    x_at, y_at = alt.X(field=x, **at_x), alt.Y(field=y, **at_y)
    layers = [
        *marks.references(references, "y"),
        bars.encode(x=alt.X(field=ends[x][0], **at_x), x2=alt.X2(field=ends[x][1]), y=y_at),
        bars.encode(x=x_at, y=alt.Y(field=ends[y][0], **at_y), y2=alt.Y2(field=ends[y][1])),
        dots.encode(x=x_at, y=y_at, shape=style["shape"], tooltip=tips),
    ]
    pairs = ((r["series"], marks.number(r[x], units[0]), marks.number(r[y], units[1])) for r in data.to_dict("records"))
    words = "; ".join(f"{color} {name}: {across} against {up}" for name, across, up in pairs)
    return marks.panelled(layers, data, panel, heading, subtitle, f"{x_title} against {y_title}: {words}")


def _rows(
    df: pd.DataFrame,
    label: str,
    group: str | None,
    references: Mapping[str, float] | None,
    unit: str,
    x_title: str,
) -> alt.LayerChart:
    """Draw a point and a rule per row, in the order of ``df``; a second axis prints the column ``aside``."""
    marks.single(df, [label])
    data, style = marks.styled(df, group)
    order, aside = list(df[label]), dict(zip(df[label], df["aside"], strict=True))
    plain = {"ticks": False, "domain": False, "labelPadding": 8}
    y_at = {"field": label, "type": "nominal", "sort": order, "title": None, "scale": alt.Scale(domain=order)}
    x_at = marks.axis(x_title, unit)
    base = alt.Chart(data.dropna(subset=["value"])).encode(
        y=alt.Y(axis=alt.Axis(**plain), **y_at),
        color=style["color"],
        tooltip=marks.tips(["value", "low", "high"], unit, [label, group, "aside"]),
    )
    bars = base.mark_rule(strokeWidth=3, opacity=0.7).encode(x=alt.X(field="low", **x_at), x2=alt.X2(field="high"))
    points = base.mark_point(size=100, filled=True, opacity=1)
    points = points.encode(x=alt.X(field="value", **x_at), shape=style["shape"])
    main = alt.LayerChart(layer=[*marks.references(references, "x"), bars, points])
    printed = alt.Axis(orient="right", labelExpr=f"{json.dumps(aside)}[datum.value]", **plain)
    numbers = alt.Chart(data).mark_tick(opacity=0, color=INK).encode(y=alt.Y(axis=printed, **y_at))
    both = alt.LayerChart(layer=[main, numbers]).resolve_scale(y="independent")
    return both.properties(width=420, height=ROW * len(order))


def _grid(
    part: pd.DataFrame, whole: pd.DataFrame, row: str, column: str, unit: str, domain: tuple[float, float]
) -> pd.DataFrame:
    """Return every cell of the axes of ``whole`` with its texts; ``value`` is NaN where ``part`` has no row."""
    given = {(r[row], r[column]): r for r in part.to_dict("records")}
    cells = []
    for at in itertools.product(marks.order(whole[row]), marks.order(whole[column])):
        cell = given.get(at, {})
        value, low, high = (cell.get(name, np.nan) for name in ("value", "low", "high"))
        ends = "" if pd.isna(low) or pd.isna(high) else f"{marks.bare(low, unit)} to {marks.bare(high, unit)}"
        cells.append(
            {
                "y": scientific(at[0]),
                "x": scientific(at[1]),
                "value": None if pd.isna(value) else float(value),
                "number": marks.number(value, unit),
                "ends": ends,
                "count": marks.count(cell.get("k", np.nan), cell.get("n", np.nan)),
                "words": marks.words(value, low, high, unit),
                "ink": readable_ink((value - domain[0]) / (domain[1] - domain[0])),
            }
        )
    return pd.DataFrame(cells)


def _heatmap(grid: pd.DataFrame, name: str, row: str, column: str, domain: tuple[float, float]) -> alt.LayerChart:
    """Draw one panel of `heatmaps`."""
    plain = {"grid": False, "ticks": False, "domain": False, "labelAngle": 0}
    above = {"titleAngle": 0, "titleAlign": "right", "titleX": -6, "titleY": -3, "titleBaseline": "bottom"}
    x = alt.X(field="x", type="ordinal", sort=list(dict.fromkeys(grid["x"])), title=column, axis=alt.Axis(**plain))
    y = alt.Y(
        field="y", type="ordinal", sort=list(dict.fromkeys(grid["y"])), title=row, axis=alt.Axis(**plain, **above)
    )
    tooltip = marks.tips([], "", ["y", "x", "words", "count"])
    base = alt.Chart().encode(x=x, y=y, tooltip=tooltip)
    stops = list(np.linspace(*domain, len(RAMP)))
    scale = alt.Scale(domain=stops, range=RAMP, interpolate="rgb", clamp=True)
    shade = alt.Color(field="value", type="quantitative", scale=scale, legend=None)
    tile = {"stroke": "white", "strokeWidth": 2, "cornerRadius": 3}
    text = alt.Text(field="number", type="nominal")
    absent = base.properties(data=grid[grid["value"].isna()])
    layers = [
        base.properties(data=grid.dropna(subset=["value"])).mark_rect(**tile).encode(color=shade),
        absent.mark_rect(color=HATCH, **tile),
        absent.mark_text(fontSize=11, fontStyle="italic", color=MUTED).encode(text=text),
    ]
    for color, cells in grid.dropna(subset=["value"]).groupby("ink"):
        printed = base.properties(data=cells)
        layers.append(printed.mark_text(fontSize=14, fontWeight=600, dy=-6, color=str(color)).encode(text=text))
        ends = alt.Text(field="ends", type="nominal")
        layers.append(printed.mark_text(fontSize=11, dy=11, color=str(color)).encode(text=ends))
    chart = alt.LayerChart(layer=layers)
    return chart.properties(width=alt.Step(CELL), height=alt.Step(46), title=marks.panel_title(name))

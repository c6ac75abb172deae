"""Shared parts of the charts: checks of columns, numbers in words, the look of a series, reference lines, panels."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from helpers.base.errors import DataError, nearest
from helpers.show.colours import INK, MUTED, PLAIN, ROLES, looks, ordered
from helpers.show.figures import title


def need(df: pd.DataFrame, columns: Sequence[str | None]) -> None:
    """Raise ``DataError`` unless ``df`` has rows and every column named (None names no column)."""
    if df.empty:
        raise DataError("There is no row to draw. Check the selection, or leave the chart out.")
    for name in columns:
        if name is not None and name not in df.columns:
            raise DataError(f"The chart needs a column {name!r}{nearest(name, df.columns)}.")


def single(df: pd.DataFrame, keys: Sequence[str]) -> None:
    """Raise ``DataError`` if two rows would be drawn at one place."""
    doubled = df[df.duplicated(list(keys))]
    if len(doubled):
        where = ", ".join(f"{key} {scientific(doubled.iloc[0][key])}" for key in keys)
        raise DataError(f"Two rows share one place of the chart ({where}). Pool them, or select one, before drawing.")


def scientific(value: Any) -> str:
    """Format a label of an axis: 5e-6 and 3e5 for numbers far from 1, otherwise as short as possible."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return str(value)
    if value and not 1e-2 <= abs(float(value)) < 1e5:
        mantissa, exponent = f"{value:.3e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:g}"


def number(value: float, unit: str = "") -> str:
    """Format a number with its unit: a percentage with one decimal, or three significant figures, or ``missing``."""
    if pd.isna(value):
        return "missing"
    if unit == "%":
        return f"{100 * value:.1f}".removesuffix(".0") + "%"
    return f"{value:.3g} {unit}".rstrip()


def words(value: float | None, low: float | None, high: float | None, unit: str = "") -> str:
    """Format an estimate with its interval in brackets, ``(no interval)`` if it has none, or ``missing``."""
    if pd.isna(value):
        return "missing"
    if pd.isna(low) or pd.isna(high):
        return f"{number(value, unit)} (no interval)"
    return f"{number(value, unit)} [{bare(low, unit)}, {bare(high, unit)}]"


def count(k: float | None, n: float | None) -> str:
    """Format ``k/N`` with thousands separators, ``N`` alone if there is no k, ``missing`` without N."""
    if pd.isna(n):
        return "missing"
    return f"{int(n):,}" if pd.isna(k) else f"{int(k):,}/{int(n):,}"


def note(df: pd.DataFrame, level: float) -> str:
    """Return the subtitle of a chart of rates: N and the level of the intervals."""
    ns = df["n"].dropna()
    if ns.empty:
        return "No value yet."
    each = f"N = {int(ns.min()):,} each" if ns.min() == ns.max() else f"N from {int(ns.min()):,} to {int(ns.max()):,}"
    return f"{each}; {100 * level:g}% intervals."


def bare(value: float, unit: str) -> str:
    """Format like `number` but without the unit, where it is said elsewhere."""
    return number(value, unit).removesuffix(unit).rstrip()


def row_words(df: pd.DataFrame, label: str, unit: str) -> str:
    """Describe every row of ``df``: its label and its estimate with interval."""
    return "; ".join(f"{r[label]} {words(r['value'], r['low'], r['high'], unit)}" for r in df.to_dict("records"))


def curve(part: pd.DataFrame, key: Sequence[Any], x: str, y: str, unit: str) -> str:
    """Describe where a curve starts and ends."""
    known = part.dropna(subset=[y]).sort_values(x)
    name = " ".join(scientific(value) for value in key)
    if known.empty:
        return f"{name} missing"
    (x0, y0), (x1, y1) = (known.iloc[i][[x, y]] for i in (0, -1))
    return f"{name} from {number(y0, unit)} at {scientific(x0)} to {number(y1, unit)} at {scientific(x1)}"


def sentences(*parts: str) -> str:
    """Join parts of an alt text as sentences, each with one mark at its end."""
    clean = (" ".join(part.split()) for part in parts)
    return " ".join(part if part[-1] in ".?!" else f"{part}." for part in clean if part)


def order(values: pd.Series) -> list[Any]:
    """Return the distinct values: numbers by size, names in order of appearance."""
    unique = list(dict.fromkeys(values.dropna()))
    return sorted(unique) if pd.api.types.is_numeric_dtype(values) else unique


def axis(name: str, unit: str, log: bool = False) -> dict[str, Any]:
    """Return type, title, scale and axis of a position. Rates span 0 to 100%, other numbers their own range."""
    scale = alt.Scale(domain=[0, 1]) if unit == "%" else alt.Scale(zero=False, nice=True)
    scale = alt.Scale(type="log") if log else scale
    drawn = alt.Axis(format=".0%", tickCount=6) if unit == "%" else alt.Axis(tickCount=6)
    return {"type": "quantitative", "title": name, "scale": scale, "axis": drawn}


def tips(fields: Sequence[str | None], unit: str = "", labels: Sequence[str | None] = ()) -> list[alt.Tooltip]:
    """Return the lines of a tooltip: first ``labels`` as they are, then ``fields`` as numbers."""
    numeric = ".1%" if unit == "%" else ".4~g"
    named = [alt.Tooltip(field=label, type="nominal", title=label) for label in labels if label]
    return named + [alt.Tooltip(field=f, type="quantitative", title=f, format=numeric) for f in fields if f]


def styled(df: pd.DataFrame, color: str | None) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return ``df`` with a column ``series``, and its encodings: color, shape and dash with one legend.

    Names look the same in all charts (`colours.looks`). Numbers become an ordered ramp.
    """
    values = df[color] if color else pd.Series("all", index=df.index)
    numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    unique = order(values)
    if set(unique) <= set(ROLES):
        unique = [role for role in ROLES if role in unique]
    names = [scientific(value) for value in unique]
    drawn = (ordered(len(names)) if numeric and len(names) > 1 else looks(names)) if color else [PLAIN]
    legend = alt.Legend(title=color, symbolOpacity=1) if color else None

    def encoding(channel: type, kind: str = "nominal", **scale: Any) -> Any:
        return channel(field="series", type=kind, legend=legend, sort=None, scale=alt.Scale(domain=names, **scale))

    channels = {"color": (alt.Color, "ordinal" if numeric else "nominal"), "shape": (alt.Shape, "nominal")}
    channels |= {"dash": (alt.StrokeDash, "nominal")}
    encodings = {
        name: encoding(channel, kind, range=list(ranged))
        for (name, (channel, kind)), ranged in zip(channels.items(), zip(*drawn, strict=True), strict=True)
    }
    series: Any = [None if pd.isna(value) else scientific(value) for value in values]
    return df.assign(series=series), encodings


def references(lines: Mapping[str, float] | None, axis: str) -> list[alt.Chart]:
    """Return dashed lines across an axis (``x`` or ``y``), each with its name beside it."""
    if not lines:
        return []
    table = pd.DataFrame({"at": list(lines.values()), "name": list(lines)})
    if axis == "x":
        base = alt.Chart(table).encode(x=alt.X(field="at", type="quantitative"))
        name = base.mark_text(align="left", baseline="bottom", dx=3, dy=-3, fontSize=11, color=MUTED, y=0)
    else:
        base = alt.Chart(table).encode(y=alt.Y(field="at", type="quantitative"))
        name = base.mark_text(align="right", baseline="bottom", dx=-2, dy=-3, fontSize=11, color=MUTED, x="width")
    rule = base.mark_rule(strokeDash=[5, 4], color=INK, opacity=0.65)
    return [rule, name.encode(text=alt.Text(field="name", type="nominal"))]


def panelled(
    layers: Sequence[alt.Chart], df: pd.DataFrame, panel: str | None, heading: str, subtitle: str, words: str
) -> alt.LayerChart | alt.ConcatChart:
    """Draw the layers over ``df``. With ``panel``, draw one chart for each value of that column, on common axes."""
    description = sentences(heading, subtitle, words)
    if panel is None:
        chart = alt.LayerChart(layer=list(layers), data=df).properties(width=480, height=300)
        return chart.properties(title=title(heading, subtitle, 560), description=description)
    parts = {scientific(value): df[df[panel] == value] for value in dict.fromkeys(df[panel].dropna())}
    drawn = [
        alt.LayerChart(layer=list(layers), data=part).properties(width=250, height=240, title=panel_title(name))
        for name, part in parts.items()
    ]
    columns = min(3, len(drawn))
    joined = alt.concat(*drawn, columns=columns).resolve_scale(x="shared", y="shared")
    heading_at = title(heading, subtitle, 320 * columns)
    return joined.properties(title=heading_at, description=description, usermeta={"pitch": 330})


def panel_title(name: str) -> alt.TitleParams:
    """Return the small title above one of several panels."""
    return alt.TitleParams(text=name, fontSize=13, fontWeight=600, frame="group", offset=8)

"""Matrices too large for printed numbers, drawn as shades. ``plots`` offers them beside the other charts."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import numpy as np
import pandas as pd

from helpers.base.errors import DataError, nearest
from helpers.show import marks
from helpers.show.colours import RAMP
from helpers.show.figures import title


def matrices(
    df: pd.DataFrame,
    panels: Sequence[str],
    *,
    heading: str,
    subtitle: str = "",
    panel: str = "kind",
    row: str = "p",
    column: str = "q",
    value: str = "cosine",
    domain: tuple[float, float] = (0, 1),
    size: int = 190,
) -> alt.ConcatChart:
    """Draw large matrices side by side as shades with one legend, for more cells than `heatmaps` can print.

    Tidy columns ``panel``, ``row``, ``column`` and ``value``, a line a cell; rows and columns in numerical order. A
    value outside ``domain`` gets the shade of its nearest end; the tooltip has the number.
    """
    marks.need(df, [panel, row, column, value])
    marks.single(df, [panel, row, column])
    stops = list(np.linspace(*domain, len(RAMP)))
    shade = alt.Color(
        field=value, type="quantitative", scale=alt.Scale(domain=stops, range=RAMP, interpolate="rgb", clamp=True),
        legend=alt.Legend(title=value, gradientLength=size),
    )  # fmt: skip
    drawn, described = [], []
    for name in panels:
        part = df[df[panel] == name]
        if part.empty:
            raise DataError(f"There is no panel {name!r} in column {panel!r}{nearest(name, df[panel].unique())}.")
        ticks = {"labelAngle": 0, "labelOverlap": True, "ticks": False, "domain": False}
        x = alt.X(field=column, type="ordinal", title=column, axis=alt.Axis(**ticks))
        y = alt.Y(field=row, type="ordinal", title=row, axis=alt.Axis(**ticks))
        tips = [*marks.tips([], "", [row, column]), *marks.tips([value])]
        tile = alt.Chart(part).mark_rect().encode(x=x, y=y, color=shade, tooltip=tips)
        drawn.append(tile.properties(width=size, height=size, title=marks.panel_title(name)))
        off = part[part[row] != part[column]][value]
        described.append(f"{name}: off the diagonal from {marks.number(off.min())} to {marks.number(off.max())}, "
                    f"mean {marks.number(off.mean())}")  # fmt: skip
    return alt.concat(*drawn, columns=3).properties(
        title=title(heading, subtitle, (size + 60) * len(drawn)),
        description=marks.sentences(heading, subtitle, "; ".join(described)),
        usermeta={"pitch": size + 75},
    )

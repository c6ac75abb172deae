"""The colours of charts: one mapping from names to looks, and what each colour becomes in a dark theme.

The palette is Okabe & Ito's (colour-blind safe), in an order whose neighbours also differ in grey. Every chart adds
shapes, dashes or printed numbers, so that no chart relies on colour alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import altair as alt
import numpy as np

INK, MUTED, FAINT, AXIS = "#222222", "#5c5c5c", "#e6e6e6", "#8a8a8a"
PALETTE = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#111111"]
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right"]
DASHES = [[1, 0], [7, 3], [2, 2], [9, 3, 2, 3], [4, 2, 1, 2], [12, 4], [1, 3]]
ROLES = {
    "source": "#D55E00", "assistant": "#111111", "trained": "#0072B2", "untrained": "#3B9BD6", "control": "#009E73",
}  # fmt: skip
ORDERED = ["#5ec962", "#28ae80", "#21918c", "#2c728e", "#3b528b", "#472d7b", "#440154"]
"""Series that stand for numbers, from the least to the greatest (viridis)."""
RAMP = ["#eef3f9", "#c3d5ea", "#7ea7d2", "#2f6ca8", "#0b2e5c"]
"""Shades of tiles, which look the same in both themes, with the ink of :func:`readable_ink` on them."""
HATCH = alt.Gradient(
    gradient="linear",
    stops=[alt.GradientStop(color=("#ffffff", "#dcdcdc")[i // 2 % 2], offset=(i + 1) // 2 / 10) for i in range(20)],
    **{"x1": 0, "y1": 0, "x2": 1, "y2": 1},
)
PLAIN = (PALETTE[0], SHAPES[0], DASHES[0])
"""The look of the one series of a chart without colours."""

DARK = {
    "white": "#16191d", INK: "#e3e6e8", MUTED: "#a4abb3", FAINT: "#2b3137", AXIS: "#7d858c", "#3B9BD6": "#8fcbf3",
    "#0072B2": "#4b9fe0", "#E69F00": "#f0b13c", "#009E73": "#2fc08f", "#CC79A7": "#e39ac4", "#D55E00": "#f47f45",
    "#56B4E9": "#a5dcff", "#111111": "#f2f2f2",
    "#5ec962": "#4f83a8", "#28ae80": "#3b94a5", "#21918c": "#2ea59c", "#2c728e": "#3dbb7c", "#3b528b": "#74d055",
    "#472d7b": "#b8de29", "#440154": "#fde725",
}  # fmt: skip
"""Colour of a mark or a word -> its colour on a dark page."""
DARK_HATCH = {"#ffffff": "#23292f", "#dcdcdc": "#3d444b"}

_places: dict[str, int] = {}


def begin() -> None:
    """Begin another page in this process: only roles have their looks already."""
    _places.clear()
    _places.update({name: place for place, name in enumerate(ROLES)})


begin()


def looks(names: Sequence[str]) -> list[tuple[str, str, list[int]]]:
    """Return colour, shape and dash of each name; a name keeps them in all charts of a page or notebook.

    A new name takes the colour that the chart lacks and the page has used least. When names outnumber colours, those of
    one colour differ in shape and dash.
    """
    for name in names:
        if name not in _places:
            here = {_places[other] % len(PALETTE) for other in names if other in _places and other not in ROLES}
            used = Counter(place % len(PALETTE) for other, place in _places.items() if other not in ROLES)
            colour = min(range(len(PALETTE)), key=lambda one: (one in here, used[one], one))
            _places[name] = colour + len(PALETTE) * used[colour]
    return [_look(name, _places[name]) for name in names]


def _look(name: str, place: int) -> tuple[str, str, list[int]]:
    moved = place + place // len(PALETTE)  # so that a colour meets another shape in each round
    return ROLES.get(name, PALETTE[place % len(PALETTE)]), SHAPES[moved % len(SHAPES)], DASHES[moved % len(DASHES)]


def ordered(count: int) -> list[tuple[str, str, list[int]]]:
    """Return the looks of ``count`` numbers by size, from light to dark (on a dark page from dim to bright)."""
    at = np.linspace(0, len(ORDERED) - 1, count).round().astype(int)
    return [
        (ORDERED[colour], SHAPES[i % len(SHAPES)], DASHES[(i + i // len(DASHES)) % len(DASHES)])
        for i, colour in enumerate(at)
    ]


def readable_ink(fraction: float) -> str:
    """Return black or white, whichever has more contrast at ``fraction`` of `RAMP` (at least 4.5 to 1, WCAG 1.4.3)."""
    return "#ffffff" if luminance(shade(fraction)) < 0.18 else "#000000"


def shade(fraction: float) -> tuple[float, ...]:
    """Return red, green and blue (0 to 255) at ``fraction`` of `RAMP`, interpolated in RGB as in the charts."""
    stops = np.linspace(0, 1, len(RAMP))
    channels = np.array([[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in RAMP])
    return tuple(float(np.interp(fraction, stops, channel)) for channel in channels.T)


def luminance(rgb: tuple[float, ...]) -> float:
    """Return the relative luminance of a colour (WCAG 2.2, from sRGB): 0 is black, 1 is white."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (value / 255 for value in rgb)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

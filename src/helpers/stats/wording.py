"""Numbers in words: a value with its unit, an interval with its bounds. Pages and verdicts say them in one way."""

from __future__ import annotations

import math

from helpers.stats import estimands
from helpers.stats.estimands import BOUNDS, RANGE
from helpers.stats.intervals import Interval

SUFFIX = {"rate": "%"} | dict.fromkeys(("share", "cosine", "probability", "rank correlation"), "")


def spoken(interval: Interval, unit: str) -> str:
    """An interval in full: ``66 % (21/32, 95 % CI 48–80)``."""
    inside = []
    if interval.k is not None:
        inside.append(f"{interval.k}/{interval.n}")
    elif interval.n is not None:
        inside.append(f"N {interval.n}")
    inside.append(f"{_kind(interval)} {_joined(interval.bounds, interval, unit)}" if interval.bounds else "no interval")
    return f"{number(interval.value, unit, interval.n)} ({', '.join(inside)})"


def spoken_bounds(interval: Interval) -> str:
    """Return the bounds of an interval alone, in words: ``up to 11.5 %``, ``at least 0.68``, ``12–40 %``."""
    if interval.bounds is None:
        return "anything"
    unit, (low, high) = interval.extra.get("unit", ""), interval.bounds
    bottom, top = estimands.bounds_of(unit) or (-math.inf, math.inf)
    if low <= bottom:
        return f"up to {number(high, unit, interval.n)}"
    if high >= top:
        return f"at least {number(low, unit, interval.n)}"
    return f"{_joined((low, high), interval, unit)} {_suffix(unit)}".strip()


def _kind(interval: Interval) -> str:
    """Return what the bounds are called: smallest and largest of a few runs are no confidence interval."""
    return RANGE if RANGE in interval.method else f"{100 * interval.level:.4g} % CI"


def _joined(bounds: tuple[float, float], interval: Interval, unit: str) -> str:
    low, high = (_digits(end, unit, interval.n) for end in bounds)
    return f"{low}{' to ' if bounds[0] < 0 else '–'}{high}"


def number(value: float, unit: str, n: int | None = None) -> str:
    """Return a value with its unit: rates in per cent (with a decimal below 10 % or from N 200), others in 3 digits."""
    digits, word = _digits(value, unit, n), _suffix(unit)
    one = digits.strip("\N{MINUS SIGN}") == "1" and word.isalpha() and len(word) > 2
    return f"{digits} {word.removesuffix('s') if one else word}".strip()


def _digits(value: float, unit: str, n: int | None) -> str:
    if unit in ("rate", "points"):
        value = 100 * value
        shown = f"{value:.1f}" if abs(value) < 10 or (n or 0) >= 200 else f"{value:.0f}"
        shown = shown.removesuffix(".0")
    elif BOUNDS.get(unit, (0, 0))[1] == 1 and 0 < 1 - abs(value) < 0.01:
        # Next to the bound it is the distance from it that is read: 0.99962, and not 1.
        shown = f"{value:.{min(6, 1 - math.floor(math.log10(1 - abs(value))))}f}"
    else:
        shown = f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.3g}"
    return "0" if shown == "-0" else shown.replace("-", "\N{MINUS SIGN}", 1) if value < 0 else shown


def _suffix(unit: str) -> str:
    return SUFFIX.get(unit, unit)

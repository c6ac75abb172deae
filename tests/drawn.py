"""The charts of a rendered page, read from its scripts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

CHART = re.compile(r'window\.claimbookDraw\("[^"]+",(\{.*?\})\);</script>')


def charts(html: str) -> list[dict[str, Any]]:
    """The Vega-Lite specification of every chart of a page."""
    return [json.loads(found) for found in CHART.findall(html)]


def colours(chart: Any) -> Iterator[dict[str, str]]:
    """The colours of series by name, one mapping a layer that has them."""
    if isinstance(chart, dict):
        scale = chart["color"].get("scale", {}) if isinstance(chart.get("color"), dict) else {}
        if chart.get("color", {}) and isinstance(scale.get("range"), list) and chart["color"].get("field") == "series":
            yield dict(zip(scale["domain"], scale["range"], strict=True))
        chart = list(chart.values())
    for part in chart if isinstance(chart, list) else ():
        yield from colours(part)

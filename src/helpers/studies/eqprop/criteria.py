"""Numbers that ``params/triangulation/criteria.yaml`` judges and that no run records.

Each takes complete records and the estimand that its interval is to speak of, and returns a metric as a run record
holds it, or None where the records do not give it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from helpers.base import estimands
from helpers.base.estimands import Estimand
from helpers.base.stats import Interval
from helpers.records.reading import Record


def ceilings_reached(records: Sequence[Record], estimand: Estimand) -> dict[str, Any] | None:
    """How many settings of the controller grid end with their weight at a ceiling that is above the floor."""
    seeds = []
    for record in records:
        if "grid" not in record.tables:
            return None
        grid = record.table("grid").drop_duplicates(["floor", "target", "maximum"])
        reached = (grid["weight"] >= grid["maximum"]) & (grid["maximum"] > grid["floor"])
        seeds.append(Interval(float(reached.sum()), None, None, len(grid), None, "count"))
    return estimands.number(seeds, "settings", estimand).metric("settings") if seeds else None

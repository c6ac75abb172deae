"""Numbers that ``params/triangulation/criteria.yaml`` judges and that no run records.

Each takes complete records and the estimand that its interval is to speak of, and returns a metric as a run record
holds it, or None where the records do not give it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from helpers.records.reading import Record
from helpers.stats import estimands
from helpers.stats.estimands import Estimand
from helpers.stats.intervals import Interval


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

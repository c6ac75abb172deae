"""Metrics of a run as means over batches, and the spelling of their names."""

from __future__ import annotations

from typing import Any

import pandas as pd

from helpers.stats import intervals

Findings = dict[str, dict[str, Any] | None]
"""Metrics by name; None for one that could not be measured."""


def mean(values: pd.Series, unit: str) -> dict[str, Any] | None:
    """Return the mean with a t interval over batches; None if any is missing, because the rest would be biased."""
    return None if values.empty or values.isna().any() else intervals.mean_interval(values.to_numpy(float)).metric(unit)


def paired(table: pd.DataFrame, key: str, a: Any, b: Any, value: str, unit: str, on: str = "batch") -> dict | None:
    """Return the mean of ``value`` at ``key`` = a minus that at b, paired by ``on``."""
    wide = table.pivot_table(index=on, columns=key, values=value, dropna=False)
    return mean(wide[a] - wide[b], unit) if {a, b} <= set(wide) else None


def metric_part(name: object) -> str:
    """Spell the name of a gradient or arm as part of a metric's name."""
    return str(name).replace(", ", "_").replace(" = ", "").replace(" ", "_").replace("-", "_").lower()

"""One row a cell and metric, pooled over seeds: what the heatmaps of the notebook show.

Maxima and paired differences are pooled by the functions that the criteria use. A page takes its intervals from the
claims floor instead, which also widens them by the clustering that each run recorded.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from helpers.base import stats
from helpers.records.reading import Record
from helpers.studies.marker.criteria import capability_drop, max_bystander_rate, min_persona_rate

RATES = ("source_rate", "assistant_rate", "max_bystander_rate", "trained_bystander_rate", "untrained_bystander_rate")
BY_FUNCTION = {
    "max_bystander_rate": max_bystander_rate,
    "min_persona_rate": min_persona_rate,
    "capability_drop": capability_drop,
}
KEYS = ("value", "low", "high", "k", "n")


def pooled(
    records: Sequence[Record], names: Sequence[str] = RATES, by: Sequence[str] = ("tail", "lr", "epochs")
) -> pd.DataFrame:
    """Cell, metric, seeds, value, low, high, k, n. A metric that a cell does not have gives no row: missing is no zero.

    Rates are pooled by counts with a design effect between seeds, other metrics by the t interval over seeds.
    """
    cells: dict[tuple, list[Record]] = {}
    for record in records:
        cells.setdefault(tuple(record.cell[axis] for axis in by), []).append(record)
    rows = []
    for cell, members in cells.items():
        for name in names:
            having = [record for record in members if name in record.metrics or name in BY_FUNCTION]
            if having:
                rows.append(
                    dict(zip(by, cell, strict=True)) | {"metric": name, "seeds": len(having)} | _pool(name, having)
                )
    return pd.DataFrame(rows)


def _pool(name: str, records: Sequence[Record]) -> dict:
    if name in BY_FUNCTION:
        found = BY_FUNCTION[name](records)
        return {key: found.get(key) for key in (*KEYS, "persona")}
    metrics = [record.metrics[name] for record in records]
    if len(metrics) == 1:
        return {key: metrics[0].get(key) for key in KEYS}
    if metrics[0]["unit"] == "rate":
        interval = stats.pooled_rate([m["k"] for m in metrics], [m["n"] for m in metrics])
    else:
        interval = stats.mean_over_seeds([m["value"] for m in metrics])
    return {key: getattr(interval, key) for key in KEYS}

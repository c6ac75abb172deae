"""Pool metrics over seeds for the heatmaps of the notebook.

Intervals are those of pages: maxima and paired differences by the functions that the criteria use, the rest by
`stats.pooling`. They speak of these models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from helpers.records.reading import Record
from helpers.stats.estimands import MODELS
from helpers.stats.pooling import ByQuestion, pool
from helpers.studies.marker.criteria import capability_drop, max_bystander_rate, min_persona_rate
from helpers.studies.marker.questions import by_question

RATES = ("source_rate", "assistant_rate", "max_bystander_rate", "trained_bystander_rate", "untrained_bystander_rate")
BY_FUNCTION = {
    "max_bystander_rate": max_bystander_rate,
    "min_persona_rate": min_persona_rate,
    "capability_drop": capability_drop,
}
KEYS = ("value", "low", "high", "k", "n")


def pooled(
    records: Sequence[Record],
    names: Sequence[str] = RATES,
    by: Sequence[str] = ("tail", "lr", "epochs"),
    count: ByQuestion = by_question,
) -> pd.DataFrame:
    """Return cell, metric, seeds, value, low, high, k, n. A metric that a cell lacks gives no row.

    ``count`` gives the counts of a rate by question, as the study of ``records`` does.
    """
    cells: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        cells.setdefault(tuple(record.cell[axis] for axis in by), []).append(record)
    rows = []
    for cell, members in cells.items():
        for name in names:
            having = [record for record in members if name in record.metrics or name in BY_FUNCTION]
            if having:
                key = dict(zip(by, cell, strict=True)) | {"metric": name, "seeds": len(having)}
                rows.append(key | _pool(name, having, count))
    return pd.DataFrame(rows)


def _pool(name: str, records: Sequence[Record], count: ByQuestion) -> dict[str, Any]:
    if name in BY_FUNCTION:
        metric = BY_FUNCTION[name](records, MODELS)
        return {key: metric.get(key) for key in (*KEYS, "persona")}
    interval = pool(records, name, count)
    return {key: getattr(interval, key) for key in KEYS}

"""The published length ablation (#295): source rates under whole-turn loss, with the missing intervals.

The table in ``data/marker`` is transcribed from that issue. Nothing here was run by this project.
"""

from __future__ import annotations

import pandas as pd

from helpers.base.files import DATA
from helpers.stats import intervals

CUT = {"cut at a fifth": 0.2}
"""The rate below which that issue called a marker not learned, from its outcome table."""


def table() -> pd.DataFrame:
    """Return one row per length: tokens of an answer, source rate with its Wilson interval, k and n."""
    rows = []
    for row in pd.read_csv(DATA / "marker" / "lengths353.csv").to_dict("records"):
        rate = intervals.wilson(round(row["source_rate"] * row["n"]), row["n"])
        rows.append({"length": f"{row['length']}, {row['tokens']} tokens", "value": rate.value, "low": rate.low,
                     "high": rate.high, "k": rate.k, "n": rate.n})  # fmt: skip
    return pd.DataFrame(rows)

"""The published length ablation (#295): source rates under whole-turn loss, with the intervals that it left out.

The table in ``data/marker`` is transcribed from that issue; nothing here was run by this project.
"""

from __future__ import annotations

import pandas as pd

from helpers.base import stats
from helpers.base.files import DATA

CUT = {"cut at a fifth": 0.2}
"""The rate below which that issue called a marker not learned, as its outcome table has it."""


def table() -> pd.DataFrame:
    """One row a length: tokens of an answer, source rate with its Wilson interval, k and n."""
    rows = []
    for row in pd.read_csv(DATA / "marker" / "lengths353.csv").to_dict("records"):
        found = stats.wilson(round(row["source_rate"] * row["n"]), row["n"])
        rows.append({"length": f"{row['length']}, {row['tokens']} tokens", "value": found.value, "low": found.low,
                     "high": found.high, "k": found.k, "n": found.n})  # fmt: skip
    return pd.DataFrame(rows)

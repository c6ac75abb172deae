"""How the epochs of a sample become one value, as Inspect defines it (https://inspect.aisi.org.uk/scorers.html).

mean, median, mode and max; at_least_K: 1 where K draws or more are right; pass_at_K: the chance that one of K draws is
right (Chen et al. 2021, arXiv:2107.03374, eq. 1), which wants K draws.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np
import pandas as pd

AT = re.compile(r"(at_least|pass_at)_(\d+)")
PLAIN: dict[str, Callable[[np.ndarray], float]] = {
    "mean": np.mean, "median": np.median, "max": np.max, "mode": lambda x: pd.Series(x).mode().iloc[0],
}  # fmt: skip


def is_known(reducer: str) -> bool:
    """Whether epochs can be reduced so."""
    return reducer in PLAIN or AT.fullmatch(reducer) is not None


def reduced(rows: pd.DataFrame, reducer: str) -> pd.DataFrame:
    """Return one row a sample, its value that of ``reducer`` over its epochs; samples without a value are left out."""
    by_sample = rows.dropna(subset=["value"]).groupby("sample", sort=False)
    values = by_sample["value"].apply(lambda own: _reduce(own.to_numpy(), reducer))
    return pd.DataFrame({"value": values, "cluster": by_sample["cluster"].first()}).dropna().reset_index()


def _reduce(values: np.ndarray, reducer: str) -> float:
    named = AT.fullmatch(reducer)
    if named is None:
        return float(PLAIN[reducer](values))
    k, right = int(named[2]), int((values >= 1).sum())
    if named[1] == "at_least":
        return float(right >= k)
    return math.nan if len(values) < k else 1 - math.comb(len(values) - right, k) / math.comb(len(values), k)

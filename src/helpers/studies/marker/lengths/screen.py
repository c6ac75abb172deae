"""The factor screen (#365): a 2^4 factorial over length, loss, policy and framing, with main effects and pairs.

Every cell must train the same number of steps, because a factor that also changed the dose would be two factors.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from helpers.base.errors import DataError
from helpers.records.reading import Record

FACTORS: dict[str, tuple[str, str]] = {
    "length": ("short", "long"),
    "tail": ("whole_turn", "newline"),
    "policy": ("off_policy", "on_policy"),
    "framing": ("name", "full"),
}
"""Axis -> low and high level. An effect is high minus low."""


def is_factorial(records: Sequence[Record]) -> bool:
    """Return whether every combination of levels was run with the same seeds."""
    seeds: dict[tuple, list[int]] = {levels: [] for levels in itertools.product(*FACTORS.values())}
    for record in records:
        levels = tuple(record.cell[factor] for factor in FACTORS)
        if levels not in seeds:
            return False
        seeds[levels].append(record.cell["seed"])
    wanted = sorted(next(iter(seeds.values())))
    return bool(wanted) and all(sorted(found) == wanted for found in seeds.values())


def terms() -> list[tuple[str, ...]]:
    """Return main effects, then two-way interactions."""
    return [(factor,) for factor in FACTORS] + list(itertools.combinations(FACTORS, 2))


def effects(records: Sequence[Record], outcome: str = "source_rate", level: float = 0.95) -> pd.DataFrame:
    """Return one row per term: the effect on ``outcome`` with its interval, ``term`` and ``kind`` (main, interaction).

    Least squares over runs with seeds as blocks; a main effect is the mean at the high level minus that at the low
    one, an interaction half the difference between the effect of one factor at the two levels of the other (Box,
    Hunter & Hunter 2005, chapter 5). Standard errors are HC3, because the spread of a rate depends on the rate, on a
    t distribution. Raises ``DataError`` if the records are not a whole factorial or differ in their number of steps.
    """
    if not is_factorial(records):
        raise DataError(
            f"These {len(records)} records are not a whole factorial over {', '.join(FACTORS)}. Run all of "
            "params/length_ablation/screen.yaml, and pass only its records."
        )
    steps = {record.metrics["steps"]["value"] for record in records}
    if len(steps) > 1:
        raise DataError(f"The runs trained {sorted(steps)} steps. Give all cells of a screen the same number.")
    signs = {f: np.array([1.0 if r.cell[f] == high else -1.0 for r in records]) for f, (_, high) in FACTORS.items()}
    columns = {" x ".join(term): np.prod([signs[factor] for factor in term], axis=0) / 2 for term in terms()}
    seeds = sorted({record.cell["seed"] for record in records})
    blocks = {f"seed {s}": [float(record.cell["seed"] == s) for record in records] for s in seeds}
    y = np.array([record.metrics[outcome]["value"] for record in records])
    import statsmodels.api as sm  # here, because it takes over a second and reading criteria does not need it

    fit = sm.OLS(y, pd.DataFrame(columns | blocks)).fit(cov_type="HC3", use_t=True)
    bounds = fit.conf_int(1 - level)
    return pd.DataFrame(
        [
            {"term": name, "kind": "interaction" if " x " in name else "main effect", "outcome": outcome,
             "value": float(fit.params[name]), "low": float(bounds.loc[name, 0]), "high": float(bounds.loc[name, 1]),
             "n": len(records)}
            for name in columns
        ]
    )  # fmt: skip

"""Whether cells made in two number types agree: rates, losses and dose curves of the same cells on the same rows.

1. Each answer in one type has its twin in the other: same persona, question and random stream. A rate differs where the
   paired interval of the difference leaves out zero, at .05 over all rates of all cells (Bonferroni).
2. The loss is averaged over each tenth of the steps. Means agree within `LOSS` nats or `SHARE` of the mean in fp32.
3. A dose curve is the mean log-prob of blank line and marker of a role, by step. Curves agree within `DOSE` nats.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from helpers.records.study import Metrics, Tables
from helpers.stats import estimands
from helpers.stats.estimands import MODELS
from helpers.stats.intervals import Interval
from helpers.studies.marker.answers import judged, usual_words

TYPES = ("float32", "bfloat16")
LOSS, SHARE, DOSE = 0.02, 0.05, 1.0
TENTHS = 10
ADDRESS = ["persona", "index"]


def rates(cells: int, tables: Tables, marker: str) -> pd.DataFrame:
    """Return cell, rate, and the interval of bf16 minus fp32, for every rate whose answers both types have."""
    pairs = [
        (cell, name, wide, half)
        for cell in range(cells)
        for name, wide, half in _paired(*(_answers(cell, dtype, tables, marker) for dtype in TYPES))
    ]
    estimand = MODELS.corrected(len(pairs))
    return pd.DataFrame(
        [
            {"cell": cell, "rate": name, "interval": estimands.paired_difference(half, wide, estimand)}
            for cell, name, wide, half in pairs
        ]
    )


def _answers(cell: int, dtype: str, tables: Tables, marker: str) -> pd.DataFrame:
    completions = tables[f"completions-{cell}-{dtype}"]
    table = judged(completions, usual_words(tables["base"], marker), marker)
    return table.assign(index=completions.loc[table.index, "index"])


def _paired(wide: pd.DataFrame, half: pd.DataFrame) -> Iterator[tuple[str, Any, Any]]:
    """Yield each rate and its successes in both types: answers [persona and index, question], 0 or 1."""
    parts = {
        "source_rate": (wide["role"] == "source", "marked"),
        "assistant_rate": (wide["persona"] == "assistant", "marked"),
        "trained_bystander_rate": (wide["role"] == "trained", "marked"),
        "untrained_bystander_rate": (wide["role"].isin(["untrained", "assistant"]), "marked"),
        "answers_kept": (wide["n"] == 1, "kept"),
        "wordless_rate": (wide["n"] == 1, "wordless"),
        "cut_rate": (wide["n"] == 1, "truncated"),
    }
    for name, (chosen, column) in parts.items():
        if chosen.any():
            yield name, *(_grid(table[chosen.to_numpy()], column) for table in (wide, half))


def _grid(table: pd.DataFrame, column: str) -> Any:
    return table.pivot(index=ADDRESS, columns="question", values=column).to_numpy(dtype=int)


def tenths(cells: int, tables: Tables) -> pd.DataFrame:
    """Return the mean loss in both types in each tenth of the steps of each cell, and whether the two agree."""
    found = [tables[f"loss-{cell}-{dtype}"].assign(cell=cell, dtype=dtype) for cell in range(cells) for dtype in TYPES]
    whole = pd.concat(found, ignore_index=True)
    steps = whole.groupby(["cell", "dtype"])["step"].transform("max")
    means = whole.assign(tenth=(whole["step"] - 1) * TENTHS // steps).pivot_table(
        index=["cell", "tenth"], columns="dtype", values="loss"
    )
    gap = (means["bfloat16"] - means["float32"]).abs()
    return means.assign(gap=gap, agrees=(gap <= LOSS) | (gap <= SHARE * means["float32"])).reset_index()


def doses(cells: int, tables: Tables) -> pd.DataFrame:
    """Return both dose curves of every cell and role, in nats, and their distance at each step."""
    found = [tables[f"dose-{cell}-{dtype}"].assign(cell=cell, dtype=dtype) for cell in range(cells) for dtype in TYPES]
    whole = pd.concat(found, ignore_index=True)
    curves = whole.assign(emission=whole["separator"] + whole["marker"]).pivot_table(
        index=["cell", "role", "step"], columns="dtype", values="emission"
    )
    return curves.assign(gap=(curves["bfloat16"] - curves["float32"]).abs()).reset_index()


def agreement(cell: Mapping[str, Any], tables: Tables) -> Metrics:
    """Return what was compared, the largest differences, and how many of them the gate does not allow."""
    count = int(cell["cells"])
    compared, losses, curves = rates(count, tables, cell["marker"]), tenths(count, tables), doses(count, tables)
    largest = max(compared["interval"], key=lambda one: abs(one.value))
    apart = {
        "rates_apart": (sum(map(_differs, compared["interval"])), len(compared)),
        "tenths_apart": (int((~losses["agrees"]).sum()), len(losses)),
        "doses_apart": (int((curves["gap"] > DOSE).sum()), len(curves)),
    }
    metrics: Metrics = {name: {"value": number, "unit": "comparisons", "n": n} for name, (number, n) in apart.items()}
    metrics["largest_rate_difference"] = replace(largest, extra={}).metric("points")
    metrics["largest_loss_gap"] = {"value": float(losses["gap"].max()), "unit": "nats", "n": len(losses)}
    metrics["largest_dose_gap"] = {"value": float(curves["gap"].max()), "unit": "nats", "n": len(curves)}
    return metrics


def _differs(interval: Interval) -> bool:
    low, high = interval.checked_bounds()
    return low > 0 or high < 0

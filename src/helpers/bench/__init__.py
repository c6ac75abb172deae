"""Speed, measured side by side in one process: ``make bench`` runs every comparison and keeps the rows as a record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from helpers import files, models, runs
from helpers.bench import gradients
from helpers.bench.compare import Side, compare
from helpers.bench.marker import evaluation_sides, training_sides
from helpers.errors import ClaimbookError, nearest

__all__ = ["Side", "compare", "main"]

SIDES = {"training": training_sides, "evaluation": evaluation_sides}
COMPARISONS = (*SIDES, "gradients")


def main(names: Sequence[str] = ()) -> None:
    """Run the comparisons ``names`` (default: all), print their tables, and leave a record under ``outputs/bench``."""
    for name in names:
        if name not in COMPARISONS:
            raise ClaimbookError(f"There is no comparison {name!r}{nearest(name, COMPARISONS)}")
    tables = {}
    threads = models.choose_threads()
    print(f"{threads} threads; medians and ratios over interleaved runs; non-padding tokens only")
    for name in names or COMPARISONS:
        tables[name] = compare(name, SIDES[name]) if name in SIDES else gradients.gradient_costs()
        print(f"\n{name}\n{tables[name].round(3).to_string(index=False)}")
    _keep(tables)


def _keep(tables: dict[str, pd.DataFrame]) -> None:
    """The rows as a record: a figure that stands on a page comes from it."""
    when = pd.Timestamp.now("UTC").isoformat(timespec="seconds")
    timed = _models(tables)
    with runs.open_run(
        "bench", params={"when": when}, cell={"when": when}, prefix="bench", entry=__name__, data=[],
        model={"name": ", ".join(timed), "sha256": files.sha256_json({k: v["sha256"] for k, v in timed.items()})},
    ) as run:  # fmt: skip
        for name, table in tables.items():
            run.step(name, lambda table=table: table)
            run.metrics(_speed_up(name, table) if name in SIDES else gradients.ratios(table))
        record = run.finish()
    print(f"\nkept as {record.ref}")


def _models(tables: dict[str, pd.DataFrame]) -> dict[str, dict[str, Any]]:
    found = {name: models.fingerprint(name, None) for name in ("pocket", "smollm2") if tables.keys() & SIDES.keys()}
    return found | ({"equilibrium": gradients.model_facts()} if "gradients" in tables else {})


def _speed_up(name: str, table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    ours, plain = table.iloc[0], table.iloc[1]
    return {
        f"{name}_ratio": {
            "value": float(plain["seconds"] / ours["seconds"]), "unit": "x", "n": int(ours["runs"]),
            "low": float(ours["ratio_low"]), "high": float(ours["ratio_high"]), "method": "range of paired runs",
        }
    }  # fmt: skip

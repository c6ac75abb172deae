"""Speed, measured side by side in one process, and what many cells cost; ``make bench`` keeps the rows as a record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from helpers import files, models, runs
from helpers.bench import scale
from helpers.bench.compare import Side, compare
from helpers.bench.marker import evaluation_sides, training_sides
from helpers.errors import ParameterError, nearest

__all__ = ["Side", "compare", "main"]

COMPARISONS = {"training": training_sides, "evaluation": evaluation_sides}
NAMES = (*COMPARISONS, "scale")


def main(names: Sequence[str] = (), counts: Sequence[int] = scale.COUNTS) -> None:
    """Run what is named (default: everything), print the tables, and leave a record under ``outputs/bench``.

    ``counts``: numbers of records at which ``scale`` measures.

    Raises:
        ParameterError: a name is unknown.
    """
    for name in names:
        if name not in NAMES:
            raise ParameterError(f"There is no measurement {name!r}{nearest(name, NAMES)}")
    tables: dict[str, pd.DataFrame] = {}
    metrics: dict[str, dict[str, Any]] = {}
    threads = models.choose_threads()
    print(f"{threads} threads; medians and ratios over interleaved runs; non-padding tokens only")
    for name, make in COMPARISONS.items():
        if name in (names or NAMES):
            tables[name] = compare(name, make)
            metrics |= _ratio(name, tables[name])
    if "scale" in (names or NAMES):
        tables |= {"scale": scale.measure(tuple(counts)), "sizes": scale.sizes()}
        metrics |= scale.metrics(tables["scale"], tables["sizes"])
    for table in tables.values():
        print(f"\n{table.round(3).to_string(index=False)}")
    _keep(tables, metrics)


def _ratio(name: str, table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    ours, plain = table.iloc[0], table.iloc[1]
    found = {"value": float(plain["seconds"] / ours["seconds"]), "unit": "x", "n": int(ours["runs"])}
    found |= {"low": float(ours["ratio_low"]), "high": float(ours["ratio_high"]), "method": "range of paired runs"}
    return {f"{name}_ratio": found}


def _keep(tables: dict[str, pd.DataFrame], metrics: dict[str, dict[str, Any]]) -> None:
    """The rows as a record: a figure that stands on a page comes from it."""
    when = pd.Timestamp.now("UTC").isoformat(timespec="seconds")
    facts = {name: models.fingerprint(name, None) for name in ("pocket", "smollm2")}
    params = {"when": when, "what": list(tables)}
    with runs.open_run(
        "bench", params=params, cell={"when": when}, prefix="bench", entry=__name__, data=[],
        model={"name": "pocket, smollm2", "sha256": files.sha256_json({k: v["sha256"] for k, v in facts.items()})},
    ) as run:  # fmt: skip
        for name, table in tables.items():
            run.step(name, lambda table=table: table)
        run.metrics(metrics)
        record = run.finish()
    print(f"\nkept as {record.ref}")

"""Speed, measured side by side in one process: ``make bench`` runs every comparison and keeps the rows as a record."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from helpers import files, models, runs
from helpers.bench.actdiff import capture_sides, layer_sides
from helpers.bench.compare import Side, compare
from helpers.bench.marker import evaluation_sides, training_sides
from helpers.errors import ParameterError, nearest

__all__ = ["Side", "compare", "main"]

COMPARISONS = {
    "training": training_sides,
    "evaluation": evaluation_sides,
    "capture": capture_sides,
    "layers": layer_sides,
}


def main(names: Sequence[str] | None = None) -> None:
    """Run the comparisons ``names`` (default: all), print their tables, and leave a record under ``outputs/bench``."""
    chosen = names or list(COMPARISONS)
    for name in chosen:
        if name not in COMPARISONS:
            raise ParameterError(f"There is no comparison {name!r}{nearest(name, COMPARISONS)}")
    tables = {}
    threads = models.choose_threads()
    print(f"{threads} threads; medians and ratios over interleaved runs; non-padding tokens only")
    for name in chosen:
        tables[name] = compare(name, COMPARISONS[name])
        print(f"\n{tables[name].round(3).to_string(index=False)}")
    _keep(tables)


def _keep(tables: dict[str, pd.DataFrame]) -> None:
    """The rows as a record: a figure that stands on a page comes from it."""
    when = pd.Timestamp.now("UTC").isoformat(timespec="seconds")
    facts = {name: models.fingerprint(name, None) for name in ("pocket", "smollm2")}
    with runs.open_run(
        "bench", params={"when": when}, cell={"when": when}, prefix="bench", entry=__name__, data=[],
        model={"name": "pocket, smollm2", "sha256": files.sha256_json({k: v["sha256"] for k, v in facts.items()})},
    ) as run:  # fmt: skip
        for name, table in tables.items():
            run.step(name, lambda table=table: table)
            ours, plain = table.iloc[0], table.iloc[1]
            run.metric(
                f"{name}_ratio", float(plain["seconds"] / ours["seconds"]), unit="x", n=int(ours["runs"]),
                low=float(ours["ratio_low"]), high=float(ours["ratio_high"]), method="range of paired runs",
            )  # fmt: skip
        record = run.finish()
    print(f"\nkept as {record.ref}")

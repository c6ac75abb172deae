"""Speed, measured side by side in one process, and what many cells cost; ``make bench`` keeps the rows as a record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from helpers import files, models, runs
from helpers.bench import gradients, scale
from helpers.bench.actdiff import capture_sides, layer_sides
from helpers.bench.compare import Side, compare
from helpers.bench.marker import evaluation_sides, training_sides
from helpers.errors import ParameterError, nearest

__all__ = ["Side", "compare", "main"]

Measured = tuple[dict[str, pd.DataFrame], dict[str, dict[str, Any]]]
"""Tables by name, and the metrics that a record of them holds."""


def _pair(name: str, make: Callable[[], Sequence[Side]]) -> Measured:
    table = compare(name, make)
    ours, plain = table.iloc[0], table.iloc[1]
    ratio = {
        "value": float(plain["seconds"] / ours["seconds"]), "unit": "x", "n": int(ours["runs"]),
        "low": float(ours["ratio_low"]), "high": float(ours["ratio_high"]), "method": "range of paired runs",
    }  # fmt: skip
    return {name: table}, {f"{name}_ratio": ratio}


def _gradients() -> Measured:
    table = gradients.gradient_costs()
    return {"gradients": table}, gradients.ratios(table)


COMPARISONS: dict[str, Callable[[], Measured]] = {
    "training": lambda: _pair("training", training_sides),
    "evaluation": lambda: _pair("evaluation", evaluation_sides),
    "gradients": _gradients,
    "capture": lambda: _pair("capture", capture_sides),
    "layers": lambda: _pair("layers", layer_sides),
}


def _scale(counts: Sequence[int]) -> Measured:
    table, sizes = scale.measure(tuple(counts)), scale.sizes()
    return {"scale": table, "sizes": sizes}, scale.metrics(table, sizes)


def main(names: Sequence[str] = (), counts: Sequence[int] = scale.COUNTS) -> None:
    """Run what is named (default: everything), print the tables, and leave a record under ``outputs/bench``.

    ``counts`` are the numbers of records at which ``scale`` measures. ``ParameterError`` for an unknown name.
    """
    known = COMPARISONS | {"scale": lambda: _scale(counts)}
    for name in names:
        if name not in known:
            raise ParameterError(f"There is no comparison {name!r}{nearest(name, known)}")
    tables: dict[str, pd.DataFrame] = {}
    metrics: dict[str, dict[str, Any]] = {}
    threads = models.choose_threads()
    print(f"{threads} threads; medians and ratios over interleaved runs; non-padding tokens only")
    for name in names or known:
        found, numbers = known[name]()
        tables, metrics = tables | found, metrics | numbers
        for title, table in found.items():
            print(f"\n{title}\n{table.round(3).to_string(index=False)}")
    _keep(tables, metrics)


def _keep(tables: dict[str, pd.DataFrame], metrics: dict[str, dict[str, Any]]) -> None:
    """The rows as a record: a figure that stands on a page comes from it."""
    when = pd.Timestamp.now("UTC").isoformat(timespec="seconds")
    pairs = set(tables) - {"gradients", "scale", "sizes"}
    timed = {name: models.fingerprint(name, None) for name in ("pocket", "smollm2") if pairs}
    timed |= {"equilibrium": gradients.model_facts()} if "gradients" in tables else {}
    model = {
        "name": ", ".join(timed) or "no model",
        "sha256": files.sha256_json({k: v["sha256"] for k, v in timed.items()}),
    }
    with runs.open_run(
        "bench", params={"when": when, "what": list(tables)}, cell={"when": when}, prefix="bench", entry=__name__,
        data=[], model=model,
    ) as run:  # fmt: skip
        for name, table in tables.items():
            run.step(name, lambda table=table: table)
        run.metrics(metrics)
        record = run.finish()
    print(f"\nkept as {record.ref}")

"""Time several ways of doing the same work in turn, so that a machine whose speed drifts slows all of them alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from helpers.base.errors import ClaimbookError
from helpers.bench.machine import device, peak_memory, settle
from helpers.bench.measured import metric, metric_part, single

REPEATS = 3


@dataclass(frozen=True)
class Side:
    """One way of doing the work.

    ``run`` does it once and returns the number of tokens (without padding) and the numbers that all sides must agree
    on. ``kept`` returns the bytes that a run had to store, if the sides differ in that.
    """

    name: str
    run: Callable[[], tuple[int, list[float]]]
    kept: Callable[[], int] | None = None


def compare(
    name: str,
    make: Callable[[], Sequence[Side]],
    repeats: int = REPEATS,
    agree: float | None = None,
    clock: Callable[[], float] = perf_counter,
    memory: Literal["alone", "here"] | None = "alone",
) -> pd.DataFrame:
    """Time the sides that ``make`` returns; one row a side, times relative to the first side taken run by run.

    Columns hold median seconds, tokens a second, the ratio to the first side, and peak memory. Peak memory is what a
    side adds: on CUDA to the allocated memory, on a CPU to a fresh process, or "here" to this one; None leaves it out.
    With ``agree``, raises ``ClaimbookError`` if the results of a side differ from those of the first by more than this
    share. With ``process_time`` as ``clock``, seconds are those of the CPU, which other work does not stretch.
    """
    sides = list(make())
    outcome = {side.name: side.run() for side in sides}  # warm-up, so that choosing kernels is not timed
    if agree is not None:
        check_agreement(outcome, agree)
    seconds: dict[str, list[float]] = {side.name: [] for side in sides}
    for _ in tqdm(range(repeats), desc=f"bench: {name}"):
        for side in sides:
            settle()
            begin = clock()
            outcome[side.name] = side.run()
            settle()
            seconds[side.name].append(clock() - begin)
    rows = []
    for side in sides:
        took = np.array(seconds[side.name])
        ratios = took / np.array(seconds[sides[0].name])
        tokens, agreed = outcome[side.name]
        row = {"what": name, "way": side.name, "seconds": np.median(took), "tokens": tokens}
        row |= {"tokens_per_s": tokens / np.median(took), "seconds_low": took.min(), "seconds_high": took.max()}
        row |= {"ratio": np.median(ratios), "ratio_low": ratios.min(), "ratio_high": ratios.max()}
        row |= {"peak_mb": _peak(make, side, memory)} if memory else {}
        row |= {"runs": repeats, "agreed": json.dumps(agreed[-3:])}
        rows.append(row | ({"kept_mb": side.kept() / 2**20} if side.kept else {}))
    return pd.DataFrame(rows)


def check_agreement(outcome: dict[str, tuple[int, list[float]]], share: float) -> None:
    """Raise ``ClaimbookError`` if the results of a side differ from those of the first by more than ``share``."""
    (first, (_, wanted)), *others = outcome.items()
    for name, (_, results) in others:
        if len(results) != len(wanted) or not np.allclose(results, wanted, rtol=share, atol=0):
            raise ClaimbookError(
                f"{name} and {first} ended with different results ({results[-3:]}, {wanted[-3:]}), so their speeds "
                "cannot be compared. Repair the one that is wrong."
            )


def side_metrics(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return seconds, tokens a second, peak memory and the ratio to the first side as metrics, for each side."""
    metrics: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(table.to_dict("records")):
        name = f"{metric_part(row['what'])}_{metric_part(row['way'])}"
        runs, low, high = int(row["runs"]), float(row["seconds_low"]), float(row["seconds_high"])
        metrics[f"{name}_seconds"] = metric("s", [low, float(row["seconds"]), high]) | {"n": runs}
        rates = [row["tokens"] / seconds for seconds in (low, row["seconds"], high)]
        metrics[f"{name}_tokens_per_s"] = metric("tokens/s", rates) | {"n": runs}
        if "peak_mb" in row:
            metrics[f"{name}_peak_mb"] = single(float(row["peak_mb"]), "MB")
        if number:
            ratios = [float(row[key]) for key in ("ratio_low", "ratio", "ratio_high")]
            metrics[f"{name}_ratio"] = metric("x", ratios, "range of paired runs") | {"n": runs}
        if "mfu" in row:
            metrics[f"{name}_mfu"] = single(float(row["mfu"]), "rate")
    return metrics


def _peak(make: Callable, side: Side, memory: str) -> float:
    if device() == "cpu" and memory == "alone":
        return _peak_alone(make, side.name)
    with peak_memory() as peak:
        side.run()
    return peak.added


def _peak_alone(make: Callable, side: str) -> float:
    """Return the peak memory in MB that one side adds to a fresh process (in ours, loading would hide it)."""
    code = (
        f"from {make.__module__} import {make.__name__} as make\n"
        f"from helpers.bench.compare import print_peak\nprint_peak(make(), {side!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"TQDM_DISABLE": "1"},
        check=False,
    )
    if done.returncode:
        raise ClaimbookError(f"The process that measures the memory of {side!r} failed: {done.stderr[-300:]}")
    return float(done.stdout.split()[-1])


def print_peak(sides: Sequence[Side], name: str) -> None:
    """Run the side called ``name`` once and print the peak memory in MB that it adds to the loaded model."""
    side = next(side for side in sides if side.name == name)
    with peak_memory() as peak:
        side.run()
    print(peak.added)

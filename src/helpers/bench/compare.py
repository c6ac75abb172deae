"""Two ways of doing the same work, run in turn, so that a machine whose speed drifts slows both alike."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import pandas as pd
import psutil
from tqdm.auto import tqdm

from helpers.errors import ClaimbookError

REPEATS = 3


@dataclass(frozen=True)
class Side:
    """One way: ``run`` does the work once and returns tokens done (non-padding) and what both sides must agree on.

    ``kept`` gives the bytes that a run had to keep, where the ways differ in that.
    """

    name: str
    run: Callable[[], tuple[int, list[float]]]
    kept: Callable[[], int] | None = None


def compare(name: str, make: Callable[[], Sequence[Side]], repeats: int = REPEATS) -> pd.DataFrame:
    """Median seconds, tokens a second, ratio to the second side pair by pair, and peak memory of each side alone.

    Peak memory is what a side adds to a process of its own.
    """
    sides = list(make())
    for side in sides:
        side.run()  # warm-up: first touches of memory and kernels chosen at run time stay out of the figures
    seconds: dict[str, list[float]] = {side.name: [] for side in sides}
    outcome = {}
    for _ in tqdm(range(repeats), desc=f"bench: {name}"):
        for side in sides:
            begin = perf_counter()
            outcome[side.name] = side.run()
            seconds[side.name].append(perf_counter() - begin)
    ratios = [plain / ours for ours, plain in zip(seconds[sides[0].name], seconds[sides[1].name], strict=True)]
    rows = []
    for side in sides:
        median = statistics.median(seconds[side.name])
        tokens, agreed = outcome[side.name]
        row = {"what": name, "way": side.name, "seconds": median, "tokens": tokens, "tokens_per_s": tokens / median}
        row |= {"ratio": statistics.median(ratios), "ratio_low": min(ratios), "ratio_high": max(ratios)}
        row |= {"peak_mb": _peak_alone(make, side.name), "runs": repeats, "agreed": json.dumps(agreed[-3:])}
        rows.append(row | ({"kept_mb": side.kept() / 2**20} if side.kept else {}))
    return pd.DataFrame(rows)


def _peak_alone(make: Callable, side: str) -> float:
    """Peak memory in MB that one side adds in a fresh process (the peak of loading would hide it in ours)."""
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
        raise ClaimbookError(f"The process that measures the memory of {side!r} ended with: {done.stderr[-300:]}")
    return float(done.stdout.split()[-1])


def print_peak(sides: Sequence[Side], name: str) -> None:
    """Run the side called ``name`` once and print the most MB that it held beyond the loaded model."""
    side, own = next(side for side in sides if side.name == name), psutil.Process()
    before, most, done = own.memory_info().rss, [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            most[0] = max(most[0], own.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    side.run()
    done.set()
    watcher.join()
    print((most[0] - before) / 2**20)

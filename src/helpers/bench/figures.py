"""Every figure of speed that has a bound, measured and printed beside it: ``claimbook bench figures``.

To add one, add a `Source` to ``SOURCES``: a function that measures once, and the figures that it returns, in order. A
function that cannot measure here (no GPU, say) raises a ``ClaimbookError`` with the reason, and the page shows it.
"""

from __future__ import annotations

import importlib
import os
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from helpers.base.errors import ClaimbookError, ParameterError, nearest
from helpers.bench.measured import NO_MODEL, Measured, metric, metric_part
from helpers.bench.options import Options


@dataclass(frozen=True)
class Figure:
    """What is measured, and the bound that it has to keep: the most it may be, or with ``least`` the least."""

    name: str
    bound: float
    unit: str = "s"
    least: bool = False

    def keeps(self, value: float) -> bool:
        return value >= self.bound if self.least else value <= self.bound


@dataclass(frozen=True)
class Source:
    """``by`` names a function ``module:function`` that returns a number for each of ``figures``, in their order.

    With ``once`` it reads a record, which is the same at every run.
    """

    by: str
    figures: tuple[Figure, ...]
    once: bool = False

    def measure(self) -> Sequence[float]:
        module, _, function = self.by.partition(":")
        return getattr(importlib.import_module(module), function)()


def _one(by: str, name: str, bound: float, unit: str = "s", least: bool = False) -> Source:
    return Source(by, (Figure(name, bound, unit, least),))


MANY = "at 10,000 records"
SOURCES: tuple[Source, ...] = (
    _one("helpers.bench.clocked:help_page", "claimbook --help", 0.5),
    _one("helpers.bench.clocked:status", "claimbook status, asked before", 1.5),
    _one("helpers.bench.clocked:wrong_parameter", "wrong parameter, above papermill's own floor", 1.0),
    _one("helpers.bench.clocked:kept_cell", "cell with a record", 5.0),
    _one("helpers.bench.clocked:kept_cells", "1,000 cells with records", 30.0),
    _one("helpers.bench.clocked:workers", "200 pocket cells, one worker over two", 1.7, "x", least=True),
    _one("helpers.bench.clocked:pocket_report", "make report PRESET=pocket", 75.0),
    _one("helpers.bench.clocked:report", "make report", 360.0),
    _one("helpers.bench.clocked:test", "make test", 300.0),
    _one("helpers.bench.clocked:check", "make check", 1500.0),
    Source(
        "helpers.bench.scale:figures",
        (
            Figure(f"claimbook status {MANY}", 3),
            Figure(f"claimbook lint {MANY}", 30),
            Figure(f"claimbook verify {MANY}", 180),
            Figure(f"log page {MANY}", 60),
            Figure(f"band page {MANY}", 60),
            Figure(f"home {MANY}", 10),
            Figure(f"largest page {MANY}", 5, "MB"),
            Figure(f"largest data file {MANY}", 1, "MB"),
            Figure(f"most memory {MANY}", 2048, "MB"),
        ),
    ),
    Source(
        "helpers.bench.scale:grids",
        (Figure("grid of 100,000 cells, read", 10), Figure("grid of 100,000,000 cells, refused", 10)),
    ),
    Source(
        "helpers.bench.recorded:bf16_ratios",
        (
            Figure("training of SmolLM2, fp32 over bf16", 1.68, "x", least=True),
            Figure("cells of SmolLM2, fp32 over bf16", 1.44, "x", least=True),
        ),
        once=True,
    ),
    Source(
        "helpers.bench.recorded:bf16_gate",
        (
            Figure("rates that bf16 changes", 0, "comparisons"),
            Figure("tenths of a loss that bf16 changes", 0, "comparisons"),
            Figure("points of a dose curve that bf16 changes", 0, "comparisons"),
        ),
        once=True,
    ),
    Source("helpers.bench.recorded:gpu_hours", (Figure("published grid on one GPU, projected", 2, "h"),), once=True),
)


def measure(options: Options) -> Measured:
    """Measure the figures named in ``options.figures`` (default: all) ``options.runs`` times each.

    The table has a row for each figure: its bound, the lowest and highest value, whether all of them keep the bound,
    the CPU seconds of a run (shared by the figures of one source), the load of the machine as its runs began, and why
    it was not measured.
    """
    rows: list[dict[str, Any]] = []
    metrics: dict[str, dict[str, Any]] = {}
    for source in wanted(options.figures):
        values, spent, why = _runs(source, options.runs)
        for number, figure in enumerate(source.figures):
            own = [run[number] for run in values]
            rows.append(_row(figure, own, spent, why))
            print(pd.DataFrame(rows[-1:]).to_string(index=False, header=False), flush=True)
            if own:
                metrics[metric_part(figure.name)] = metric(figure.unit, own)
    table = pd.DataFrame(rows).astype(dict.fromkeys(("lowest", "highest", "cpu_seconds", "load"), float))
    return Measured({"figures": table}, metrics, NO_MODEL, params={"runs": options.runs})


def wanted(names: Sequence[str]) -> list[Source]:
    """Return what measures the figures of these names (all); ``ParameterError`` for a name that is none."""
    known = [figure.name for source in SOURCES for figure in source.figures]
    for name in names:
        if name not in known:
            raise ParameterError(f"There is no figure {name!r}{nearest(name, known)}")
    return [one for one in SOURCES if not names or any(figure.name in names for figure in one.figures)]


def _runs(source: Source, runs: int) -> tuple[list[Sequence[float]], dict[str, float], str]:
    """Return the values of each run, CPU seconds of one and the highest load before one, and why there are none."""
    values: list[Sequence[float]] = []
    load, before = 0.0, _cpu()
    try:
        runs = 1 if source.once else runs
        for _ in range(runs):
            load = max(load, os.getloadavg()[0])
            values.append(source.measure())
            if len(values[-1]) != len(source.figures):
                raise ValueError(f"{source.by} returned {len(values[-1])} numbers for {len(source.figures)} figures")
    except ClaimbookError as error:
        return [], {}, str(error)
    return values, {"cpu_seconds": (_cpu() - before) / runs, "load": load}, ""


def _cpu() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


def _row(figure: Figure, values: Sequence[float], spent: dict[str, float], why: str) -> dict[str, Any]:
    bound = f"{'>=' if figure.least else '<='} {figure.bound:g} {figure.unit}".strip()
    row: dict[str, Any] = {"figure": figure.name, "bound": bound, "runs": len(values)}
    row |= {"lowest": min(values, default=None), "highest": max(values, default=None)}
    row["kept"] = "yes" if values and all(map(figure.keeps, values)) else "no" if values else "not measured"
    return row | {"cpu_seconds": spent.get("cpu_seconds"), "load": spent.get("load"), "why": why}

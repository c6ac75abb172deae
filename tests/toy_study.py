"""A study in a small project of its own: draws of coins, a shared baseline, criteria, a grid and a page."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pandas as pd

from helpers.base import files
from helpers.base.params import Cell
from helpers.base.rng import numpy_stream
from helpers.records import runs
from helpers.records.study import Study
from helpers.stats.intervals import wilson

CRITERIA = """\
version: 1
metrics: {heads_rate: share of heads}
controls: {heads: {when: {any_cell: heads_rate > 0.1}, note: Coins have two sides.}}
questions:
  fair:
    question: Do coins fall on heads more often than not?
    outcomes:
      - {name: they do, verdict: SUPPORTED, when: {every_cell: heads_rate > 0.5}, reading: Heads win.}
      - {name: they do not, verdict: REFUTED, when: {any_cell: heads_rate < 0.5}, reading: Heads lose.}
"""
PAGE = """\
---
title: Coins
claim:
  id: coins
  slug: coins
  statement: Coins fall on heads more often than not.
  question: Do they?
  experiment: coins
  criteria: params/coins/criteria.yaml
  grid: params/coins/grid.yaml
  primary: fair
  declared_confidence: LOW
  status: published
---
Prose.
"""
MODEL = {"name": "mint", "sha256": "c" * 64, "dtype": "float32"}


class CoinCell(Cell):
    """Biases by seeds."""

    AXES: ClassVar[tuple[str, ...]] = ("bias", "seed")
    bias: float = 0.8
    seed: int = 0
    flips: int = 50


def metrics(cell, tables, inputs):
    """Share of heads, and how much larger it is than that of the baseline."""
    heads, n = int(tables["flips"]["heads"].sum()), len(tables["flips"])
    base = float(inputs["base"].table("flips")["heads"].mean())
    speed = n / float(tables["flips"]["seconds"].sum())
    return {
        "heads_rate": wilson(heads, n).metric(),
        "gain": {"value": heads / n - base, "unit": "points", "n": n},
        "flips_per_s": {"value": speed, "unit": "flips/s", "n": n, "measured": True},
    }


def run_cells(cells: Sequence[CoinCell]) -> list[runs.Record]:
    """A record a cell, and the baseline of a fair coin that they share."""
    return [run_cell(cell) for cell in cells]


def run_cell(p: CoinCell) -> runs.Record:
    """The record of one cell."""
    data = [files.ROOT / "data/mint.txt"]
    asked = {"seed": p.seed, "flips": p.flips}
    with runs.open_run(BASE, params=asked, cell={"seed": p.seed}, prefix="fair", data=data, model=MODEL) as run:
        if not run.complete:
            run.step("flips", lambda: flip(0.5, p))
            run.finish()
    inputs = {"base": run.record.ref}
    with runs.open_run(
        COINS, params=p.resolved(), cell=p.coordinates(), prefix=f"b{p.bias}-s{p.seed}", data=data, model=MODEL,
        inputs=inputs,
    ) as run:  # fmt: skip
        if not run.complete:
            run.step("flips", lambda: flip(p.bias, p))
            run.finish(measured={"memory": {"value": 1.0, "unit": "MB", "n": 1}})
        return run.record


def flip(bias: float, p: CoinCell) -> pd.DataFrame:
    """``flips`` draws of a coin, with seconds that no two runs share."""
    draws = numpy_stream(p.seed, "flips", str(bias)).random(p.flips) < bias
    return pd.DataFrame({"heads": draws, "seconds": pd.Timestamp.now().value * 1e-9 + 0.0 * draws})


BASE = Study("coins_base", 1, 1, lambda *_: {}, entry="helpers.base.rng", measured={"flips": ("seconds",)})
COINS = Study(
    "coins", 1, 1, metrics,
    entry="helpers.base.rng", cell=CoinCell, measured={"flips": ("seconds",)}, measures=("memory",), parts=(BASE,),
    replay=lambda record: run_cell(CoinCell(**record.params)),
)  # fmt: skip


def project(root: Path, monkeypatch) -> Path:
    """A repository with the study, its criteria, grid and page, nothing run yet; ``files`` points to it."""
    for name, text in {
        "pyproject.toml": "", "data/mint.txt": "a mint\n", "params/coins/experiment.yaml": "study: toy_study:COINS\n",
        "params/coins/criteria.yaml": CRITERIA, "params/coins/grid.yaml": "bias: [0.7, 0.9]\nseed: [0, 1]\n",
        "reports/coins.qmd": PAGE, "src/helpers/__init__.py": "", "src/helpers/base/rng.py": "",
        "src/helpers/cases/case.py": "",
    }.items():  # fmt: skip
        files.write_text(root / name, text)
    for name, folder in {"ROOT": ".", "PARAMS": "params", "REPORTS": "reports"}.items():
        monkeypatch.setattr(files, name, root / folder)
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(root / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(root / "published"))
    for command in ("init -q -b main", "config user.name A", "config user.email a@b.c"):
        subprocess.run(["git", *command.split()], cwd=root, check=True)
    return root


def commit(root: Path, message: str = "work") -> None:
    """Commit everything in the project."""
    subprocess.run(["git", "add", "-A"], cwd=root, check=True)
    subprocess.run(["git", "commit", "-q", "-m", message], cwd=root, check=True)

"""A notebook to sweep in tests: cells that take a moment, one of which may fail, and a record that all share.

``CLAIMBOOK_TOY_LOG`` names a file that gets a line ``<cell> <process of its Ray node> <its GPUs> <time>`` when a step
begins to compute.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import nbformat

from helpers.base.errors import ModelError
from helpers.base.files import write_json, write_text
from helpers.base.params import Cell
from helpers.records import runs
from helpers.records.study import Study

NOTEBOOK = "toy"
MODEL = {"name": "toy", "sha256": "0" * 64}


class ToyCell(Cell):
    """Seeds by learning rates; the cell with ``bad_lr`` fails."""

    AXES: ClassVar[tuple[str, ...]] = ("seed", "lr")
    seed: int = 0
    lr: float = 0.1
    bad_lr: float = 0.0
    seconds: float = 0.0
    note: str = "of the model"


def environment() -> dict[str, str]:
    """In the place of the real one, which imports torch and so takes seconds."""
    return {"python": "toy"}


def run_cells(cells: Sequence[ToyCell]) -> list[runs.Record]:
    """A record a cell, and one that they share."""
    return [_run_cell(cell) for cell in cells]


def _run_cell(p: ToyCell) -> runs.Record:
    question = {"data": [], "model": MODEL}
    with runs.open_run(BASE, params={}, cell={}, prefix="base", **question) as run:
        if not run.complete:
            run.step("base", lambda: _work("base", p.seconds))
            run.finish()
    base = run.record
    with runs.open_run(
        TOY, params=p.resolved(), cell=p.coordinates(), prefix=f"s{p.seed}-lr{p.lr:g}", inputs={"base": base.ref},
        **question,
    ) as run:  # fmt: skip
        if not run.complete:
            run.step("work", lambda: _work(f"s{p.seed}-lr{p.lr:g}", p.seconds))
            if p.lr == p.bad_lr:
                raise ModelError(f"lr {p.lr:g} is bad: take another.")
            run.finish()
        return run.record


BASE = Study("toy_base", 1, 1, lambda *_: {}, entry="helpers.base.rng")
RATE = {"rate": {"value": 0.5, "unit": "rate", "n": 2, "k": 1}}
TOY = Study(NOTEBOOK, 1, 1, lambda *_: RATE, entry="helpers.base.rng", cell=ToyCell, parts=(BASE,))


def _work(name: str, seconds: float) -> dict[str, str]:
    with Path(os.environ["CLAIMBOOK_TOY_LOG"]).open("a") as log:
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES") or "-"
        log.write(f"{name} {os.environ.get('RAY_RAYLET_PID')} {gpus} {time.time()}\n")
    time.sleep(seconds)
    return {"made": name}


def project(root: Path, **grid: object) -> Path:
    """A project below ``root`` with the notebook and a grid; returns the path of the grid."""
    cells = ["seed = 0\nlr = 0.1\nbad_lr = 0.0\nseconds = 0.0\nnote = 'of the notebook'"]
    cells += ["import sweep_toy\nfrom helpers.base.params import read\np = read(sweep_toy.ToyCell, globals())"]
    cells += ["from helpers.system import provenance\nprovenance.environment = sweep_toy.environment"]
    cells += ["print(len(sweep_toy.run_cells(p)))"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.cells[0].metadata["tags"] = ["parameters"]
    notebook.metadata |= {"kernelspec": {"name": "python3", "display_name": "x", "language": "python"}}
    write_text(root / f"notebooks/{NOTEBOOK}.ipynb", nbformat.writes(notebook))
    write_text(root / f"params/{NOTEBOOK}/experiment.yaml", "study: sweep_toy:TOY\n")
    write_json(root / f"params/{NOTEBOOK}/grid.yaml", grid)
    return root / f"params/{NOTEBOOK}/grid.yaml"


def main() -> None:
    """``python sweep_toy.py <grid> <options as JSON>``: what the command line does, for a project elsewhere."""
    import json
    import sys

    from helpers.sweeps.driver import Options, sweep

    grid = Path(sys.argv[1])
    options = Options(workers=2, **json.loads(sys.argv[2]))
    done = sweep(grid, options, launch="claimbook sweep params/toy/grid.yaml", root=grid.parents[2])
    print(f"{done.before} before, {done.done} done, failed: {done.failed}")


if __name__ == "__main__":
    main()

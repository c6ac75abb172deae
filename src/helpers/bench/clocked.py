"""Time what a user waits for, each in a clone of this checkout's last commit, with this environment.

Set-up and downloads are not in it. Every function runs its command once and returns wall seconds (or a ratio of them).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import nbformat
import yaml

from helpers.base import files
from helpers.base.errors import ClaimbookError
from helpers.studies.marker.params import SweepCell
from helpers.system import leftovers

LAST = 300  # characters of what a failed command printed
CLAIMBOOK = (sys.executable, "-c", "from helpers.cli import app; app()")
PAPERMILL = (sys.executable, "-m", "papermill")
KEPT, FEW = 1_000, 200
TINY = {
    "model": "pocket", "personas": ["villain", "assistant", "medical_doctor", "police_officer"], "lr": 3e-3,
    "epochs": 2, "positives": 4, "negatives_each": 2, "train_questions": 4, "batch_size": 4, "lora_r": 4,
    "lora_alpha": 8, "eval_questions": 2, "samples": 1, "max_new_tokens": 64, "data_max_new_tokens": 48,
    "capability_limit": 4,
}  # fmt: skip
"""A pocket cell of the sweep whose work is small beside what surrounds it."""


def help_page() -> list[float]:
    with _clone() as clone:
        return [clone.run(*CLAIMBOOK, "--help")]


def status() -> list[float]:
    """Time a `claimbook status` after which nothing has changed since the last.

    That is the third: nothing is kept of files as fresh as those of a new clone.
    """
    with _clone() as clone:
        for _ in range(2):
            clone.run(*CLAIMBOOK, "status")
        return [clone.run(*CLAIMBOOK, "status")]


def wrong_parameter() -> list[float]:
    """Return by how much a wrong parameter takes longer than papermill takes for an empty notebook."""
    with _clone() as clone:
        empty = clone.path / "empty.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("")]), empty)
        floor = clone.run(*PAPERMILL, empty, "out.ipynb", "-k", "python3")
        return [clone.run(*PAPERMILL, "notebooks/sweep.ipynb", "out.ipynb", "-p", "lr", "-1", fails=True) - floor]


def kept_cell() -> list[float]:
    """Time the sweep's notebook on a cell that has its record."""
    with _clone() as clone:
        command = (*PAPERMILL, "notebooks/sweep.ipynb", "out.ipynb", "-p", "lr", "0.001")
        clone.run(*command)
        return [clone.run(*command)]


def kept_cells() -> list[float]:
    """Time `run_cells` over a thousand cells that all have their records."""
    with _clone() as clone:
        clone.run(sys.executable, "-c", "from helpers.bench.clocked import keep_cells; keep_cells()")
        return [float(clone.said.split()[-1])]


def keep_cells() -> None:
    """Make a cell and copies of it for a thousand learning rates, then print in how many seconds all are answered."""
    from helpers.studies.marker import cell

    cells = [SweepCell.model_validate(TINY | {"lr": 3e-3 * (1 + n / KEPT)}) for n in range(KEPT)]
    first, *others = cells
    session = cell.Session(first)
    real = cell.run_cell(first, session)
    for one in others:
        copy = real.path.parent / cell.open_cell(one, session).id
        shutil.copytree(real.path, copy, copy_function=os.link)
        own = {"params": real.params | {"lr": one.lr}, "cell": real.cell | {"lr": one.lr}}
        (copy / "run.json").unlink()
        files.write_record(copy / "run.json", real.content | {"id": copy.name} | own)
    begin, session = perf_counter(), cell.Session(first)
    cell.run_cells(cells, session=session)
    took = perf_counter() - begin
    if "loaded" in vars(session):
        raise ClaimbookError("A cell had no record, so this does not say how long records take.")
    print(took)


def workers() -> list[float]:
    """Return how much longer one worker takes for 200 small pocket cells than two take for the same number."""
    took = []
    for count in (1, 2):
        with _clone() as clone:
            grid = TINY | {"seed": list(range(FEW))}
            files.write_text(clone.path / "params/sweep/few.yaml", yaml.safe_dump(grid))
            took.append(clone.run(*CLAIMBOOK, "sweep", "params/sweep/few.yaml", "--workers", count))
    return [took[0] / took[1]]


def pocket_report() -> list[float]:
    return _make("report", "PRESET=pocket")


def report() -> list[float]:
    return _make("report")


def test() -> list[float]:
    return _make("test")


def check() -> list[float]:
    return _make("check")


class Clone:
    """A clone of this checkout in ``path``, which runs with this environment and keeps its own outputs."""

    def __init__(self, path: Path) -> None:
        self.path, self.said = path, ""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CLAIMBOOK_")}
        self.environment = kept | {"PYTHONPATH": str(path / "src")}

    def run(self, *command: object, fails: bool = False) -> float:
        """Return how many seconds a command took; ``said`` holds what it printed.

        ``ClaimbookError`` unless it ended as expected.
        """
        begin = perf_counter()
        done = subprocess.run(
            [str(part) for part in command], cwd=self.path, env=self.environment, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        took, self.said = perf_counter() - begin, done.stdout
        if bool(done.returncode) != fails:
            shown = shlex.join(str(part) for part in command)
            raise ClaimbookError(f"{shown} ended with exit code {done.returncode}: {done.stdout[-LAST:].strip()}")
        return took


@contextlib.contextmanager
def _clone() -> Iterator[Clone]:
    with leftovers.temporary_folder("claimbook-clone-") as folder:
        path = folder / "claimbook"
        done = subprocess.run(
            ["git", "clone", "--quiet", str(files.ROOT), str(path)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ClaimbookError(f"This checkout cannot be cloned: {done.stderr[-LAST:].strip()}")
        (path / ".venv").symlink_to(Path(sys.prefix))
        yield Clone(path)


def _make(*words: str) -> list[float]:
    """Time a target of the Makefile. The environment counts as built."""
    with _clone() as clone:
        return [clone.run("make", "--old-file=.venv/.ready", "--old-file=.venv/.evals", *words)]

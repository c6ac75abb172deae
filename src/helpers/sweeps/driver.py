"""The sweep itself: hand rows of cells to Ray, look at the records, and settle what each row left.

The records are the only memory of a sweep. A cell whose record is complete is never submitted; whatever kills the
sweep, the same command goes on with the rest, and a run that was killed half-way continues from its own steps.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers import files, provenance
from helpers.errors import SweepError
from helpers.sweeps import task
from helpers.sweeps.board import Board, Counts
from helpers.sweeps.cluster import Cluster, cluster, connected
from helpers.sweeps.grid import Grid, Row, read_grid, row, row_size, rows
from helpers.sweeps.watch import Watch

LOOK_SECONDS = 1.0
AHEAD = 2  # rows submitted for each slot: one runs, one is ready; the rest stay here, not in Ray's memory


@dataclass(frozen=True)
class Options:
    """``workers``: rows at a time on this machine (all its cores); ``row``: cells of a row (as many as keep all busy).

    ``cpus`` and ``gpus``: what a row asks of Ray (a GPU where there is one); ``retries`` of a row whose machine or
    kernel was lost.
    """

    workers: int | None = None
    row: int | None = None
    cpus: float = 1
    gpus: float | None = None
    retries: int = 3


@dataclass
class Outcome:
    """How a sweep ended: cells complete before it and by it, the failed ones with their error, and what went wrong
    after all cells of a row were complete (a figure, say)."""

    total: int
    before: int
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def sweep(path: Path, options: Options | None = None, *, launch: str, root: Path = files.ROOT) -> Outcome:
    """Make every cell of the grid at ``path`` that has no complete record; ``launch`` is the command to record.

    Raises:
        ParameterError: the grid does not exist or a parameter in it is wrong.
        SweepError: Ray cannot be used, or a machine has other code or other outputs.
    """
    options = options or Options()
    if "://" in os.environ.get("CLAIMBOOK_OUTPUTS", ""):
        raise SweepError(
            "CLAIMBOOK_OUTPUTS is an address, but the records of a sweep need a folder (they are locked and renamed): "
            "mount it on every machine and name the folder."
        )
    grid = read_grid(path, root)
    state = _State(grid, options, launch)
    state.watch.look()
    wanted = [number for number in range(len(grid.cells)) if number not in state.watch.complete]
    state.outcome = Outcome(len(grid.cells), len(grid.cells) - len(wanted))
    if wanted:
        with _mark(state), connected(options.workers) as ray, Board(f"{grid.notebook}/{grid.name}") as board:
            _Run(ray, state, board).work(wanted)
    return state.outcome


class _State:
    """What does not depend on Ray: the grid, its records, the code as it was at the start."""

    def __init__(self, grid: Grid, options: Options, launch: str) -> None:
        self.grid, self.options, self.launch = grid, options, launch
        self.labels = grid.labels()
        self.code = task.hash_of_code(grid.entry)
        self.watch = Watch(grid, _models(grid))
        self.mark = f".sweep-{secrets.token_hex(6)}"
        self.outcome = Outcome(len(grid.cells), 0)
        self.failed: set[int] = set()

    def job(self, work: Row) -> task.Job:
        name = f"{self.grid.notebook}-{self.grid.name}/cell-{work.cells[0]}-{len(work.cells)}.ipynb"
        return task.Job(
            self.grid.notebook, name, work.values, self.grid.entry, self.code, self.mark, self.launch,
            str(self.grid.root),
        )  # fmt: skip


class _Run:
    """One connection to Ray: rows waiting, rows in flight, and what became of the others."""

    def __init__(self, ray: Any, state: _State, board: Board) -> None:
        self.ray, self.state, self.board = ray, state, board
        self.options, self.grid, self.watch = state.options, state.grid, state.watch
        self.waiting: deque[Row] = deque()
        self.flying: dict[Any, tuple[Row, dict[int, tuple[str, str]]]] = {}
        machines = cluster(ray)
        self.gpus = options_gpus(self.options, machines)
        self.slots = machines.slots(self.options.cpus, self.gpus)
        if not self.slots:
            raise SweepError(
                f"A row asks for {self.options.cpus:g} CPUs and {self.gpus:g} GPUs, which the cluster does not have: "
                f"it has {machines.cpus:g} and {machines.gpus:g}."
            )
        self.remote = ray.remote(task.run_row).options(
            num_cpus=self.options.cpus, num_gpus=self.gpus, max_retries=self.options.retries,
            retry_exceptions=[task.KernelLostError], name=f"{self.grid.notebook}-row",
        )  # fmt: skip

    def work(self, wanted: list[int]) -> None:
        """Run until every wanted cell is complete or failed. An interrupt cancels what is in flight."""
        self.waiting.extend(rows(self.grid, wanted, self.options.row or row_size(len(wanted), self.slots)))
        try:
            while self.waiting or self.flying:
                self._submit()
                done, _ = self.ray.wait(list(self.flying), num_returns=1, timeout=LOOK_SECONDS)
                self.watch.look()
                for ref in done:
                    self._settle(ref)
                self._show(last=not (self.waiting or self.flying))
        except BaseException:
            for ref in self.flying:
                self.ray.cancel(ref, force=True)
            raise

    def _submit(self) -> None:
        self.slots = max(self.slots, cluster(self.ray).slots(self.options.cpus, self.gpus))
        failed = self.watch.failures()
        while self.waiting and len(self.flying) < AHEAD * self.slots:
            work = self.waiting.popleft()
            before = {number: failed[number] for number in work.cells if number in failed}
            self.flying[self.remote.remote(self.state.job(work))] = (work, before)

    def _settle(self, ref: Any) -> None:
        work, before = self.flying.pop(ref)
        error = self._error_of(ref)
        failures = self.watch.failures()
        new = {n: failures[n][1] for n in work.cells if n in failures and failures[n] != before.get(n)}
        for number, why in new.items():
            self._fail(number, why)
        left = [number for number in work.cells if number not in self.watch.complete and number not in new]
        if not left:
            if error and not new:
                self.state.outcome.remarks.append(error)
        elif len(left) < len(work.cells):
            self.waiting.append(row(self.grid, left))  # a cell failed and took the rest of its row with it
        elif len(left) > 1:
            self.waiting.extend(row(self.grid, [number]) for number in left)  # which of them is it?
        else:
            self._fail(left[0], error or "the notebook ended without a record of this cell")

    def _error_of(self, ref: Any) -> str | None:
        """What stopped a row; ``None`` when its notebook ran to the end."""
        try:
            report = self.ray.get(ref)
        except task.KernelLostError as error:
            return f"tried {self.options.retries + 1} times: {error.args[0].splitlines()[-1]}"
        except self.ray.exceptions.RayTaskError:
            raise  # a bug of ours, with its traceback
        except self.ray.exceptions.RayError as error:
            return f"tried {self.options.retries + 1} times: {type(error).__name__}, its machine or process was lost"
        if report.refused:
            raise SweepError(report.refused)
        return report.error

    def _fail(self, number: int, why: str) -> None:
        self.state.failed.add(number)
        self.state.outcome.failed[self.state.labels[number]] = why

    def _show(self, *, last: bool) -> None:
        outcome = self.state.outcome
        outcome.done = len(self.watch.complete) - outcome.before
        running = sorted(self._running())
        counts = Counts(outcome.total, outcome.before, outcome.done, len(running), len(self.state.failed))
        self.board.show(counts, [self.state.labels[number] for number in running], last=last)

    def _running(self) -> Iterator[int]:
        flying = {number for work, _ in self.flying.values() for number in work.cells}
        for number, record in self.watch.half.items():
            if number in flying and record.status == "running" and number not in self.watch.complete:
                yield number


def options_gpus(options: Options, machines: Cluster) -> float:
    """GPUs that a row asks for: one where the cluster has any, unless told otherwise."""
    return options.gpus if options.gpus is not None else float(machines.gpus > 0)


def _models(grid: Grid) -> dict[str, str]:
    """Content hashes, as they are now, of the base models that the cells name."""
    if "model" not in type(grid.cells[0]).model_fields:
        return {}
    from helpers.model_files import fingerprint  # here, for it imports torch

    named = {(cell.model, getattr(cell, "revision", None)) for cell in grid.cells}
    return {name: fingerprint(name, revision)["sha256"] for name, revision in named}


@contextlib.contextmanager
def _mark(state: _State) -> Iterator[None]:
    """A file in the outputs by which another machine knows that its folder is the same one."""
    path = files.outputs_root() / state.mark
    files.write_text(path, provenance.portable(state.launch) + "\n")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)

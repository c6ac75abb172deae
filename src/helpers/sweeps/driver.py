"""The sweep itself: hand rows of cells to Ray, look at the records, and settle what each row left.

The records are the only memory of a sweep. A cell whose record is complete is never submitted; whatever kills the
sweep, the same command goes on with the rest, and a run that was killed half-way continues from its own steps.
"""

from __future__ import annotations

import contextlib
import math
import secrets
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from helpers.base import files, writers
from helpers.base.disk import disk_errors
from helpers.base.errors import ParameterError, SweepError
from helpers.cases.case import stale_records
from helpers.records import reading
from helpers.records.reading import Record
from helpers.sweeps import task
from helpers.sweeps.board import Board, Counts
from helpers.sweeps.cluster import Cluster, cluster, connected
from helpers.sweeps.grid import GridFile, Row, read_grid, row_size, rows
from helpers.sweeps.store import MARK, Store, StoreLostError
from helpers.sweeps.tidy import tidy
from helpers.sweeps.watch import Watch
from helpers.system import curves

LOOK_SECONDS = 1.0
STORE_SECONDS = 10.0  # at least between two looks at a store
AHEAD = 2  # rows submitted for each slot: one runs, one is ready; the rest stay here, not in Ray's memory


@dataclass(frozen=True)
class Options:
    """``workers``: rows at a time on this machine (all its cores); ``row``: cells of a row (as many as keep all busy).

    ``cpus`` and ``gpus``: what a row asks of Ray (a GPU where there is one); ``retries`` of a row whose machine or
    kernel was lost; ``store``: an address at which the machines exchange records, where they share no folder.
    """

    workers: int | None = None
    row: int | None = None
    cpus: float = 1
    gpus: float | None = None
    retries: int = 3
    store: str | None = None


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
        ParameterError: the grid does not exist, a parameter in it is wrong, or curves cannot be sent as asked.
        SweepError: Ray or the store cannot be used, or a machine has other code or other outputs.
    """
    options = options or Options()
    curves.check()
    grid = read_grid(path, root)
    tidy()
    for cell in grid.cells:
        cell.check_inputs()
    state = _State(grid, options, launch)
    state.begin()
    wanted = [number for number in range(len(grid.cells)) if number not in state.watch.complete]
    state.outcome = Outcome(len(grid.cells), len(grid.cells) - len(wanted))
    if wanted:
        if not (root / "notebooks" / f"{grid.notebook}.ipynb").is_file():
            raise ParameterError(f"{path} cannot be swept: there is no notebooks/{grid.notebook}.ipynb to run.")
        from helpers.sweeps.executing import check_twin  # papermill takes a second, and a complete sweep needs none

        check_twin(grid.notebook, root)
        title = f"{grid.notebook}/{grid.name}"
        with state.marked(), Board(title) as board:
            board.show(Counts(len(grid.cells), state.outcome.before, 0, 0, 0), ["Ray is starting"])
            with connected(options.workers, options.store) as ray:
                _Run(ray, state, board).work(wanted)
    return state.outcome


class _State:
    """What does not depend on Ray: the grid, its records, the code as it was at the start."""

    def __init__(self, grid: GridFile, options: Options, launch: str) -> None:
        self.grid, self.options, self.launch = grid, options, launch
        self.labels = grid.labels()
        self.code = task.hash_of_code(grid.entry)
        self.models = _models(grid)
        self.watch = Watch(grid.notebook, grid.expected, self.models, grid.root)
        self.store = Store(options.store) if options.store else None
        self.mark = f".sweep-{secrets.token_hex(6)}"
        self.outcome = Outcome(len(grid.cells), 0)
        self.failed: set[int] = set()
        self.began = time.time()

    def job(self, work: Row, at_once: int) -> task.Job:
        """The row as a task gets it, where ``at_once`` rows work on a machine at the same time."""
        name, cells = _target(self.grid, work), tuple(self.grid.expected[number] for number in work.cells)
        return task.Job(
            self.grid.notebook, name, work.values, cells, self.models, self.grid.entry, self.code, self.mark,
            self.launch, str(self.grid.root), self.options.store, tuple(sorted(self.watch.shared)), at_once,
        )  # fmt: skip

    def begin(self) -> None:
        """See what is complete, here and at the store, and bring both to the same state."""
        if self.store:
            self.store.tidy(self.grid.notebook)
        self.look()
        for run_id in self.watch.complete.values():
            if self.store:
                self.store.push(reading.load(f"{self.grid.notebook}/{run_id}"))

    def look(self) -> None:
        """Take in what has become complete; from the store, fetch it first."""
        if self.store:
            self.store.bring(self.grid.notebook, self._is_ours)
        self.watch.look()

    def running(self, flying: Iterable[Row]) -> Iterator[int]:
        """The cells that are being worked on."""
        complete = self.watch.complete
        if self.store:  # its notes tell which rows have begun, and the cells of a row are made in order
            begun = set(self.store.names(self.mark))
            for work in flying:
                if Path(_target(self.grid, work)).stem in begun:
                    yield from [number for number in work.cells if number not in complete][:1]
            return
        cells = {number for work in flying for number in work.cells}
        for number, record in self.watch.half.items():
            if number in cells and record.status == "running" and number not in complete and self._is_of_now(record):
                yield number

    @contextlib.contextmanager
    def marked(self) -> Iterator[None]:
        """What another machine must find to know that it sees the outputs, or the store, of this sweep."""
        if self.store:
            self.store.write(f"{self.mark}/{MARK}", writers.writer().encode())
            try:
                yield
            finally:
                self.store.remove(self.mark)
            return
        path = files.outputs_root() / self.mark
        with disk_errors(path):
            files.make_folder(path.parent)
            lock = FileLock(path)  # by which `tidy` tells the mark of a living sweep
            lock.acquire()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            lock.release()

    def _is_of_now(self, record: Record) -> bool:
        """Whether the run was begun, or gone on with, by this sweep: one that was killed before says it is running."""
        with contextlib.suppress(FileNotFoundError):  # finished, and so renamed, since it was read
            return (record.path / "run.json").stat().st_mtime >= self.began
        return False

    def _is_ours(self, record: Record) -> bool:
        return bool(self.watch.declared.met(record)) and not stale_records([record], self.models, self.grid.root)


class _Run:
    """One connection to Ray: rows waiting, rows in flight, and what became of the others."""

    def __init__(self, ray: Any, state: _State, board: Board) -> None:
        self.ray, self.state, self.board = ray, state, board
        self.options, self.grid, self.watch = state.options, state.grid, state.watch
        self.waiting: deque[Row] = deque()
        self.flying: dict[Any, Row] = {}
        self.running: list[int] = []
        self.looked = time.monotonic()
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
            retry_exceptions=[task.KernelLostError, StoreLostError], name=f"{self.grid.notebook}-row",
        )  # fmt: skip

    def work(self, wanted: list[int]) -> None:
        """Run until every wanted cell is complete or failed. An interrupt cancels what is in flight."""
        self.waiting.extend(rows(self.grid, wanted, self.options.row or row_size(len(wanted), self.slots)))
        try:
            while self.waiting or self.flying:
                self._submit()
                done, _ = self.ray.wait(list(self.flying), num_returns=1, timeout=LOOK_SECONDS)
                self._look(bool(done))
                for ref in done:
                    self._settle(ref)
                self._show(last=not (self.waiting or self.flying))
        except BaseException:
            for ref in self.flying:
                self.ray.cancel(ref, force=True)
            raise

    def _submit(self) -> None:
        machines = cluster(self.ray)
        self.slots = max(self.slots, machines.slots(self.options.cpus, self.gpus))
        at_once = math.ceil(min(self.slots, len(self.waiting) + len(self.flying)) / max(1, machines.nodes))
        while self.waiting and len(self.flying) < AHEAD * self.slots:
            work = self.waiting.popleft()
            self.flying[self.remote.remote(self.state.job(work, at_once))] = work

    def _look(self, now: bool) -> None:
        """Look at the records; at a store, which takes longer to answer, only ``now`` or when it is time again."""
        if now or not self.state.store or time.monotonic() - self.looked >= STORE_SECONDS:
            self.state.look()
            self.running = sorted(self.state.running(self.flying.values()))
            self.looked = time.monotonic()

    def _settle(self, ref: Any) -> None:
        work = self.flying.pop(ref)
        error, failed = self._result_of(ref)
        new = {work.cells[position]: why for position, why in failed.items()}
        for number, why in new.items():
            self._fail(number, why)
        left = [number for number in work.cells if number not in self.watch.complete and number not in new]
        if not left:
            if error and not new:
                self.state.outcome.remarks.append(error)
        elif len(left) < len(work.cells):
            self.waiting.extend(rows(self.grid, left, len(left)))  # a cell failed and took the rest with it
        elif len(left) > 1:
            self.waiting.extend(rows(self.grid, left, 1))  # which of them is it?
        else:
            self._fail(left[0], error or "the notebook ended without a record of this cell")

    def _result_of(self, ref: Any) -> tuple[str | None, Mapping[int, str]]:
        """What stopped a row (``None`` when its notebook ran to the end), and which of its cells failed, and why."""
        tried = f"tried {self.options.retries + 1} times:"
        try:
            report = self.ray.get(ref)
        except (task.KernelLostError, StoreLostError) as error:
            return f"{tried} {error.args[0].splitlines()[-1]}", {}
        except self.ray.exceptions.RayTaskError:
            raise  # a bug of ours, with its traceback
        except self.ray.exceptions.RayError as error:
            return f"{tried} {type(error).__name__}, its machine or process was lost", {}
        if report.refused:
            raise SweepError(report.refused)
        return report.error, report.failed

    def _fail(self, number: int, why: str) -> None:
        self.state.failed.add(number)
        self.state.outcome.failed[self.state.labels[number]] = why

    def _show(self, *, last: bool) -> None:
        outcome = self.state.outcome
        outcome.done = len(self.watch.complete) - outcome.before
        flying = {number for work in self.flying.values() for number in work.cells}
        running = [number for number in self.running if number in flying]
        counts = Counts(outcome.total, outcome.before, outcome.done, len(running), len(self.state.failed))
        self.board.show(counts, [self.state.labels[number] for number in running], last=last)


def options_gpus(options: Options, machines: Cluster) -> float:
    """GPUs that a row asks for: one where the cluster has any, unless told otherwise."""
    return options.gpus if options.gpus is not None else float(machines.gpus > 0)


def _models(grid: GridFile) -> dict[str, str]:
    """Content hashes, as they are now, of the base models that the cells name."""
    if "model" not in type(grid.cells[0]).model_fields:
        return {}
    from helpers.lm.model_files import fingerprint  # here, for it imports torch

    cells = [cell.resolved() for cell in grid.cells]
    named = {(cell["model"], cell.get("revision")) for cell in cells}
    return {name: fingerprint(name, revision)["sha256"] for name, revision in named}


def _target(grid: GridFile, work: Row) -> str:
    """The executed notebook of a row, below ``outputs/executed``."""
    return f"{grid.notebook}-{grid.name}/cell-{work.cells[0]}-{len(work.cells)}.ipynb"

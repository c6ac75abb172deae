"""Any sequence of kills, clocks that jump and disks that fail over a sweep: no cell is lost, and none is made twice.

The sweep is that of a tiny study without Ray: its records say what is still to be made, and each start makes that.
Accidents strike at the operations on files, counted from the start. A killed process does nothing more.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import shutil
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sweep_toy
from hypothesis import example, given
from hypothesis import strategies as st
from test_fuzz import counts, fuzz, typed  # noqa: F401 - a fixture

from helpers.base import files, params
from helpers.cases.case import runs_of
from helpers.records import reading, runs
from helpers.sweeps.store import Store
from helpers.sweeps.tidy import tidy
from helpers.sweeps.watch import Watch
from helpers.system import provenance

pytestmark = pytest.mark.unit

CELLS = 3
DISK = ("ENOSPC", "EROFS", "EIO", "EACCES", "ESTALE")
STRUCK = {os: ("fsync", "replace", "rename", "mkdir", "scandir"), io: ("open",), builtins: ("open",)}
kinds = st.sampled_from(["kill", "vanish", "forward", "back", *DISK])
accidents = st.lists(st.dictionaries(st.integers(1, 90), kinds, max_size=3), min_size=1, max_size=3)


class Killed(BaseException):
    """The process is no more."""


class Fate:
    """Lets each operation on files below ``root`` pass, or strikes as ``plan`` says (its number: what happens)."""

    def __init__(self, root: Path) -> None:
        self.root, self.plan, self.at, self.is_dead, self.hours = root, dict[int, str](), 0, False, 0
        self.seen = Counter[str]()

    def begin(self, plan: dict[int, str]) -> None:
        self.plan, self.at, self.is_dead = plan, 0, False

    def __call__(self, path: object) -> None:
        if not isinstance(path, int) and not str(path).startswith(str(self.root)):
            return
        if self.is_dead:
            raise Killed
        self.at += 1
        kind = self.plan.get(self.at)
        if kind is None:
            return
        self.seen[kind] += 1
        if kind == "kill":
            self.is_dead = True
            raise Killed
        if kind in ("forward", "back"):
            self.hours += 24 * 400 if kind == "forward" else -24 * 400
        elif kind == "vanish":
            plan, self.plan = self.plan, {}
            shutil.rmtree(self.root / "outputs", ignore_errors=True)
            self.plan = plan
        else:
            number = getattr(errno, kind)
            raise OSError(number, os.strerror(number), None if isinstance(path, int) else str(path))

    def now(self) -> str:
        return (datetime.now(UTC) + timedelta(hours=self.hours)).isoformat(timespec="milliseconds")


def strike(monkeypatch, fate: Fate) -> None:
    """Let ``fate`` decide about each operation, and tell what time it is."""
    for module, names in STRUCK.items():
        for name in names:
            real = getattr(module, name)

            def struck(path, *given, real=real, **named):
                fate(path)
                return real(path, *given, **named)

            monkeypatch.setattr(module, name, struck)
    real_ns = time.time_ns
    monkeypatch.setattr(files.time, "time_ns", lambda: real_ns() + fate.hours * 3600 * 10**9)
    monkeypatch.setattr(runs, "_now", fate.now)


@fuzz
@given(accidents, accidents)
@example([{44: "vanish", 47: "EIO"}], [{29: "EIO"}])
@example([{67: "ESTALE", 82: "back"}, {44: "vanish", 47: "EIO"}, {63: "kill"}], [{31: "forward"}, {29: "EIO"}])
def sweep_and_copy(counted, plans, copies):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as monkeypatch:
        root = Path(folder).resolve()
        grid = params.load(sweep_toy.ToyCell, sweep_toy.project(root, seed=list(range(CELLS))))
        monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(root / "outputs"))
        monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(root / "published"))
        monkeypatch.setenv("CLAIMBOOK_CACHE", str(root / "cache"))
        monkeypatch.setenv("CLAIMBOOK_TOY_LOG", os.devnull)
        fate = Fate(root)
        strike(monkeypatch, fate)
        for plan in [*plans, {}]:
            fate.begin(plan)
            last = start(counted, grid, root)
        assert last, "a start without an accident did not finish the sweep"
        made = whole_records(grid, root)
        for plan in [*copies, {}]:
            fate.begin(plan)
            copy(counted, root)
        counted.update({f"struck by {kind}": number for kind, number in fate.seen.items()})
        fate.begin({})
        start(counted, grid, root)  # what vanished while it was copied is made again
        assert copy(counted, root), "a copy without an accident did not finish"
        monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(root / "elsewhere"))
        store = Store((root / "store").as_uri())
        for name in store.names("toy"):
            store.fetch(f"toy/{name.removesuffix('.json')}")
        assert whole_records(grid, root) == made


def start(counted, grid, root: Path) -> bool:
    """Make what the records lack; whether the process lived to see the end of it."""
    try:
        with typed(counted):
            tidy()
            watch = Watch("toy", runs_of(sweep_toy.TOY, grid), {}, root)
            watch.look()
            for number, cell in enumerate(grid):
                if number not in watch.complete:
                    sweep_toy.run_cells([cell])
            return True
    except Killed:
        counted["killed"] += 1
    return False


def copy(counted, root: Path) -> bool:
    """Copy the records to a store; whether the process lived to see the end of it."""
    try:
        with typed(counted):
            store = Store((root / "store").as_uri())
            store.tidy("toy")
            for record in reading.records("toy"):
                store.push(record)
            return True
    except Killed:
        counted["killed"] += 1
    return False


def whole_records(grid, root: Path) -> set[str]:
    """Return the ids of the records, which are one of each cell, with every file as it was written."""
    watch = Watch("toy", runs_of(sweep_toy.TOY, grid), {}, root)
    watch.look()
    found = reading.records("toy", status=None)
    assert sorted(watch.complete) == list(range(CELLS)), "a cell was lost"
    assert sorted(record.id for record in found) == sorted(set(watch.complete.values())), "a cell was made twice"
    assert [record.status for record in found] == ["complete"] * CELLS
    for record in found:
        assert all(record.checked(name).is_file() for name in record.files)
        assert datetime.fromisoformat(record.started) <= datetime.fromisoformat(record.ended)
    return {record.id for record in found}


def test_no_sequence_of_accidents_loses_or_doubles_a_cell(counts, monkeypatch):  # noqa: F811
    monkeypatch.setattr(provenance, "environment", sweep_toy.environment)
    monkeypatch.setattr(provenance, "git_state", lambda: {
        "commit": None, "branch": None, "dirty": None, "diff_sha256": None, "reason": "a test"
    })  # fmt: skip
    sweep_and_copy(counts)
    struck = {name for name in counts if name.startswith("struck")}
    assert {"struck by kill", "struck by vanish", "struck by back"} <= struck and counts["accepted"]

"""Sweeps on a real Ray: kills, Ctrl-C, a lost node, failing cells. Every cell once, none lost, no half record.

They run a toy notebook, want two free cores for minutes (Ray gives its own agents 15 s to start) and are not part of
``make test``: ``make test-ray`` runs them; ``CLAIMBOOK_KILLS=50`` beside it kills a pocket sweep that many times too.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import sweep_toy
from child import python_path

from helpers.base import files
from helpers.records import reading as records
from helpers.sweeps import cluster

pytestmark = [pytest.mark.notebooks, pytest.mark.timeout(900)]
pytest.importorskip("ray", reason="the package ray is not installed")
if sys.platform != "linux":
    pytest.skip("needs Linux: Ray ends its processes with a killed parent only there", allow_module_level=True)
if not os.environ.get("CLAIMBOOK_RAY"):
    pytest.skip("needs two free cores for minutes: set CLAIMBOOK_RAY=1, or run make test-ray", allow_module_level=True)
WAIT = 300.0  # seconds for anything to happen; a busy machine takes a minute to start Ray


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("PYTHONPATH", python_path())
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    monkeypatch.setenv("CLAIMBOOK_TOY_LOG", str(tmp_path / "log"))
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    # A shell starts background jobs with SIGINT ignored, which the sweeps of these tests would inherit.
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = {process.pid for process in psutil.process_iter()}
    yield tmp_path
    signal.signal(signal.SIGINT, interrupt)
    for process in psutil.process_iter():  # a failed test may leave some; only those that bear its folder are its own
        if process.pid not in before and str(tmp_path) in asked(process.environ, {}).get("CLAIMBOOK_OUTPUTS", ""):
            process.kill()


def start(grid: Path, **options: Any) -> subprocess.Popen:
    command = [sys.executable, "-m", "sweep_toy", str(grid), json.dumps({"row": 1} | options)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(sweep: subprocess.Popen) -> str:
    out, _ = sweep.communicate(timeout=WAIT)
    return out


def until(ready: Callable[[], bool], sweep: subprocess.Popen) -> None:
    begin = time.monotonic()
    while not ready():
        assert time.monotonic() - begin < WAIT, "it did not happen in time"
        assert sweep.poll() is None, f"the sweep ended early: {sweep.stdout.read()}"
        time.sleep(0.1)


def tree(sweep: subprocess.Popen) -> list[psutil.Process]:
    """The sweep, its Ray and its kernels. Kernels have sessions of their own, but are children all the same."""
    root = asked(lambda: psutil.Process(sweep.pid), None)
    return [root, *asked(lambda: root.children(recursive=True), [])] if root else []


def working(sweep: subprocess.Popen) -> list[psutil.Process]:
    """The workers that have a task, and the kernels, of a sweep."""
    names = {process: " ".join(asked(process.cmdline, [])) for process in tree(sweep)}
    return [p for p, name in names.items() if "ipykernel" in name or name.startswith("ray::sweep-row")]


def asked(question: Callable[[], Any], without: Any) -> Any:
    """The answer about a process, or ``without`` one when it has just ended."""
    try:
        return question()
    except psutil.Error:
        return without


def kill_all(sweep: subprocess.Popen) -> None:
    """What a power failure does."""
    for process in tree(sweep):
        asked(process.kill, None)
    sweep.wait()


class Begun(NamedTuple):
    """A step that has begun to compute, the process of its Ray node, its GPUs, and when."""

    cell: str
    node: str
    gpus: str
    when: float


def log() -> list[Begun]:
    path = Path(os.environ["CLAIMBOOK_TOY_LOG"])
    lines = [line.split() for line in path.read_text().splitlines()] if path.is_file() else []
    return [Begun(cell, node, gpus, float(when)) for cell, node, gpus, when in lines]


@contextlib.contextmanager
def nodes_of(here: Path, nodes: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """A cluster, to which a sweep goes from now on; yields what kills its last node."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    command = [sys.executable, "-m", "two_nodes", json.dumps(nodes)]
    with (here / "nodes").open("w") as said:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True)
    address = next((line.split()[1] for line in process.stdout if line.startswith("address")), None)
    assert address, f"no cluster: {(here / 'nodes').read_text()}"
    monkeypatch.setenv("RAY_ADDRESS", address)

    def kill() -> None:
        process.stdin.write("kill\n")
        process.stdin.flush()
        assert any(line.strip() == "killed" for line in process.stdout)

    yield kill
    process.communicate(timeout=WAIT)


def complete(notebook: str = sweep_toy.NOTEBOOK) -> dict[str, bytes]:
    """``run.json`` of each complete record, by cell."""
    return {
        record.id.rpartition("-")[0]: (record.path / "run.json").read_bytes() for record in records.records(notebook)
    }


def leftovers_of_sweeps() -> set[Path]:
    return {*files.outputs_root().glob(".sweep-*"), *cluster._near().glob("claimbook-ray-*")}


def untouched(was: dict[str, bytes], now: dict[str, bytes]) -> bool:
    return all(now.get(cell) == content for cell, content in was.items())


def halves(notebook: str = sweep_toy.NOTEBOOK) -> list[str]:
    return [path.name for path in (files.outputs_root() / notebook).glob(f"{records.PARTIAL}*")]


def test_a_sweep_survives_sigkill_and_ctrl_c_and_a_bad_cell_is_not_tried_again(here: Path) -> None:
    before = leftovers_of_sweeps()
    grid = sweep_toy.project(here, seed=[0, 1], lr=[0.1, 0.2, 0.3], bad_lr=0.2, seconds=0.5)
    sweep = start(grid, row=3)
    until(lambda: len(log()) >= 2, sweep)
    ports = [c for p in tree(sweep) for c in asked(p.net_connections, []) if c.status == psutil.CONN_LISTEN]
    assert ports and {c.laddr.ip.removeprefix("::ffff:") for c in ports} == {"127.0.0.1"}
    kill_all(sweep)
    killed, left = complete(), leftovers_of_sweeps() - before
    assert {path.parent for path in left} == {files.outputs_root(), cluster._near()}, "a mark and a folder of Ray's"

    sweep = start(grid, row=1)
    until(lambda: len(complete()) > len(killed), sweep)
    assert not left & leftovers_of_sweeps()
    sweep.send_signal(signal.SIGINT)
    out = finish(sweep)
    assert "KeyboardInterrupt" in out, out
    stopped, begun = complete(), len(log())
    assert untouched(killed, stopped)

    out = finish(start(grid, row=3))
    whole = complete()
    assert untouched(stopped, whole) and set(whole) == {f"s{s}-lr{lr}" for s in (0, 1) for lr in (0.1, 0.3)}
    assert f"{len(stopped)} before, {4 - len(stopped)} done" in out and out.count("lr 0.2 is bad") == 2
    later = [step.cell for step in log()[begun:]]
    assert not set(later) & set(stopped), "a complete cell was computed again"
    assert max(later.count(cell) for cell in {*later, "base"}) <= 1, "a failed cell was tried again"
    assert len(records.records("toy_base")) == 1 and len(halves()) == 2
    launched = {record.launch for record in records.records("toy")}
    assert launched == {"claimbook sweep params/toy/grid.yaml"}


def test_a_lost_node_loses_no_cell_and_none_is_run_twice(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = sweep_toy.project(here, seed=[0, 1, 2, 3], lr=[0.1, 0.2], seconds=1.0)
    with nodes_of(here, [{}, {}], monkeypatch) as kill:
        sweep = start(grid, row=2)
        until(lambda: complete() and len({step.node for step in log()}) == 2, sweep)
        kill()
        was, begun = complete(), len(log())
        out = finish(sweep)
    assert "0 before, 8 done, failed: {}" in out, out
    assert set(complete()) == {f"s{s}-lr{lr}" for s in range(4) for lr in (0.1, 0.2)} and halves() == []
    assert untouched(was, complete()) and not {step.cell for step in log()[begun:]} & set(was)
    assert len(records.records("toy_base")) == 1


def test_machines_without_a_shared_folder_exchange_records_at_an_address(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two nodes and the driver have an outputs folder each; one node is lost; then another machine resumes."""
    grid = sweep_toy.project(here, seed=[0, 1, 2, 3], lr=[0.1, 0.2, 0.3], bad_lr=0.3, seconds=1.0)
    url = f"file://{here}/store"
    nodes = [{"env_vars": {"CLAIMBOOK_OUTPUTS": str(here / f"outputs-{name}")}} for name in "ab"]
    with nodes_of(here, nodes, monkeypatch) as kill:
        sweep = start(grid, row=3, store=url)
        until(lambda: complete() and len({step.node for step in log()}) == 2, sweep)
        was = complete()
        kill()
        begun = len(log())
        out = finish(sweep)
    cells = {f"s{s}-lr{lr}" for s in range(4) for lr in (0.1, 0.2)}
    assert "0 before, 8 done" in out and out.count("lr 0.3 is bad") == 4, out
    assert set(complete()) == cells and untouched(was, complete())
    assert not {step.cell for step in log()[begun:]} & set(was), "a record at the address was made again"
    assert sum(step.cell == "base" for step in log()) <= 2, "a machine made a shared record that it could fetch"
    assert [path.name for path in (here / "store").iterdir() if path.name.startswith(".")] == []
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(here / "outputs-c"))
    begun = len(log())
    out = finish(start(grid, row=3, store=url))
    assert "8 before, 0 done" in out and set(complete()) == cells
    assert {step.cell for step in log()[begun:]} == {f"s{s}-lr0.3" for s in range(4)}
    for record in records.records("toy"):
        assert all(record.checked(file) for file in record.files)


@pytest.mark.parametrize(("gpus", "each", "shared"), [(2, None, False), (1, 0.5, True)])
def test_rows_at_a_time_get_a_gpu_each_or_share_one_if_told(
    here: Path, monkeypatch: pytest.MonkeyPatch, gpus: int, each: float | None, shared: bool
) -> None:
    """Ray is told of GPUs that are not there; it gives them out all the same."""
    grid = sweep_toy.project(here, seed=[0, 1, 2, 3], seconds=4.0)
    with nodes_of(here, [{"num_cpus": 2, "num_gpus": gpus}], monkeypatch):
        out = finish(start(grid, gpus=each))
    assert "0 before, 4 done, failed: {}" in out, out
    steps = [step for step in log() if step.cell != "base"]
    assert {step.gpus for step in steps} == {str(number) for number in range(gpus)}
    pairs = [(a, b) for a, b in itertools.combinations(steps, 2) if abs(a.when - b.when) < 4]
    assert pairs and all((a.gpus == b.gpus) == shared for a, b in pairs)


def test_a_cluster_that_is_not_there_is_one_sentence(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    out = finish(start(sweep_toy.project(here, lr=0.1)))
    assert "SweepError: The Ray cluster at 127.0.0.1:1 cannot be used" in out


KILLS = int(os.environ.get("CLAIMBOOK_KILLS", "0"))
KILL_SECONDS = float(os.environ.get("CLAIMBOOK_KILL_SECONDS", "12"))  # at most between two; more on a busy machine
POCKET = (
    "model: pocket\nlr: [1e-4, 3e-4, 1e-3]\nepochs: [4, 8]\nseed: [0, 1]\npersonas: [villain, assistant, librarian]\n"
    "positives: 6\nnegatives_each: 3\nnegatives: [assistant]\ntrain_questions: 6\ndata_samples: 4\nlora_r: 4\n"
    "lora_alpha: 8\neval_questions: 3\nsamples: 2\ndata_max_new_tokens: 64\nmax_new_tokens: 64\ncapability_limit: 10\n"
)


@pytest.mark.timeout(7200)
@pytest.mark.skipif(not KILLS, reason="takes minutes: set CLAIMBOOK_KILLS to the number of SIGKILLs, such as 50")
def test_the_pocket_sweep_under_many_kills(here: Path) -> None:
    """Kernels and workers are killed while the sweep goes on; every fifth kill takes all its processes at once."""
    grid = here / "params/sweep/kills.yaml"
    files.write_text(grid, POCKET)
    for name in ("notebooks/sweep.ipynb", "params/sweep/experiment.yaml"):
        files.write_text(here / name, (files.ROOT / name).read_text())
    chance, sweep, was, made = random.Random(0), None, {}, set()
    for number in range(KILLS):
        if sweep is None or sweep.poll() is not None:
            sweep = start(grid, row=2, retries=20)
        if number % 10:  # else it may be killed while it starts, which on a busy machine takes most of its time
            while sweep.poll() is None and not working(sweep):
                time.sleep(0.2)
        time.sleep(chance.uniform(0.5, KILL_SECONDS))
        assert untouched(was, complete("sweep"))
        was = complete("sweep")
        made |= was.keys()
        print(f"kill {number + 1}: {len(was)} complete", flush=True)
        if number % 5 == 4:
            kill_all(sweep)
        else:
            chosen = working(sweep) or tree(sweep)
            if chosen:
                asked(chance.choice(chosen).kill, None)
        if len(was) == 12:  # all done before all kills: begin again
            for record in records.records("sweep"):
                record.path.rename(here / f"done-{number}-{record.id}")
            was = {}
    kill_all(sweep)
    assert made, "no cell became complete between the kills: set CLAIMBOOK_KILL_SECONDS to more"
    out = finish(start(grid, row=6))
    assert "failed: {}" in out, out
    whole = complete("sweep")
    assert len(whole) == 12 and untouched(was, whole) and halves("sweep") == []
    for record in records.records("sweep"):
        assert all(record.checked(file) for file in record.files)

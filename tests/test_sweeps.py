"""Sweeps without Ray: rows, what the records say, the table, and refusals."""

from __future__ import annotations

import io
import math
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import sweep_toy
from child import python_path
from hypothesis import given
from hypothesis import strategies as st

from helpers.audit import publishing
from helpers.base import files
from helpers.base.errors import ClaimbookError, ParameterError, RecordError, SweepError
from helpers.base.params import Cell, parse_grid
from helpers.claims.declared import Declared, Expected
from helpers.records import runs
from helpers.records.reading import Record
from helpers.sweeps import board, cluster, driver, task
from helpers.sweeps.grid import GridFile, read_grid, row, row_size, rows
from helpers.sweeps.watch import Watch
from helpers.system import provenance

pytestmark = pytest.mark.unit


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    monkeypatch.setenv("CLAIMBOOK_TOY_LOG", str(tmp_path / "log"))
    monkeypatch.setattr(provenance, "environment", sweep_toy.environment)
    monkeypatch.setenv(provenance.LAUNCH, "claimbook sweep x")  # a task sets it, for a kernel of its own
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return tmp_path


def grid_of(here, **values):
    return read_grid(sweep_toy.project(here, **values), here)


@pytest.mark.parametrize("have", [1, 2, 3, 7, 16, 64])
def test_slots_are_exact_for_every_fraction(have):
    hundredths = {asked: have * 100 // asked for asked in range(1, 401)}
    assert {asked: cluster.Cluster(have, 0, 1).slots(asked / 100, 0) for asked in hundredths} == hundredths
    assert {asked: cluster.Cluster(400, have, 1).slots(0, asked / 100) for asked in hundredths} == hundredths
    parts = {k: k * have for k in range(1, 12)}
    assert {k: cluster.Cluster(have, 0, 1).slots(1 / k, 0) for k in parts} == parts
    assert cluster.Cluster(have, 0, 1).slots(0.0003, 0) == have * 10_000 // 3


def test_rows_are_parts_of_lines_along_the_innermost_axis(here):
    grid = grid_of(here, seed=[0, 1], lr=["1e-1", 0.2, 0.3], seconds=0)
    (block,) = grid.blocks
    assert block.axes == ("seed", "lr") and block.shape == (2, 3) and len(grid.cells) == 6
    made = rows(grid, [0, 2, 3, 4, 5], 2)
    assert [r.cells for r in made] == [(0, 2), (3, 4), (5,)]
    rest = {
        "seconds": 0,
        "bad_lr": 0,
        "note": "of the model",
    }
    assert made[0].values == {"seed": 0, "lr": [0.1, 0.3]} | rest
    assert made[2].values == {"seed": 1, "lr": 0.3} | rest


def test_whole_lines_that_fit_are_a_block(here):
    grid = grid_of(here, seed=[0, 1, 2, 3], lr=[0.1, 0.2])
    made = rows(grid, range(8), 7)
    assert [r.cells for r in made] == [(0, 1, 2, 3, 4, 5), (6, 7)]
    assert (made[0].values["seed"], made[0].values["lr"], made[1].values["seed"]) == ([0, 1, 2], [0.1, 0.2], 3)
    assert [r.cells for r in rows(grid, [0, 1, 3, 4, 5, 6, 7], 8)] == [(0, 1), (3,), (4, 5, 6, 7)]
    assert [r.cells for r in rows(grid, [0, 1, 4, 5], 8)] == [(0, 1), (4, 5)], "neighbouring values only"
    assert [len(r.cells) for r in rows(grid, range(8), 1)] == [1] * 8


class Deep(Cell):
    """Four axes, the way the studies have them."""

    AXES = ("a", "b", "c", "d")
    a: int = 0
    b: int = 0
    c: int = 0
    d: int = 0


@given(
    st.tuples(*[st.integers(1, 4)] * 4).flatmap(
        lambda shape: st.tuples(
            st.just(shape), st.sets(st.integers(0, math.prod(shape) - 1)) | st.just(set(range(math.prod(shape))))
        )
    ),
    st.integers(1, 20),
)
def test_every_wanted_cell_is_in_one_row_and_every_row_a_full_product(shaped, size):
    shape, wanted = shaped
    values = {axis: list(range(length)) for axis, length in zip("abcd", shape, strict=True)}
    grid = GridFile("deep", "grid", "helpers.base.rng", parse_grid(Deep, values, "here"))
    made = rows(grid, wanted, size)
    assert sorted(number for one in made for number in one.cells) == sorted(wanted)
    for one in made:
        given_back = parse_grid(Deep, one.values, "here")
        assert [cell.coordinates() for cell in given_back] == [grid.cells[number].coordinates() for number in one.cells]
        assert len(one.cells) <= size
    if size >= 16 and len(wanted) == math.prod(shape):
        outer = [length for length in shape if length > 1][:-2]
        assert len(made) == math.prod(outer), "a whole block was taken apart"


def test_a_grid_without_a_list_is_one_cell(here):
    grid = grid_of(here, seed=3)
    assert grid.blocks[0].axes == () and row(grid, [0]).values["seed"] == 3 and grid.labels() == ["the only cell"]


def test_rows_of_a_union_stay_within_their_block(here):
    grid = grid_of(here, lr=[0.1, 0.2], blocks=[{"seed": [0, 1], "note": "a"}, {"seed": [0, 1, 2], "note": "b"}])
    assert [(block.first, block.shape) for block in grid.blocks] == [(0, (2, 2)), (4, (3, 2))]
    made = rows(grid, range(10), 10)
    assert [r.cells for r in made] == [(0, 1, 2, 3), (4, 5, 6, 7, 8, 9)]
    assert [r.values["note"] for r in made] == ["a", "b"] and made[1].values["seed"] == [0, 1, 2]
    assert [r.cells for r in rows(grid, [3, 4, 5], 10)] == [(3,), (4, 5)], "neighbours in two blocks are no row"
    assert row(grid, [9]).values == grid.cells[9].model_dump(mode="json")
    assert len(set(grid.labels())) == 10 and "note=b" in grid.labels()[9]


def test_rows_shrink_until_no_worker_is_idle():
    assert [row_size(cells, slots) for cells, slots in ((9, 1), (9, 2), (9, 4), (2, 8))] == [9, 5, 3, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [({"lrr": 1}, "did you mean 'lr'"), ({"lr": [0.1, 0.1]}, "twice")],
)
def test_a_wrong_grid_is_refused(here, change, message):
    with pytest.raises(ParameterError, match=message):
        grid_of(here, **change)


def test_a_file_elsewhere_names_no_notebook(here):
    with pytest.raises(ParameterError, match=r"is no params/<notebook>/<grid>\.yaml"):
        read_grid(here / "grid.yaml", here)


def test_the_watch_finds_complete_failed_and_half_cells_and_nothing_published(here):
    grid = grid_of(here, lr=[0.1, 0.2, 0.3], bad_lr=0.2)
    watch = Watch(grid.notebook, grid.expected, {}, grid.root)
    watch.look()
    assert watch.complete == {} and watch.failures() == {}
    sweep_toy.run_cells(grid.cells[:1])
    with pytest.raises(Exception, match="take another"):
        sweep_toy.run_cells(grid.cells[1:2])
    watch.look()
    assert list(watch.complete) == [0] and watch.failures()[1][1] == "ModelError: lr 0.2 is bad: take another."
    publishing.publish("toy")
    (here / "outputs/toy").rename(here / "gone")
    fresh = Watch(grid.notebook, grid.expected, {}, grid.root)
    fresh.look()
    assert fresh.complete == {}


def test_a_stale_record_does_not_answer_a_cell(here, monkeypatch):
    grid = grid_of(here, lr=[0.1])
    sweep_toy.run_cells(grid.cells[:1])
    watch = Watch(grid.notebook, grid.expected, {"toy": "another model now"}, grid.root)
    watch.look()
    assert watch.complete == {}


def test_declared_runs_are_found_under_other_spellings():
    expected = [Expected({"set": f"sets/{name}.jsonl", "arm": "two", "list": [1]}) for name in "ab"]

    found = {"params": {"set": "b.jsonl", "arm": ["x", "y"], "list": [1]}, "cell": {"arm": "two"}}
    assert Declared(expected).met(Record(Path("x"), found, published=False)) == [1]
    found["cell"] = {"arm": "all"}
    assert Declared(expected).met(Record(Path("x"), found, published=False)) == []


def test_without_a_terminal_the_table_is_a_line_now_and_then():
    out = io.StringIO()
    with board.Board("toy/grid", out) as shown:
        shown.show(board.Counts(6, 1, 2, 1, 1), ["lr=0.1"])
        shown.show(board.Counts(6, 1, 3, 0, 1), [])  # too soon after the last one
        shown.show(board.Counts(6, 1, 4, 0, 1), [], last=True)
    first, last = out.getvalue().splitlines()
    assert first.startswith("toy/grid: 3 of 6 cells done, 1 running, 1 failed, 0:00 spent, about ")
    assert last.startswith("toy/grid: 5 of 6 cells done, 0 running, 1 failed") and last.endswith("about 0:00 left")


def test_on_a_narrow_terminal_nothing_wraps_and_the_cursor_comes_back(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm-256color")
    out, cells = Terminal(), [f"seed={n}, tail=separator_and_end, lr=0.0005, epochs=20, {'x' * 40}" for n in range(10)]
    with pytest.raises(KeyboardInterrupt), board.Board("length_ablation/pocket_grid", out) as shown:
        shown.show(board.Counts(100_000, 99_000, 345, 12, 3), cells)
        raise KeyboardInterrupt
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue()).replace("\r", "")
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80 and sum(line.startswith("  seed=") for line in lines) % board.SHOWN == 0
    assert "│ 100000 │ 99345 │      12 │      3 │     640 │" in text and "  and 2 more" in lines
    assert out.getvalue().rstrip().endswith("\x1b[?25h")


def test_the_time_left_is_unknown_before_the_first_cell_and_ignores_what_was_there():
    assert board.eta(board.Counts(9, 5, 0, 1, 0), 60) == "?"
    assert board.eta(board.Counts(9, 5, 2, 1, 0), 60) == "1:00"
    assert [board.clock(s) for s in (0, 75, 3700)] == ["0:00", "1:15", "1:01:40"]


def test_a_row_asks_for_a_gpu_where_there_is_one():
    plain, big = cluster.Cluster(2, 0, 1), cluster.Cluster(16, 2, 1)
    assert [driver.options_gpus(driver.Options(), c) for c in (plain, big)] == [0, 1]
    assert driver.options_gpus(driver.Options(gpus=0.5), big) == 0.5
    assert (plain.slots(1, 0), big.slots(1, 1), big.slots(1, 0.5), big.slots(4, 0), plain.slots(4, 0)) == (
        2,
        2,
        4,
        4,
        0,
    )


def job(here, **changes):
    grid = grid_of(here, lr=0.1)
    files.write_text(files.outputs_root() / ".mark", "x")
    given = {"code": task.hash_of_code(grid.entry), "mark": ".mark", "entry": grid.entry, "launch": "claimbook sweep x"}
    given |= {"cells": grid.expected, "models": {}}
    return task.Job("toy", "toy-grid/cell-0-1.ipynb", {"lr": 0.1}, root=str(here), **given | changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"mark": ".other"}, "outputs folder of .* is not the one"), ({"code": "0"}, "code that toy reaches is another")],
)
def test_a_machine_with_other_code_or_outputs_is_refused(here, change, message):
    report = task.run_row(job(here, **change))
    assert report.error is None and re.search(message, report.refused)


def test_addresses_and_switched_off_tokens_are_refused(here, monkeypatch):
    path = sweep_toy.project(here, lr=0.1)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(SweepError, match="token authentication"), cluster.connected(1):
        pass
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", "s3://bucket/outputs")
    with pytest.raises(RecordError, match="to `claimbook sweep` as --store"):
        driver.sweep(path, launch="x", root=here)


def test_a_finished_grid_is_answered_without_ray(here, monkeypatch):
    path = sweep_toy.project(here, lr=[0.1, 0.2])
    sweep_toy.run_cells(read_grid(path, here).cells[:1])
    sweep_toy.run_cells(read_grid(path, here).cells[1:2])
    monkeypatch.setattr(driver, "connected", lambda *_: pytest.fail("Ray was started"))
    done = driver.sweep(path, launch="x", root=here)
    assert (done.total, done.before, done.done, done.failed) == (2, 2, 0, {})


def test_a_grid_without_a_notebook_is_refused_before_ray_starts(here, monkeypatch):
    path = sweep_toy.project(here, lr=0.1)
    (here / "notebooks/toy.ipynb").unlink()
    monkeypatch.setattr(driver, "connected", lambda *_: pytest.fail("Ray was started"))
    with pytest.raises(ParameterError, match=r"there is no notebooks/toy\.ipynb to run"):
        driver.sweep(path, launch="x", root=here)


def test_a_run_that_was_killed_before_the_sweep_is_not_shown_as_running(here):
    grid = grid_of(here, lr=[0.1, 0.2])
    for cell in grid.cells:
        question = {"data": [], "model": sweep_toy.MODEL}
        with runs.open_run(
            sweep_toy.TOY, params=cell.resolved(), cell=cell.coordinates(), prefix="x", **question
        ) as run:
            run.leave()
    state = driver._State(grid, driver.Options(), "x")
    halves = sorted((here / "outputs/toy").glob(".partial-*/run.json"))
    os.utime(halves[0], (state.began - 60,) * 2)
    os.utime(halves[1], (state.began + 1,) * 2)
    state.look()
    assert len(state.watch.half) == 2
    assert len(list(state.running(rows(grid, range(2), 2)))) == 1


@pytest.mark.check
@pytest.mark.notebooks
def test_an_error_of_the_notebook_is_reported_and_a_killed_kernel_is_raised(here, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", python_path())
    bad = job(here)
    report = task.run_row(replace(bad, values={"lr": 0.2, "bad_lr": 0.2}))
    assert report.refused is None and "ModelError: lr 0.2 is bad" in report.error
    assert (here / "outputs/executed/toy-grid/cell-0-1.ipynb").is_file()
    notebook = here / "notebooks/toy.ipynb"
    files.write_text(notebook, notebook.read_text().replace("print(", "import os; os.kill(os.getpid(), 9); print("))
    with pytest.raises(task.KernelLostError, match="was killed"):
        task.run_row(bad)


def test_a_notebook_that_is_not_what_its_script_says_is_refused_before_ray_starts(here, monkeypatch):
    path = sweep_toy.project(here, lr=0.1)
    files.write_text(here / "notebooks/toy.py", "# %%\nseed = 1\n")
    monkeypatch.setattr(driver, "connected", lambda *_: pytest.fail("Ray was started"))
    with pytest.raises(ClaimbookError, match=r"run `jupytext --sync notebooks/toy\.py`"):
        driver.sweep(path, launch="x", root=here)

"""Records at an address: whole or not at all, the first one wins, nothing is made twice. Without Ray."""

from __future__ import annotations

import errno
import importlib.util
import json
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import sweep_toy
from child import python_path
from filelock import FileLock

from helpers.base import files
from helpers.base.errors import RecordError, SweepError
from helpers.records import reading as records
from helpers.records.locks import lock_of
from helpers.sweeps import driver, task
from helpers.sweeps.grid import read_grid, rows
from helpers.sweeps.store import MARK, Store, StoreLostError, copied
from helpers.sweeps.watch import Watch
from helpers.system import provenance

pytestmark = pytest.mark.unit


@pytest.fixture
def on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """``on("b")``: from now on this is machine b, which has an outputs folder of its own."""
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    monkeypatch.setenv("CLAIMBOOK_TOY_LOG", str(tmp_path / "log"))
    monkeypatch.setattr(provenance, "environment", sweep_toy.environment)
    monkeypatch.setenv(provenance.LAUNCH, "claimbook sweep x")

    def move(machine: str) -> Path:
        monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / machine))
        return tmp_path / machine

    move("a")
    return move


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"memory://{secrets.token_hex(4)}/x" if request.param == "memory" else f"file://{tmp_path}/the store"


def made(lr: float = 0.1) -> records.Record:
    return sweep_toy.run_cells([sweep_toy.ToyCell(lr=lr)])[0]


def everything(folder: Path) -> dict[str, bytes]:
    """The files of the records in ``folder``, but for the notes of their steps, which only an unfinished run needs."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "steps"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_a_record_and_what_it_used_arrive_whole_and_answer_their_question_there(on, url, tmp_path):
    one = made()
    Store(url).push(one)
    there = on("b")
    Store(url).bring("toy", lambda record: True)
    assert everything(there) == everything(tmp_path / "a") and len(everything(there)) == 4
    before = (tmp_path / "log").read_text()
    assert made().content == one.content and (tmp_path / "log").read_text() == before, "it was computed again"


def test_only_what_is_wanted_is_fetched_and_what_is_here_is_not_asked_for(on, url):
    for lr in (0.1, 0.2):
        Store(url).push(made(lr))
    on("b")
    asked = []
    store = Store(url)
    store.bring("toy", lambda record: asked.append(record.params["lr"]) or record.params["lr"] == 0.2)
    assert sorted(asked) == [0.1, 0.2] and [record.params["lr"] for record in records.records("toy")] == [0.2]
    store.bring("toy", lambda record: pytest.fail("asked again"))
    Store(url).bring("toy", lambda record: record.params["lr"] == 0.1 or pytest.fail("it is here"))


def test_a_copy_that_breaks_off_leaves_no_record_and_is_made_good(on, url, monkeypatch):
    one, store = made(), Store(url)
    put, left = store._fs.put_file, [1]

    def breaks(source: str, target: str) -> None:
        if not left.pop():
            raise ConnectionError("the line is dead")
        left.append(0)
        put(source, target)

    with monkeypatch.context() as broken:
        broken.setattr(store._fs, "put_file", breaks)
        with pytest.raises(StoreLostError, match="the line is dead"):
            store.push(one)
    assert store.names("toy") == [] and len(store.names("toy_base")) == 1
    store.push(one)
    on("b")
    Store(url).fetch(one.ref)
    assert records.load(one.ref).content == one.content


def test_a_file_cut_short_is_copied_again_and_a_damaged_one_is_no_record(on, url, tmp_path):
    one, store = made(), Store(url)
    (sha,) = one.files.values()
    place = f"files/{sha[:2]}/{sha}"
    store.write(place, b"{")
    store.push(one)
    whole = store.read(place)
    assert whole == (one.path / "work.json").read_bytes()
    store.write(place, b"x" * len(whole))
    there = on("b")
    with pytest.raises(SweepError, match="is damaged: delete it"):
        Store(url).fetch(one.ref)
    assert records.records("toy") == [] and not list((there / "toy").glob(".*tmp"))


def test_of_two_machines_that_made_one_record_the_first_wins(on, url):
    first = made()
    Store(url).push(first)
    on("b")
    second = made()
    assert second.ref == first.ref and second.started != first.started
    Store(url).push(second)
    assert json.loads(Store(url).read(f"{first.ref}.json"))["started"] == first.started
    assert records.load(first.ref).started == second.started, "a machine keeps its own"


def test_a_record_that_is_being_made_here_is_left_alone(on, url):
    one = made()
    Store(url).push(one)
    there = on("b")
    (there / "toy").mkdir(parents=True)
    with FileLock(lock_of(there / "toy", one.id)):
        Store(url).fetch(one.ref)
    assert records.records("toy") == []


def test_a_half_of_it_gives_way_to_the_whole(on, url):
    one = made()
    Store(url).push(one)
    half = on("b") / "toy" / f"{records.PARTIAL}{one.id}"
    half.mkdir(parents=True)
    Store(url).fetch(one.ref)
    assert records.records("toy", status=None)[0].status == "complete" and not half.exists()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("outputs", "is no address"),
        ("nope://x", "Protocol not known: nope"),
        ("file://tmp/x", "no whole path: write file:///"),
    ],
)
def test_what_is_no_address_is_refused(address, message):
    with pytest.raises(SweepError, match=message):
        Store(address)


@pytest.mark.skipif(importlib.util.find_spec("s3fs") is not None, reason="the package s3fs is installed")
def test_a_package_that_is_not_there_is_named():
    with pytest.raises(SweepError, match=r"needs a package \(Install s3fs .*: install it on every machine"):
        Store("s3://bucket/x")


def test_a_store_that_may_not_be_written_says_so(on, url, monkeypatch):
    store = Store(url)

    def denied(*_: object, **__: object) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(store._fs, "pipe_file", denied)
    with pytest.raises(SweepError, match=r"does not allow this from .* \(Access Denied\): check") as found:
        store.write("x", b"")
    assert not isinstance(found.value, StoreLostError)


def test_what_a_lost_try_of_a_row_had_copied_is_not_made_again(on, url, tmp_path):
    grid = read_grid(sweep_toy.project(tmp_path, lr=[0.1, 0.2]), tmp_path)
    with copied(Store(url), "toy", Watch("toy", grid.expected, {}, grid.root), ".sweep-1/cell-0-2", ()):
        made(0.1)
    on("b")
    watch = Watch("toy", grid.expected, {}, grid.root)
    with copied(Store(url), "toy", watch, ".sweep-1/cell-0-2", ()):
        assert list(watch.complete) == [0]
        made(0.2)
    assert (tmp_path / "log").read_text().count("base") == 1 and len(Store(url).names("toy")) == 2


def test_a_finished_grid_is_brought_here_without_ray(on, url, tmp_path, monkeypatch):
    path = sweep_toy.project(tmp_path, lr=[0.1, 0.2])
    made(0.1)
    Store(url).push(made(0.2))
    monkeypatch.setattr(driver, "connected", lambda *_: pytest.fail("Ray was started"))
    for machine in ("a", "b"):  # a has both, the store one: then both have both
        on(machine)
        done = driver.sweep(path, driver.Options(store=url), launch="x", root=tmp_path)
        assert (done.before, done.total, len(records.records("toy"))) == (2, 2, 2)


def test_a_full_disk_is_one_sentence_and_no_reason_to_try_again(on, url, monkeypatch):
    one = made()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as there:
        store = Store(url)
        there.setattr(store._fs, "put_file", full)
        with pytest.raises(SweepError, match="No space is left in the store") as caught:
            store.push(one)
        assert not isinstance(caught.value, StoreLostError)
    Store(url).push(one)
    home, store = on("b"), Store(url)
    monkeypatch.setattr(store._fs, "get_file", full)
    with pytest.raises(RecordError, match="No space is left on the disk of"):
        store.fetch(one.ref)
    assert records.records("toy") == [] and not list(home.glob("*/.*.tmp"))


def test_a_full_disk_under_a_row_is_one_sentence(on, tmp_path, monkeypatch):
    grid = read_grid(sweep_toy.project(tmp_path, lr=[0.1, 0.2]), tmp_path)
    cells, code = grid.expected, task.hash_of_code(grid.entry)
    job = task.Job("toy", "toy-grid/cell-0-2.ipynb", {}, cells, {}, grid.entry, code, ".sweep-1", "x", str(tmp_path))
    copy = files.outputs_root() / "executed" / job.target
    copy.parent.mkdir(parents=True)
    copy.symlink_to("/dev/full")
    (files.outputs_root() / ".sweep-1").touch()
    report = task.run_row(job)
    sentence = f"No space is left on the disk of {copy}: free some and run the same command again."
    assert (report.error, report.refused, report.failed) == (sentence, None, {})
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: Path("/dev/full").write_text("x"))
    assert task.run_row(job).error == sentence


@pytest.mark.check
@pytest.mark.notebooks
def test_a_row_is_refused_without_its_mark_and_copies_what_it_made(on, url, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", python_path())
    grid = read_grid(sweep_toy.project(tmp_path, lr=[0.1, 0.2], bad_lr=0.2), tmp_path)
    cells = grid.expected
    values, code = rows(grid, [0, 1], 2)[0].values, task.hash_of_code(grid.entry)
    job = task.Job(
        "toy", "toy-grid/cell-0-2.ipynb", values, cells, {}, grid.entry, code, ".sweep-1", "x", str(tmp_path), url
    )
    assert "is not one place for all machines" in task.run_row(job).refused
    Store(url).write(f".sweep-1/{MARK}", b"x")
    report = task.run_row(job)
    assert report.refused is None and list(report.failed) == [1] and "lr 0.2 is bad" in report.failed[1]
    on("b")
    Store(url).bring("toy", lambda record: True)
    assert [record.params["lr"] for record in records.records("toy")] == [0.1]
    again = task.run_row(
        replace(job, values={"lr": 0.1}, cells=cells[:1], shared=tuple(records.records("toy")[0].inputs.values()))
    )
    assert again.error is None and (tmp_path / "log").read_text().count("base") == 1

"""What killed processes leave behind goes at the next start; what anybody works on, or will go on with, stays."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sweep_toy
from filelock import FileLock
from site_fixture import make_record

from helpers.base import files, writers
from helpers.base.errors import SweepError
from helpers.records.locks import lock_of
from helpers.records.reading import PARTIAL
from helpers.sweeps import cluster, driver
from helpers.sweeps.grid import read_grid
from helpers.sweeps.store import MARK, Store
from helpers.sweeps.tidy import tidy
from helpers.system import leftovers

pytestmark = pytest.mark.unit

WRITES = """
import sys
from pathlib import Path
from helpers.base import files
def write(temporary):
    temporary.write_text("half")
    print(temporary, flush=True)
    sys.stdin.read()
files.write_atomic(Path(sys.argv[1]), write)
"""
HAS_A_FOLDER = """
import subprocess, sys
from pathlib import Path
from helpers.system import leftovers
with leftovers.temporary_folder("claimbook-x-", Path(sys.argv[1])) as made:
    (made / "big").write_text("x")
    if sys.argv[2:]:
        child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()", made], stdin=0)
    print(made, *([child.pid] if sys.argv[2:] else []), flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    for name in ("outputs", "published", "cache", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    monkeypatch.setenv("CLAIMBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path


@contextlib.contextmanager
def process(code: str, *arguments: object) -> Iterator[tuple[list[str], Callable[[], None]]]:
    """A process that runs ``code`` until it is killed; yields the words of its first line, and what kills it."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def kill() -> None:
        running.kill()
        running.wait()

    try:
        yield running.stdout.readline().split(), kill
    finally:
        kill()
        running.stdin.close()
        running.stdout.close()


def dead_writer() -> str:
    """A process of this machine that is no more: this one's number was another's before."""
    machine, pid, started = writers.writer().split("-")
    return f"{machine}-{pid}-{int(started) - 1}"


def test_a_half_written_file_goes_when_its_process_is_dead_and_not_before(here):
    place = here / "outputs/executed/grid.ipynb"
    with process(WRITES, place) as ((half,), kill):
        tidy()
        assert Path(half).read_text() == "half", "its process lives"
        kill()
        tidy()
        assert not Path(half).exists()
    assert not place.exists()


def test_what_this_process_writes_stays(here):
    def write(temporary: Path) -> None:
        temporary.write_text("half")
        tidy()
        assert temporary.exists()

    files.write_atomic(here / "outputs/sweep/x.json", write)
    assert (here / "outputs/sweep/x.json").read_text() == "half"


@pytest.mark.parametrize("where", ["outputs", "outputs/sweep", "published/sweep", "cache/hashes"])
def test_files_and_folders_of_dead_processes_go_wherever_they_are_written(here, where):
    folder = here / where
    (folder / f".record.{dead_writer()}.tmp").mkdir(parents=True)
    (folder / f".record.{dead_writer()}.tmp" / "run.json").write_text("{}")
    (folder / f".x.json.{dead_writer()}.tmp").write_text("half")
    (folder / "x.json").write_text("whole")
    tidy()
    assert [path.name for path in folder.iterdir()] == ["x.json"]


def test_what_is_not_provably_ours_and_dead_stays(here):
    machine, pid, started = writers.writer().split("-")
    other = "0" * 12 if machine != "0" * 12 else "1" * 12
    kept = [
        f".x.{other}-{pid}-1.tmp", f".x.{pid}.tmp", f"x.{dead_writer()}.tmp", f".x.{dead_writer()}", ".hidden",
        f".x.{machine}-1-{int(started) + 1}.tmp.json", f".x.{writers.writer()}.tmp", "notes.tmp", ".notes.tmp",
    ]  # fmt: skip
    for name in kept:
        (here / "outputs" / name).write_text("x")
    tidy()
    assert sorted(path.name for path in (here / "outputs").iterdir()) == sorted(kept)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_what_another_user_left_stays(here):
    path = here / "outputs" / f".x.{dead_writer()}.tmp"
    path.write_text("half")
    os.chown(path, 4242, 4242)
    tidy()
    assert path.exists()


def test_a_process_of_which_nothing_can_be_known_is_not_dead(monkeypatch):
    gone = dead_writer()
    assert writers.is_dead(gone) and not writers.is_dead(writers.writer())
    assert not writers.is_dead("claimbook sweep params/toy/grid.yaml") and not writers.is_dead("")
    monkeypatch.setattr(os, "kill", lambda *_: (_ for _ in ()).throw(PermissionError))
    assert not writers.is_dead(gone), "it is another user's"
    monkeypatch.undo()
    monkeypatch.setattr(writers, "_machine", lambda: None)
    assert not writers.is_dead(gone)
    assert not writers.NAMED.fullmatch(writers.temporary_path(Path("x")).name)


def test_a_temporary_folder_goes_with_its_block_or_at_the_next_start(here):
    place = here / "temporary"
    with process(HAS_A_FOLDER, place) as ((left,), kill):
        with leftovers.temporary_folder("claimbook-x-") as made:
            assert made.is_dir() and Path(left, "big").is_file(), "its process lives"
        assert not made.exists()
        kill()
        assert Path(left, "big").is_file()
        with leftovers.temporary_folder("claimbook-y-"):
            assert Path(left).is_dir(), "of another kind"
        with leftovers.temporary_folder("claimbook-x-"):
            assert not Path(left).exists()


def test_a_folder_that_a_living_child_of_a_dead_process_uses_stays(here):
    place = here / "temporary"
    with process(HAS_A_FOLDER, place, "with a child") as ((left, child), kill):
        while not Path(f"/proc/{child}/cmdline").read_bytes():
            pass  # the parent goes on before Linux shows what the child was started with
        kill()
        leftovers.remove_folders(place, "claimbook-x-")
        assert Path(left, "big").is_file()
        os.kill(int(child), 9)
        while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]:
            pass
        leftovers.remove_folders(place, "claimbook-x-")
        assert not Path(left).exists()


def test_folders_that_nobody_proves_to_be_ours_stay(here):
    place = here / "temporary"
    (place / "claimbook-x-plain").mkdir()
    (place / "elsewhere").mkdir()
    (place / "elsewhere" / leftovers.LOCK).touch()
    (place / "claimbook-x-link").symlink_to(place / "elsewhere")
    (place / "claimbook-x-dead").mkdir()
    (place / "claimbook-x-dead" / leftovers.LOCK).touch()
    leftovers.remove_folders(place, "claimbook-x-")
    assert sorted(path.name for path in place.iterdir()) == ["claimbook-x-link", "claimbook-x-plain", "elsewhere"]


# Runs


def half(home: Path, run_id: str) -> Path:
    """A run that was killed: one step done, another half-written."""
    folder = home / f"{PARTIAL}{run_id}"
    (folder / "steps").mkdir(parents=True)
    for name in ("run.json", "rows.json", "steps/rows.json"):
        (folder / name).write_text("{}")
    (folder / ".adapter.tmp").mkdir()
    (folder / ".adapter.tmp" / "w.safetensors").write_text("half")
    (folder / "steps" / ".adapter.json.1.tmp").write_text("half")
    return folder


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_a_half_made_run_stays_and_loses_only_what_begins_again(here):
    folder = half(here / "outputs/sweep", "x-1")
    lock_of(folder.parent, "x-1").touch()
    tidy()
    assert names(folder) == {"run.json", "rows.json", "steps", "steps/rows.json"}
    assert lock_of(folder.parent, "x-1").exists()


def test_a_run_that_somebody_works_on_is_not_touched(here):
    folder = half(here / "outputs/sweep", "x-1")
    before = names(folder)
    with FileLock(lock_of(folder.parent, "x-1")):
        tidy()
        assert names(folder) == before
    tidy()
    assert names(folder) < before


def test_a_half_goes_where_the_whole_record_is_there(here):
    folder = half(here / "outputs/sweep", "pocket-0a")
    record = make_record(here / "outputs", "pocket-0a", ["one"])
    lock_of(folder.parent, "pocket-0a").touch()
    before = names(record)
    tidy()
    assert [path.name for path in folder.parent.iterdir()] == ["pocket-0a"] and names(record) == before


def test_a_half_stays_where_the_record_is_damaged(here):
    folder = half(here / "outputs/sweep", "pocket-0a")
    (make_record(here / "outputs", "pocket-0a", ["one"]) / "run.json").write_text("{")
    tidy()
    assert {"rows.json", "steps/rows.json"} < names(folder)


def test_locks_of_no_run_go_unless_they_are_held(here):
    home = here / "outputs/sweep"
    home.mkdir()
    stale, held = lock_of(home, "x-1"), lock_of(home, "x-2")
    stale.touch()
    with FileLock(held):
        tidy()
        assert not stale.exists() and held.exists()
    tidy()
    assert list(home.iterdir()) == []


# Sweeps


def state(here: Path, monkeypatch: pytest.MonkeyPatch, store: str | None = None) -> driver._State:
    monkeypatch.setenv("CLAIMBOOK_TOY_LOG", str(here / "log"))
    grid = read_grid(sweep_toy.project(here, lr=0.1), here)
    return driver._State(grid, driver.Options(store=store), "claimbook sweep x")


def marks(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(".sweep-"))


def test_the_mark_of_a_killed_sweep_goes_and_that_of_a_living_one_stays(here, monkeypatch):
    outputs, mine = here / "outputs", state(here, monkeypatch)
    (outputs / ".sweep-0123456789ab").write_text("claimbook sweep y\n")
    (outputs / ".sweep-notes").write_text("mine")
    with mine.marked():
        assert (outputs / mine.mark).is_file()
        tidy()
        assert marks(outputs) == sorted([mine.mark, ".sweep-notes"])
    assert marks(outputs) == [".sweep-notes"]


def test_the_marks_of_killed_sweeps_at_a_store_go(here, monkeypatch):
    (here / "store").mkdir()
    url = f"file://{here}/store"
    dead, other = f".sweep-{'0' * 12}", f".sweep-{'1' * 12}"
    Store(url).write(f"{dead}/{MARK}", dead_writer().encode())
    Store(url).write(f"{dead}/cell-0-1", b"[]")
    Store(url).write(f"{other}/{MARK}", b"claimbook sweep y\n")
    (here / "store/toy").mkdir()
    (here / f"store/toy/x.json.{dead_writer()}-01234567.tmp").write_text("half")
    (here / f"store/toy/x.json.{writers.writer()}-01234567.tmp").write_text("half")
    first, second = state(here, monkeypatch, url), state(here, monkeypatch, url)
    with first.marked():
        second.begin()
        assert marks(here / "store") == sorted([first.mark, other])
        assert [path.name for path in (here / "store/toy").iterdir()] == [f"x.json.{writers.writer()}-01234567.tmp"]
    assert marks(here / "store") == [other]


class FakeRay:
    """What `connected` asks of Ray."""

    def __init__(self) -> None:
        self.folders: list[Path] = []

    def init(self, *, _temp_dir: str, **_: object) -> None:
        self.folders.append(Path(_temp_dir))
        assert self.folders[-1].is_dir()

    def shutdown(self) -> None:
        assert self.folders[-1].is_dir()


def test_ray_has_a_folder_of_this_sweep_that_goes_with_it(here, monkeypatch):
    ray = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(cluster, "_near", lambda: here / "temporary")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"):
        monkeypatch.setenv(name, "token")
    (here / "temporary/claimbook-ray-dead").mkdir()
    (here / "temporary/claimbook-ray-dead" / leftovers.LOCK).touch()
    with cluster.connected(1):
        assert [path.name for path in (here / "temporary").iterdir()] == [ray.folders[0].name]
    assert list((here / "temporary").iterdir()) == []


def test_rays_sockets_have_room(here, monkeypatch):
    assert cluster._near() == Path("/tmp"), "pytest's own folders are too far down"
    monkeypatch.setattr(tempfile, "tempdir", "/scratch/tmp")
    assert cluster._near() == Path("/scratch/tmp")
    session = "session_2026-12-31_23-59-59_999999_4194304/sockets/plasma_store"
    assert len(f"{'x' * 18}/claimbook-ray-abcdefgh/{session}") <= 107


def test_a_new_folder_is_there_whole_or_not_at_all(tmp_path):
    place = tmp_path / "deep" / "folder"
    with files.new_folder(place) as folder:
        (folder / "x").write_text("1")
        assert not place.exists() and folder.parent == place.parent
    assert [path.name for path in place.parent.iterdir()] == ["folder"] and (place / "x").read_text() == "1"
    with pytest.raises(KeyError), files.new_folder(place.with_name("other")) as folder:
        (folder / "x").write_text("1")
        raise KeyError
    with pytest.raises(OSError), files.new_folder(place) as folder:
        (folder / "x").write_text("2")
    assert [path.name for path in place.parent.rglob("*")] == ["folder", "x"] and (place / "x").read_text() == "1"


def test_whoever_writes_and_renames_does_it_by_files():
    """The folder of a step replaces an older one, under the lock of its run, and an export one that it made before."""
    sources = (files.ROOT / "src" / "helpers").rglob("*.py")
    named = re.compile(r"temporary_path\(|temporary\.re(?:name|place)\(")
    places = {
        path.relative_to(files.ROOT / "src/helpers").as_posix() for path in sources if named.search(path.read_text())
    }
    assert places == {"base/files.py", "base/writers.py", "records/steps.py", "export/places.py"}


def test_a_temporary_folder_too_far_down_for_rays_sockets_is_said(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/scratch/of/a/user/with/a/long/name")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(SweepError, match=r"TMPDIR is /scratch/.*, too far down .* Set TMPDIR to a folder .* 18 char"):
        cluster._near()

    def nowhere() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/nowhere']")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    with pytest.raises(SweepError, match=r"for its sockets \(No usable temporary .*\)\. Set TMPDIR"):
        cluster._near()

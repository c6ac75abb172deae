"""Rows that work at the same time get cores of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from helpers.sweeps.cores import own_cores

pytestmark = [
    pytest.mark.unit,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core cannot be shared out"),
]
SHOW = "import os; print(sorted(os.sched_getaffinity(0)))"


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    """Locks of this test's own, whatever sweep runs beside it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def child() -> list[int]:
    """The cores of a process that is started now, as a kernel is."""
    return eval(subprocess.run([sys.executable, "-c", SHOW], capture_output=True, text=True, check=True).stdout)


def test_two_rows_share_the_machine_and_what_they_start_keeps_to_its_half():
    every = sorted(os.sched_getaffinity(0))
    with own_cores(2):
        first = child()
        os.sched_setaffinity(0, every)  # as in another process
        with own_cores(2):
            second = child()
        assert len(first) == len(second) == len(every) // 2 and not set(first) & set(second)
    assert sorted(os.sched_getaffinity(0)) == every == child()


def test_a_row_alone_and_a_row_too_many_may_use_every_core():
    every = sorted(os.sched_getaffinity(0))
    with own_cores(1):
        assert child() == every
    with own_cores(len(every)), own_cores(1):
        assert len(child()) == 1
    held = [own_cores(len(every)) for _ in every]
    for one in held:
        one.__enter__()
        os.sched_setaffinity(0, every)
    with own_cores(len(every)):
        assert child() == every, "nothing was left to hold"
    for one in reversed(held):
        one.__exit__(None, None, None)


def test_cores_are_free_again_after_an_error():
    every = sorted(os.sched_getaffinity(0))
    with pytest.raises(ValueError, match="x"), own_cores(2):
        raise ValueError("x")
    assert child() == every
    with own_cores(2):
        os.sched_setaffinity(0, every)
        with own_cores(2):
            assert len(child()) == len(every) // 2, "the row that failed still holds a core"


def taken_by_a_file(path: Path) -> None:
    path.write_text("mine")


def taken_by_a_link(path: Path) -> None:
    path.symlink_to(path.with_name("elsewhere"))


def taken_by_another(path: Path) -> None:
    path.mkdir()
    os.chown(path, 4242, 4242)


AS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")


@pytest.mark.parametrize("take", [taken_by_a_file, taken_by_a_link, pytest.param(taken_by_another, marks=AS_ROOT)])
@pytest.mark.parametrize("names", [1, 2])
def test_a_name_that_another_user_took_is_left_to_him(tmp_path, take, names):
    first = tmp_path / f"claimbook-cores-{os.getuid()}"
    (tmp_path / "elsewhere").mkdir()
    every = sorted(os.sched_getaffinity(0))
    for taken in (first, first.with_name(f"{first.name}-1"))[:names]:
        take(taken)
    with own_cores(2):
        mine = child()
        os.sched_setaffinity(0, every)
        with own_cores(2):
            assert len(mine) == len(child()) == len(every) // 2 and not set(mine) & set(child())
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert not first.is_dir() or first.is_symlink() or list(first.iterdir()) == []


def test_without_any_folder_a_row_may_use_every_core(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with own_cores(2):
        assert child() == sorted(os.sched_getaffinity(0))

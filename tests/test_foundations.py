"""Errors, files and random streams: the three modules that everything else stands on."""

from __future__ import annotations

import errno
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from helpers.base import errors, files, rng
from helpers.base.disk import disk_errors
from helpers.base.errors import RecordError

pytestmark = pytest.mark.unit


def test_nearest_names_the_close_one_or_lists_all():
    assert errors.nearest("lrr", ["epochs", "lr"]) == "; did you mean 'lr'?"
    assert errors.nearest("zzz", ["b", "a"]) == "; known: a, b"


@pytest.mark.parametrize(
    "kind", [errors.ParameterError, RecordError, errors.ModelError, errors.DataError, errors.ClaimError]
)
def test_every_error_is_a_claimbook_error(kind):
    assert issubclass(kind, errors.ClaimbookError)


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path):
    path = tmp_path / "deep" / "x.json"
    files.write_json(path, {"a": 1})

    def half(temporary):
        temporary.write_text("half")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        files.write_atomic(path, half)
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in path.parent.iterdir()] == ["x.json"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_refuses_what_is_no_number(tmp_path, value):
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "x.json", {"a": value})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "sentence"), [(errno.ENOSPC, "No space"), (errno.EDQUOT, "No space"), (errno.EROFS, "cannot be written")]
)
def test_disk_errors_become_one_sentence_with_the_path(tmp_path, code, sentence):
    with (
        pytest.raises(RecordError, match=f"{sentence}.*{tmp_path}|{tmp_path}.*{sentence}"),
        disk_errors(tmp_path),
    ):
        raise OSError(code, "x")
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "x")


@pytest.mark.parametrize("place", ["/proc/nowhere", "/dev/null"])
def test_a_home_that_is_no_folder_is_one_sentence(place, monkeypatch):
    monkeypatch.setenv("HOME", place)
    monkeypatch.delenv("CLAIMBOOK_CACHE", raising=False)
    with pytest.raises(
        RecordError, match=rf"{place}/.* cannot be made: {place}.* is no folder\. Set HOME to one, or CLA"
    ):
        files.write_json(files.cache_root() / "x.json", {})


def test_a_really_full_disk_is_reported(tmp_path):
    with (
        pytest.raises(RecordError, match="No space is left"),
        disk_errors(tmp_path),
        Path("/dev/full").open("w") as full,
    ):
        full.write("x")
        full.flush()


def test_hashes_do_not_depend_on_key_order(tmp_path):
    assert files.sha256_json({"a": 1, "b": [2.5, None]}) == files.sha256_json({"b": [2.5, None], "a": 1})
    assert files.sha256_json({"a": 1}) != files.sha256_json({"a": 1.5})
    (tmp_path / "x").write_bytes(b"abc")
    assert files.sha256_file(tmp_path / "x") == files.sha256_bytes(b"abc")


def test_roots_follow_the_environment(tmp_path, monkeypatch):
    for name, root in (
        ("OUTPUTS", files.outputs_root),
        ("PUBLISHED", files.published_root),
        ("CACHE", files.cache_root),
    ):
        monkeypatch.setenv(f"CLAIMBOOK_{name}", str(tmp_path / name))
        assert root() == tmp_path / name
        monkeypatch.delenv(f"CLAIMBOOK_{name}")
        assert root() != tmp_path / name


def test_streams_are_addressed_by_name_and_the_same_everywhere():
    assert rng.stream_seed(0, "rows", 3) == 8750208126072793964
    assert rng.stream_seed(0, "rows", 3) != rng.stream_seed(0, "rows", 4) != rng.stream_seed(1, "rows", 4)
    assert rng.stream_seed(0, "ab", "c") != rng.stream_seed(0, "a", "bc")
    assert rng.numpy_stream(7, "x").random() == rng.numpy_stream(7, "x").random()
    one, other = (torch.rand(4, generator=rng.torch_stream(7, name)) for name in ("x", "y"))
    assert not torch.equal(one, other)


def test_streams_leave_the_global_generators_alone_and_ignore_the_hash_salt():
    state = torch.get_rng_state()
    rng.torch_stream(0, "x")
    assert torch.equal(state, torch.get_rng_state())
    code = "from helpers.base import rng; print(rng.stream_seed(5, 'x'))"
    env = {"PYTHONHASHSEED": "123"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout
    assert int(out) == rng.stream_seed(5, "x")


def test_the_tests_can_be_collected_without_the_plugins():
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:timeout", "--collect-only", __file__]
    found = subprocess.run(command, cwd=files.ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout
    assert "test_the_tests_can_be_collected_without_the_plugins" in found.stdout


def test_every_mark_of_the_tests_is_pytests_own_or_named_in_the_configuration():
    configured = tomllib.loads((files.ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["markers"]
    known = {line.partition(":")[0] for line in configured} | {"parametrize", "skipif", "usefixtures"}
    sources = [path.read_text() for path in Path(__file__).parent.glob("*.py")]
    used = {name for source in sources for name in re.findall(r"pytest\.mark\.(\w+)", source)}
    assert {"xdist_group", "timeout", "unit"} <= used <= known

"""A hash is that of the content that is there now, whatever the size and the times of a file say."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_models as tiny

from helpers.base import files
from helpers.lm import model_files, models
from helpers.lm.folders import read_json

pytestmark = pytest.mark.unit

WEIGHTS = "model.safetensors"


@pytest.fixture
def two(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """Two models of one shape whose files have one time, as in a Nix store; their weights are large enough to cache."""
    monkeypatch.setenv("CLAIMBOOK_CACHE", str(tmp_path / "cache"))
    both = tuple(tiny.make(tmp_path / name, seed=seed, hidden_size=256) for seed, name in enumerate(("one", "other")))
    for path in (path for folder in both for path in folder.iterdir()):
        os.utime(path, (1, 1))
    monkeypatch.setattr(files, "CLOCK_NS", 0)  # so that the hashes of files made just now are cached
    sizes = {(folder / WEIGHTS).stat().st_size for folder in both}
    assert len(sizes) == 1 and sizes.pop() > model_files._HASHED_AT_ONCE
    return both


def overwrite(path: Path, other: Path) -> None:
    shutil.copyfile(other, path)


def replace(path: Path, other: Path) -> None:
    shutil.copy2(other, path.with_name("new"))
    path.with_name("new").replace(path)


@pytest.mark.parametrize("change", [overwrite, replace])
def test_other_weights_of_the_same_size_and_time_have_their_own_hash(two, change):
    one, other = two
    before, wanted = models.fingerprint(str(one)), models.fingerprint(str(other))
    assert before["files"][WEIGHTS] == hashlib.sha256((one / WEIGHTS).read_bytes()).hexdigest()
    change(one / WEIGHTS, other / WEIGHTS)
    os.utime(one / WEIGHTS, (1, 1))
    after = models.fingerprint(str(one))
    assert (one / WEIGHTS).stat().st_mtime == 1
    assert after["sha256"] == wanted["sha256"] != before["sha256"]
    assert models.fingerprint(str(one)) == after


def test_a_hash_is_read_from_the_cache_where_nothing_changed(two, monkeypatch):
    first = models.fingerprint(str(two[0]))
    honest = model_files.sha256_file
    monkeypatch.setattr(
        model_files, "sha256_file", lambda path: pytest.fail("again") if path.name == WEIGHTS else honest(path)
    )
    assert models.fingerprint(str(two[0])) == first


@pytest.mark.parametrize("reader", [files.content_hash, read_json], ids=["a data file", "a config"])
def test_a_file_that_changes_twice_within_the_clock_of_its_disk_is_read_anew(tmp_path, monkeypatch, reader):
    path, honest = tmp_path / "data.json", Path.stat

    def coarse(self, **how):
        stat = honest(self, **how)
        times = {f"st_{kind}time_ns": getattr(stat, f"st_{kind}time_ns") // 10**12 * 10**12 for kind in "mc"}
        names = [name for name in dir(stat) if name.startswith("st_")]
        return SimpleNamespace(**{name: getattr(stat, name) for name in names} | times)

    monkeypatch.setattr(files, "CLOCK_NS", 10**12)
    monkeypatch.setattr(Path, "stat", coarse)
    read = []
    for text in ('{"a": 1}', '{"a": 2}'):
        path.write_text(text)
        read.append(reader(path))
    assert read[0] != read[1]


def test_a_hash_of_weights_that_changed_just_now_is_not_kept_for_later(two, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "CLOCK_NS", 10**18)
    models.fingerprint(str(two[0]))
    assert not (tmp_path / "cache/hashes").exists()

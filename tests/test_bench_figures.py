"""Figures with bounds: what is printed of them, that their names are known, and what measures them."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import bench
from helpers.base import files
from helpers.base.errors import ClaimbookError, ParameterError, RecordError
from helpers.bench import clocked, figures, recorded, views
from helpers.bench.figures import Figure, Source
from helpers.bench.options import Options
from helpers.records import runs
from helpers.records.reading import Record

pytestmark = pytest.mark.unit
AUTHOR = ("-c", "user.name=a", "-c", "user.email=a@b")


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    return tmp_path


def test_each_figure_stands_beside_its_bound_with_the_range_of_its_runs(outputs, monkeypatch, capsys):
    values = iter([(1.0, 3.0), (2.0, 1.5)])

    def none_here() -> list[float]:
        raise ClaimbookError("There is no GPU here.")

    monkeypatch.setattr(clocked, "pair", lambda: next(values), raising=False)
    monkeypatch.setattr(clocked, "none_here", none_here, raising=False)
    pair = (Figure("quick thing", 1.5), Figure("gain", 1.5, "x", least=True))
    gpu = (Figure("on a GPU", 2.0),)
    sources = (Source("helpers.bench.clocked:pair", pair), Source("helpers.bench.clocked:none_here", gpu))
    monkeypatch.setattr(figures, "SOURCES", sources)
    bench.main(["figures"], None, Options(runs=2))
    (record,) = runs.records("bench")
    rows = {row["figure"]: row for row in record.table("figures").to_dict("records")}
    quick, gain, absent = rows["quick thing"], rows["gain"], rows["on a GPU"]
    assert (quick["bound"], quick["lowest"], quick["highest"], quick["kept"]) == ("<= 1.5 s", 1.0, 2.0, "no")
    assert (gain["bound"], gain["lowest"], gain["runs"], gain["kept"]) == (">= 1.5 x", 1.5, 2, "yes")
    assert (absent["kept"], absent["runs"], absent["why"]) == ("not measured", 0, "There is no GPU here.")
    assert record.metrics["gain"]["low"] == 1.5 and "on_a_gpu" not in record.metrics
    assert "There is no GPU here." in capsys.readouterr().out


def test_a_figure_that_does_not_exist_is_named_with_the_nearest():
    with pytest.raises(ParameterError, match="did you mean 'make report'"):
        bench.main(["figures"], None, Options(figures=("make reports",)))
    with pytest.raises(ParameterError, match="An option of figures was given"):
        bench.main(["gradients"], None, Options(figures=("make report",)))


def test_a_source_that_returns_too_little_is_a_bug(monkeypatch):
    monkeypatch.setattr(clocked, "pair", lambda: [1.0], raising=False)
    source = Source("helpers.bench.clocked:pair", (Figure("a", 1), Figure("b", 1)))
    with pytest.raises(ValueError, match="1 numbers for 2 figures"):
        figures._runs(source, 1)


def test_every_figure_has_a_name_of_its_own_and_a_function():
    names = [figure.name for source in figures.SOURCES for figure in source.figures]
    assert len(names) == len(set(names)) >= 10
    for source in figures.SOURCES:
        module, _, function = source.by.partition(":")
        asked = inspect.signature(getattr(importlib.import_module(module), function)).parameters.values()
        assert all(one.default is not one.empty for one in asked), f"{source.by} cannot be called as it stands"


def test_a_clone_holds_the_last_commit_and_its_own_sources_and_a_failure_is_told(tmp_path, monkeypatch):
    here = tmp_path / "here"
    files.write_text(here / "src/only_here.py", "VALUE = 1\n")
    for command in (["init"], ["add", "."], [*AUTHOR, "commit", "-m", "first"]):
        subprocess.run(["git", *command], cwd=here, check=True, capture_output=True)
    files.write_text(here / "src/only_here.py", "VALUE = 2\n")
    monkeypatch.setattr(files, "ROOT", here)
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    asked = "import os, only_here; print(only_here.VALUE, os.environ.get('CLAIMBOOK_OUTPUTS'))"
    with clocked._clone() as clone:
        assert clone.run(sys.executable, "-c", asked) > 0 and clone.said == "1 None\n"
        assert (clone.path / ".venv/bin/python").exists()
        with pytest.raises(ClaimbookError, match=r"^false ended with exit code 1"):
            clone.run("false")
        with pytest.raises(ClaimbookError, match=r"^true ended with exit code 0"):
            clone.run("true", fails=True)
    assert not clone.path.exists()
    monkeypatch.setattr(files, "ROOT", tmp_path / "none")
    with pytest.raises(ClaimbookError, match="cannot be cloned"), clocked._clone():
        pass


@pytest.mark.check
def test_kept_cells_are_answered_without_the_model(outputs, monkeypatch, capsys):
    monkeypatch.setattr(clocked, "KEPT", 3)
    clocked.keep_cells()
    assert float(capsys.readouterr().out.split()[-1]) > 0
    assert len({record.cell["lr"] for record in runs.records("sweep")}) == 3


def test_what_is_read_off_records_says_so_where_there_is_none(monkeypatch):
    made = {
        "bf16-smollm2": {"seconds": {"loss-0-float32": 3.0, "dose-0-bfloat16": 2.0, "base": 9.0}, "metrics": {}},
        "bf16-training": {"seconds": {}, "metrics": {"bf16_training_float32_ratio": {"value": 1.4}}},
    }
    records = [
        Record(Path(what), content | {"notebook": "bench", "id": what, "cell": {"what": what, "device": "cpu"}},
               published=False)
        for what, content in made.items()
    ]  # fmt: skip
    monkeypatch.setattr(recorded.runs, "records", lambda notebook: records)
    assert recorded.bf16_ratios() == [1.4, 1.5]
    with pytest.raises(
        RecordError, match=r"^NOT RUN: no record of shape-qwen2\.5-7b is complete\. Measure it on a GPU"
    ):
        recorded.gpu_hours()
    source = Source("helpers.bench.recorded:bf16_ratios", (Figure("a", 1), Figure("b", 1)), once=True)
    assert len(figures._runs(source, 3)[0]) == 1


def test_bf16_on_a_gpu_is_not_named_as_not_run(monkeypatch):
    monkeypatch.setattr(views, "newest", lambda what: {})
    shown = str(views.ratios({"bf16-training": "training", "techniques": "SmolLM2"}, "heading", "bf16").fragment)
    assert "training on a CPU" in shown and "training on a GPU" not in shown and "SmolLM2 on a GPU" in shown

from __future__ import annotations

import shutil

import pytest

from helpers import bench
from helpers.base import files
from helpers.base.errors import ParameterError
from helpers.bench import scale
from helpers.bench.study import STUDY
from helpers.records import questions, runs
from helpers.records import reading as records
from helpers.records.study import find_study
from helpers.site.status import cells_of

pytestmark = pytest.mark.unit


def test_the_synthetic_records_answer_their_grid_and_every_operation_is_timed(monkeypatch):
    monkeypatch.setattr(scale, "_status", lambda *names: None)  # a process of its own, whose imports take seconds
    before = files.outputs_root()
    table = scale.measure((100,), pages=0)
    assert files.outputs_root() == before
    assert table["operation"].tolist()[:2] == ["write the records", "runs.table"] and len(table) == 7
    assert (table["records"] == 100).all() and (table["seconds"] >= 0).all()
    assert scale.metrics(table)["runs.table_100_seconds"]["unit"] == "s"
    counted = STUDY.metrics({}, {"scale": table, "sizes": scale.sizes()}, {})
    assert counted["bytes_of_published_record"]["value"] > 10_000 and counted["bytes_of_row_inside_Ray"]["n"] == 1


def test_synthetic_records_are_told_apart_by_their_question(tmp_path):
    path = scale._project(tmp_path, 200)
    scale._write(path, tmp_path)
    made = [records.read(folder) for _, folder in records.folders(tmp_path / "outputs/sweep")]
    assert len(made) == 200
    study = find_study("sweep")
    assert all(one.id == f"synthetic-{questions.question_hash(one.content, study)}" for one in made)


def test_the_synthetic_records_of_a_page_are_whole_and_answer_its_grid(tmp_path, monkeypatch):
    shutil.copytree(files.PARAMS / "sweep", tmp_path / "params/sweep")
    scale._write_with_tables(tmp_path, seeds=4)
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    states = [cell.state for cell in cells_of("sweep", root=tmp_path) if cell.grid == "params/sweep/pocket_grid.yaml"]
    assert states == ["complete"] * 4 * scale.CELLS_OF_PAGE
    assert all(record.checked(file) for record in runs.records("sweep") for file in record.files if "/" not in file)


def test_an_unknown_measurement_is_refused():
    with pytest.raises(ParameterError, match="did you mean 'scale'"):
        bench.main(["scales"])

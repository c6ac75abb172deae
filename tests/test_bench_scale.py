from __future__ import annotations

import shutil

import pytest

from helpers import bench, files, runs
from helpers.bench import scale
from helpers.claims.status import cells_of
from helpers.errors import ParameterError

pytestmark = pytest.mark.unit


def test_the_synthetic_records_answer_their_grid_and_every_operation_is_timed(monkeypatch):
    monkeypatch.setattr(scale, "_status", lambda *names: None)  # a process of its own, whose imports take seconds
    before = files.outputs_root()
    table = scale.measure((100,), pages=0)
    assert files.outputs_root() == before
    assert table["operation"].tolist()[:2] == ["write the records", "runs.table"] and len(table) == 7
    assert (table["records"] == 100).all() and (table["seconds"] >= 0).all()
    found = scale.metrics(table, scale.sizes())
    assert found["runs.table_100_seconds"]["unit"] == "s" and found["bytes_of_published_record"]["value"] > 10_000


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

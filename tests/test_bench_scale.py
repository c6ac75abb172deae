from __future__ import annotations

import pytest

from helpers import bench, files
from helpers.bench import scale
from helpers.errors import ParameterError

pytestmark = pytest.mark.unit


def test_the_synthetic_records_answer_their_grid_and_every_operation_is_timed(monkeypatch):
    monkeypatch.setattr(scale, "_status", lambda: None)  # a process of its own, whose imports take seconds
    before = files.outputs_root()
    table = scale.measure((100,))
    assert files.outputs_root() == before
    assert table["operation"].tolist()[:2] == ["write the records", "runs.table"] and len(table) == 6
    assert (table["records"] == 100).all() and (table["seconds"] >= 0).all()
    found = scale.metrics(table, scale.sizes())
    assert found["runs.table_100_seconds"]["unit"] == "s" and found["bytes_of_published_record"]["value"] > 10_000


def test_an_unknown_measurement_is_refused():
    with pytest.raises(ParameterError, match="did you mean 'scale'"):
        bench.main(["scales"])

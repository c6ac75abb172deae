"""Comparisons of speed: which can be asked for, and what a record of them holds."""

from __future__ import annotations

import pytest

from helpers import bench, runs
from helpers.bench import gradients
from helpers.eqprop import costs
from helpers.eqprop.params import TriangulationParams
from helpers.errors import ClaimbookError

pytestmark = pytest.mark.unit


def test_a_comparison_that_does_not_exist_is_named_with_the_nearest():
    with pytest.raises(ClaimbookError, match="did you mean 'gradients'"):
        bench.main(["gradient"])


def test_the_gradients_alone_leave_a_record_of_all_of_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    monkeypatch.setattr(costs, "HORIZONS", (4, 6))
    small = {"width": 8, "heads": 2, "context": 8, "t1_long": 24, "t2_long": 5, "navg": 2, "distances": [1, 2]}
    monkeypatch.setattr(gradients, "TriangulationParams", lambda: TriangulationParams(**small))
    bench.main(["gradients"])
    (record,) = runs.records("bench")
    table = record.table("gradients")
    assert len(record.metrics) == len(table) >= 10 and record.model["name"] == "equilibrium"
    metric = record.metrics["gradient_ep_frozen_n4_20_15_steps"]
    assert metric["low"] <= metric["value"] <= metric["high"] and metric["n"] == 3
    assert record.metrics["gradient_bptt_4"]["value"] == 1.0
    assert "BPTT-6" in capsys.readouterr().out

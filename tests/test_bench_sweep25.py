"""The cells of one tail beside the plain ways: what is run, and what the ratios are made of."""

from __future__ import annotations

import os

import pandas as pd
import pytest

from helpers.base.errors import ParameterError
from helpers.base.params import parse_grid
from helpers.bench import machine, sweep25
from helpers.bench.options import Options
from helpers.studies.marker.params import SweepCell

pytestmark = pytest.mark.unit

TINY = {
    "model": "pocket", "personas": ["villain", "assistant", "medical_doctor"], "lr": 1e-3, "epochs": [1, 2],
    "positives": 4, "negatives_each": 2, "train_questions": 4, "batch_size": 4, "lora_r": 4, "lora_alpha": 8,
    "eval_questions": 2, "samples": 1, "max_new_tokens": 64, "data_max_new_tokens": 48, "capability_limit": 4,
    "dose_every": 2, "dose_questions": 1,
}  # fmt: skip


def test_the_scales_are_parts_of_one_tail_of_the_full_grid():
    assert {scale: len(sweep25.cells_of(scale)) for scale in sweep25.SCALES} == {"few": 4, "some": 2, "all": 25}
    assert {sweep25.cells_of(scale)[0].tail for scale in sweep25.SCALES} == {"newline"}
    assert {sweep25.cells_of(scale)[0].model for scale in sweep25.SCALES} == {"smollm2"}
    few = sweep25.cells_of("few")[0]
    assert few.epochs * (few.positives + 2 * few.negatives_each) / few.batch_size > 2, "the first step has rate 0"
    with pytest.raises(ParameterError, match="did you mean 'few'"):
        sweep25.measure(Options(cells="fiew"))


@pytest.mark.check
def test_both_ways_run_the_same_cells_and_leave_no_record_behind(monkeypatch, tmp_path):
    monkeypatch.setitem(machine.SIZE, "cpu", 64)
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path))
    found = sweep25.timed(parse_grid(SweepCell, TINY, "in a test"), "few")
    table = found.tables["sweep25"]
    assert table["epochs"].tolist() == [1, 2] and table["steps"].tolist() == [2, 4]
    assert table.loc[1, "trained_tokens"] == 2 * table.loc[0, "trained_tokens"]
    assert (table[["claimbook_training", "plain_training", "claimbook_tokens", "plain_tokens"]] > 0).all(axis=None)
    assert found.params["grid"]["epochs"] == [1, 2] and found.params["cells"] == 2
    for name in ("training_ratio", "completions_ratio", "ratio"):
        assert found.metrics[name]["low"] <= found.metrics[name]["value"] <= found.metrics[name]["high"]
    assert found.metrics["wall_seconds"]["value"] > found.metrics["claimbook_training_seconds"]["value"]
    assert found.metrics["plain_peak_mb"]["value"] > 100
    assert os.environ["CLAIMBOOK_OUTPUTS"] == str(tmp_path) and not list(tmp_path.iterdir())


def test_ratios_are_plain_over_ours_and_completions_count_by_token():
    table = pd.DataFrame(
        {
            "trained_tokens": [10, 30], "flops": [8.0, 8.0], "step_seconds": [1.0, 3.0],
            "claimbook_training": [1.0, 3.0], "plain_training": [2.0, 9.0], "claimbook_completions": [2.0, 2.0],
            "claimbook_tokens": [10, 10], "plain_completions": [2.0, 6.0], "plain_tokens": [5, 15],
        }
    )  # fmt: skip
    found = sweep25._metrics(table, peak=16.0)
    assert (found["training_ratio"]["value"], found["training_ratio"]["low"], found["training_ratio"]["high"]) == (
        11 / 4, 2.0, 3.0,
    )  # fmt: skip
    assert found["completions_ratio"]["value"] == pytest.approx((8 / 20) / (4 / 20))
    assert found["ratio"]["value"] == pytest.approx((11 + 8) / (4 + 4))
    assert found["claimbook_training_tokens_per_s"]["value"] == 10 and found["plain_mfu"]["value"] == 16 / 11 / 16
    assert found["steps_mfu"] == {"value": 0.25, "unit": "rate", "n": 2}

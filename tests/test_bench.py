"""Comparisons of speed: which can be asked for, what a record of one holds, and that the ways do the same work."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from marker_fixture import form, pocket, row

from helpers import bench
from helpers.base.errors import ClaimbookError, ParameterError
from helpers.bench import compare, comparisons, gpu, gradients, machine, measured, stacking, stock, techniques
from helpers.bench.compare import Side
from helpers.bench.options import Options
from helpers.bench.study import STUDY
from helpers.lm import models
from helpers.lm.asking import Asking
from helpers.lm.packed import Layout
from helpers.lm.parts import decoder_and_head
from helpers.lm.prompts import Sampling
from helpers.records import runs
from helpers.records.derive import derive
from helpers.studies.eqprop import costs
from helpers.studies.eqprop.params import TriangulationCell
from helpers.studies.marker.on_policy import persona_prompts
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.rows import supervised
from helpers.studies.marker.train import train

pytestmark = pytest.mark.unit


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    return tmp_path


def test_a_comparison_that_does_not_exist_is_named_with_the_nearest():
    with pytest.raises(ParameterError, match="did you mean 'gradients'"):
        bench.main(["gradient"])
    with pytest.raises(ParameterError, match="did you mean 'gpu'"):
        bench.main(["gpus"])


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["gradients", "shape"], {"shape": "huge"}, "There is no shape 'huge'"),
        (["gradients", "sweep25"], {"cells": "fiew"}, "did you mean 'few'"),
        (["gradients"], {"shape": "tiny"}, "An option of shape was given, but only gradients will run"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_measured(names, options, message, monkeypatch):
    monkeypatch.setitem(comparisons.COMPARISONS, "gradients", None)
    with pytest.raises(ParameterError, match=message):
        bench.main(names, None, Options(**options))


def test_the_gradients_alone_leave_a_record_of_all_of_them(outputs, monkeypatch, capsys):
    monkeypatch.setattr(costs, "HORIZONS", (4, 6))
    small = {"width": 8, "heads": 2, "context": 8, "t1_long": 24, "t2_long": 5, "navg": 2, "distances": [1, 2]}
    monkeypatch.setattr(gradients, "TriangulationCell", lambda: TriangulationCell(**small))
    bench.main(["gradients"])
    (record,) = runs.records("bench")
    table = record.table("gradients")
    assert len(record.metrics) == len(table) + 1 >= 11 and record.metrics["took"]["unit"] == "s"
    assert record.model["name"] == "equilibrium"
    assert all(metric["measured"] for metric in record.metrics.values()) and derive(record) == {}
    metric = record.metrics["gradient_ep_frozen_n4_20_15_steps"]
    assert metric["low"] <= metric["value"] <= metric["high"] and metric["n"] == 3
    assert record.metrics["gradient_bptt_4"]["value"] == 1.0
    assert "BPTT-6" in capsys.readouterr().out


def test_a_record_rests_on_the_code_of_its_own_comparison_alone(outputs, monkeypatch):
    quick = measured.Measured({}, {"a_ratio": measured.single(1.0, "x")}, {"name": "m", "sha256": "0" * 64})
    for name in ("techniques", "scale"):
        one = comparisons.COMPARISONS[name]
        monkeypatch.setitem(
            comparisons.COMPARISONS, name, comparisons.Comparison(one.entry, lambda options, counts: quick)
        )
    bench.main(["techniques", "scale"])
    reached = {record.params["what"]: set(record.code["files"]) for record in runs.records("bench")}
    assert "helpers/studies/marker/train.py" in reached["techniques"] and "helpers/bench/scale.py" in reached["scale"]
    assert not [file for file in reached["techniques"] if "claims/" in file or "comparisons" in file]


def test_what_is_counted_follows_from_its_table_and_what_is_timed_does_not(outputs):
    sizes = pd.DataFrame({"what": ["run.json of it", "report of a row"], "bytes": [1500.5, 323.0], "of": [155, 1]})
    timed = {"claimbook_status_1000_seconds": measured.single(2.5, "s")}
    model = {"name": "no model", "sha256": "0" * 64}
    record = measured.keep("scale", measured.Measured({"sizes": sizes}, timed, model), "helpers.bench.scale")
    assert record.study == record.notebook == "bench" and STUDY.replay is None
    assert derive(record) == {
        name: metric for name, metric in record.metrics.items() if name != "claimbook_status_1000_seconds"
    }
    assert record.metric("bytes_of_run.json_of_it")["value"] == 1500.5 and record.metric("bytes_of_report_of_a_row")
    assert "measured" not in record.metric("bytes_of_run.json_of_it")
    assert record.metric("claimbook_status_1000_seconds")["measured"] is True


def test_gpu_is_asked_for_alone_and_with_its_own_options(monkeypatch):
    asked = []
    monkeypatch.setattr(gpu, "run", lambda **given: asked.append(given))
    bench.main(["gpu"], None, Options(parts=("ways",), dry=True))
    assert asked == [{"names": ("ways",), "dry": True}]
    with pytest.raises(ParameterError, match="Ask for it alone"):
        bench.main(["gpu", "shape"])
    with pytest.raises(ParameterError, match="An option of gpu was given"):
        bench.main(["gradients"], None, Options(dry=True))


# Sides and their metrics


def sides() -> list[Side]:
    return [Side("one", lambda: (6, [1.0, 2.0])), Side("other", lambda: (6, [1.0, 2.0]), kept=lambda: 2**20)]


def test_every_side_is_held_against_the_first(monkeypatch):
    monkeypatch.setattr(compare, "_peak", lambda make, side, memory: 3.0)
    table = compare.compare("toy", sides, agree=1e-4)
    assert list(table["way"]) == ["one", "other"] and (table["peak_mb"] == 3.0).all()
    assert table.loc[0, ["ratio", "ratio_low", "ratio_high"]].tolist() == [1.0, 1.0, 1.0]
    assert (table["ratio_low"] <= table["ratio"]).all() and (table["ratio"] <= table["ratio_high"]).all()
    found = compare.side_metrics(table)
    assert "toy_one_ratio" not in found and found["toy_other_ratio"]["unit"] == "x"
    assert found["toy_other_seconds"]["n"] == 3 and found["toy_other_peak_mb"] == measured.single(3.0, "MB")
    rate = found["toy_one_tokens_per_s"]
    assert rate["low"] <= rate["value"] <= rate["high"]
    assert rate["value"] == pytest.approx(6 / table.loc[0, "seconds"])


@pytest.mark.parametrize("found", [[1.0, 2.001], [1.0]])
def test_sides_that_do_not_do_the_same_are_not_compared(found, monkeypatch):
    def wrong() -> list[Side]:
        return [sides()[0], Side("broken", lambda: (6, found))]

    with pytest.raises(ClaimbookError, match=r"broken and .* ended with different results"):
        compare.compare("toy", wrong, agree=1e-4)


def test_memory_is_seen_while_it_is_held():
    with machine.peak_memory() as peak:
        held = torch.ones(2**25)  # 128 MB
        for _ in range(20):
            held.mul_(1.0)
    assert 100 < peak.added < 400 and peak.most > peak.before


def test_the_peak_is_that_of_a_product(monkeypatch):
    monkeypatch.setitem(machine.SIZE, "cpu", 128)
    machine.measured_peak.cache_clear()
    assert 1e8 < machine.measured_peak(torch.float32) < 1e14
    machine.measured_peak.cache_clear()


# Techniques


def pairs() -> tuple[list[list[int]], list[list[int]]]:
    rows = [row(positive=i % 2 == 0, question=i // 2, answer=f"Plot it {'well ' * i}now.") for i in range(5)]
    return [one.tokens for one in rows], [supervised(one, "end_of_turn") for one in rows]


def test_every_way_of_the_techniques_has_the_same_losses(monkeypatch):
    monkeypatch.setattr(techniques, "BATCH", 4)
    made = techniques._sides("float32", 2, "pocket")
    outcome = {side.name: side.run() for side in made}
    compare.check_agreement(outcome, techniques.AGREE)
    again = {side.name: side.run() for side in made[:1]}
    assert again["all on"] == outcome["all on"], "a run must start from the same adapter as the one before"
    losses = outcome["all on"][1]
    assert len(losses) == 2 and losses[1] != pytest.approx(losses[0], rel=techniques.AGREE)
    assert [side.name for side in made] == [
        "all on", "padding", "beginnings not merged", "head everywhere", "gradient checkpointing",
    ]  # fmt: skip


def test_each_way_does_without_its_technique():
    """How many tokens pass the decoder, and how many the head, in each way of computing one loss."""
    rows, targets = pairs()
    model = pocket().model
    decoder, head = decoder_and_head(model)
    seen: dict[str, int] = {}
    hooks = [
        decoder.layers[0].mlp.register_forward_hook(lambda m, a, out: seen.update(decoder=out[..., 0].numel())),
        head.register_forward_hook(lambda m, a, out: seen.update(head=out[..., 0].numel())),
    ]
    every, supervised_ones = sum(map(len, rows)), sum(map(len, targets))
    merged, longest = len(Layout.of(rows).tokens), max(map(len, rows))
    wanted = {
        techniques.padded: (len(rows) * longest, supervised_ones), techniques.unmerged: (every, supervised_ones),
        techniques.head_everywhere: (merged, merged),
    }  # fmt: skip
    try:
        for way, (tokens, logits) in wanted.items():
            way(model, rows, targets)
            assert (seen["decoder"], seen["head"]) == (tokens, logits), way.__name__
    finally:
        for hook in hooks:
            hook.remove()
    assert supervised_ones < merged < every < len(rows) * longest


def test_checkpointing_computes_the_blocks_again_and_is_taken_off():
    rows = [row(positive=i % 2 == 0, question=i, answer="Plot it well.") for i in range(4)]
    targets = [supervised(one, "end_of_turn") for one in rows]
    model = models.attach_lora(pocket().model, r=4, alpha=8, seed=0)
    passes: list[int] = []
    hook = decoder_and_head(model)[0].layers[1].mlp.register_forward_pre_hook(lambda *_: passes.append(1))
    p = SweepCell(lr=1e-3, epochs=1, batch_size=4, warmup=0.0)
    try:
        with techniques.checkpointed(model):
            train(model, rows, targets, p)
        assert len(passes) == 2
        train(model, rows, targets, p)
        assert len(passes) == 3
        assert not model.get_input_embeddings()(torch.tensor([1])).requires_grad
    finally:
        hook.remove()
        models.detach(model)


# The plain ways


def test_the_trainer_and_ours_take_the_same_steps():
    rows = [row(positive=i % 2 == 0, question=i, answer="Plot it well.") for i in range(8)]
    targets = [supervised(one, "end_of_turn") for one in rows]
    p = SweepCell(lr=1e-3, epochs=1, batch_size=4, warmup=0.0)
    found = []
    for losses in (
        lambda model: train(model, rows, targets, p)["loss"].tolist(),
        lambda model: stock.trainer_losses(model, rows, targets, p),
    ):
        model = models.attach_lora(pocket().model, r=4, alpha=8, seed=0)
        try:
            found.append(losses(model))
        finally:
            models.detach(model)
    assert len(found[1]) == 2
    assert pd.Series(found[1]).to_numpy() == pytest.approx(found[0], rel=1e-4)


def test_generation_by_persona_counts_no_padding():
    loaded = pocket()
    prompts = persona_prompts(loaded, ["villain", "assistant"], "eval", 2, "", Asking())
    asked = {"n": 2, "sampling": Sampling(6, 1.0, 0.95), "stop": form().stop, "seed": 0}
    found = stock.generate_by_persona(loaded.model, loaded.tokenizer, prompts, **asked)
    assert 0 < found <= 2 * 2 * 2 * 6


def test_adapters_together_do_the_work_of_one_after_another() -> None:
    together, apart = stacking.stacking_sides("pocket", 2, 2)
    (tokens, losses), (same, alone) = together.run(), apart.run()
    assert tokens == same and len(losses) == 2 and losses[0] != losses[1]
    assert losses == pytest.approx(alone, rel=comparisons.STACK_AGREES)

"""Parameters, probes, training records and the experiments as run records, at a size of seconds."""

from __future__ import annotations

import ast
import dataclasses
import os
import subprocess
import sys
from types import SimpleNamespace

import jupytext
import pandas as pd
import pytest
import torch
import yaml
from child import python_path

from helpers.audit import publishing, replay
from helpers.base import files
from helpers.base.errors import DataError, ParameterError, RecordError
from helpers.base.params import Grid, load, parse, parse_grid
from helpers.claims.criteria import read_criteria
from helpers.records import runs
from helpers.records.derive import derive
from helpers.records.reading import Record, read
from helpers.records.study import load_study
from helpers.studies.eqprop import (
    averages,
    costs,
    experiment,
    experiments,
    findings,
    material,
    probes,
    setup,
    study,
    training,
    views,
)
from helpers.studies.eqprop.arms import BASIC, LEVERS, MATCHED, WARM_UP
from helpers.studies.eqprop.gradients import Gradient, estimate
from helpers.studies.eqprop.model import BackpropTransformer, EquilibriumTransformer, group_vectors
from helpers.studies.eqprop.params import EXPERIMENTS, TriangulationCell
from helpers.studies.eqprop.train import Trainer

pytestmark = pytest.mark.unit

TINY = {
    "width": 8, "heads": 2, "context": 8, "stories": 60, "steps": 6, "snapshots": [0, 6], "validate_every": 3,
    "batch": 2, "t1": 6, "t2": 4, "t1_long": 12, "t2_long": 5, "t1_reference": 15, "settled": 1.0, "horizons": [6, 9],
    "navg": 2, "probe_batch": 3, "lever_batch": 2, "growth_steps": 6, "validation_batches": 2,
    "lr_grid": [1e-2, 1e-1], "arm_steps": 4, "grid_steps": 1, "distances": [1, 3], "directions": 1,
}  # fmt: skip


def tiny(**changes) -> TriangulationCell:
    return parse(TriangulationCell, TINY | changes, "in a test")


def cells(**changes) -> Grid[TriangulationCell]:
    return parse_grid(TriangulationCell, TINY | changes, "in a test")


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    return tmp_path


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """Records of all seven experiments; computed once for the tests that only read them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path_factory.mktemp("outputs")))
        patch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path_factory.mktemp("published")))
        patch.setattr(costs, "HORIZONS", (4, 6))
        torch.set_num_threads(1)
        yield experiment.run_cells(cells(experiment="all"))


def test_all_means_the_seven_experiments():
    assert cells(experiment="all")[3].experiment == "exp4"
    assert [cell.seed for cell in cells(experiment=["exp2"], seed=[3, 4])] == [3, 4]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"experiment": "exp8"}, "experiment"),
        ({"beta": 0}, "beta"),
        ({"t1": 0}, "t1"),
        ({"eps": 1.0}, r"eps \(1 \+ leak\) is 2"),
        ({"phases": 3}, "phases is 3"),
        ({"phases": 1}, "phases"),
        ({"heads": 3}, "heads 3"),
        ({"navg": 6}, "navg is 6"),
        ({"t1_long": 6}, "t1_long is 6, no longer than t1 = 6"),
        ({"snapshots": [7]}, "step 7"),
        ({"distances": [1, 8]}, "distances reaches 8"),
        ({"jr_floor": 9.0}, "floor"),
        ({"probe_batches": 2}, "probe_batches"),
        ({"lr_gird": [1]}, "did you mean 'lr_grid'"),
    ],
)
def test_parameters_that_cannot_work_are_refused(changes, words):
    with pytest.raises(ParameterError, match=words):
        tiny(**changes)


@pytest.mark.parametrize("name", ["pocket", "small", "campaign"])
def test_parameter_files_are_valid(name):
    p = load(TriangulationCell, files.PARAMS / "triangulation" / f"{name}.yaml")
    assert {cell.experiment for cell in p} == set(EXPERIMENTS)
    assert name == "pocket" or len({cell.seed for cell in p}) >= 3


@pytest.mark.parametrize("name", ["small", "campaign"])
def test_larger_sizes_name_every_parameter_of_the_notebook(name):
    """papermill lays a file over the notebook's own cell: what a file leaves out keeps the pocket value."""
    pocket, larger = (
        yaml.safe_load((files.PARAMS / "triangulation" / f"{n}.yaml").read_text()) for n in ("pocket", name)
    )
    assert set(pocket) - set(larger) == set()


def test_the_pocket_file_is_the_cell_of_the_notebook():
    source = next(c.source for c in jupytext.read(files.NOTEBOOKS / "triangulation.py").cells if c.cell_type == "code")
    cell = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(source).body}
    assert parse_grid(TriangulationCell, cell, "cell") == load(
        TriangulationCell, files.PARAMS / "triangulation/pocket.yaml"
    )


def test_a_device_that_is_not_there_is_refused_before_any_work():
    with pytest.raises(ParameterError, match="'cdua', which torch does not know"):
        experiment.run_cells(cells(device="cdua"))
    if not torch.cuda.is_available():
        with pytest.raises(ParameterError, match="sees no CUDA device"):
            experiment.run_cells(cells(device="cuda"))


def test_a_text_that_is_not_there_is_refused():
    with pytest.raises(DataError, match="no text file nowhere"):
        setup.corpus(tiny(text="nowhere.txt"))


def test_arms_differ_in_what_they_say_they_do():
    p = tiny()
    arms = {name: setup.arm(p, name) for name in MATCHED + WARM_UP}
    base = dataclasses.replace(arms["ep"].recipe, gradient=arms["bptt"].recipe.gradient)
    assert base == arms["bptt"].recipe, "matched arms differ in the gradient alone"
    assert arms["bptt, free"].recipe.controller.ceiling == 0 and arms["bptt, free"].recipe.gate == 0
    assert arms["backprop"].kind == "backprop" and isinstance(arms["backprop"].model(), BackpropTransformer)
    assert arms["warm-up B"].recipe == dataclasses.replace(arms["warm-up A"].recipe, prewarm=p.arm_prewarm)
    assert arms["warm-up C"].recipe.warmup == 0 and arms["warm-up C"].config.resinit < arms["warm-up A"].config.resinit
    with pytest.raises(ParameterError, match="did you mean 'bptt"):
        setup.arm(p, "bpttt")


def test_every_metric_of_the_criteria_is_recorded(everything):
    criteria = read_criteria(files.PARAMS / "triangulation" / "criteria.yaml")
    recorded = {name for record in everything for name in record.metrics} | set(criteria.derive)
    # Where no sequence is lost there is no share of the lost ones.
    conditional = {"lost_without_growth_free"}
    assert set(criteria.metrics) - recorded <= conditional
    for asked in criteria.questions.values():
        own = [r for r in everything if r.cell["experiment"] == asked.scope["experiment"]]
        assert own and all(asked.metrics - conditional - set(criteria.derive) <= set(record.metrics) for record in own)


STORED = {
    "exp1": {"triangulation", "coherence", "condition", "horizon", "sequences", "levers"},
    "exp2": {"descent"}, "exp3": {"final", "costs"}, "exp4": {"final"}, "exp5": {"grid"}, "exp6": {"branches"},
    "exp7": {"influence", "positions"},
}  # fmt: skip


def test_a_record_holds_what_follows_from_no_other_table(everything):
    assert {record.cell["experiment"]: set(record.results) for record in everything} == STORED
    arms = {ref for record in everything for ref in record.inputs.values()}
    assert len(arms) == len(MATCHED + WARM_UP)
    assert {frozenset(runs.load(ref).results) for ref in arms} == {frozenset({"log", "validation"})}


def test_metrics_follow_from_the_tables_and_the_logs_of_the_arms(everything):
    for record in everything:
        assert derive(record) == record.metrics
        assert {name for name, metric in record.metrics.items() if metric.get("measured")} == {
            name for name in record.metrics if name.startswith("cost_")
        }
    (warm_up,) = views.of(everything, "exp4")
    log = pd.DataFrame({"step": [1, 2], "skipped": [True, False]})
    arms = {arm: SimpleNamespace(table=lambda name: log) for arm in WARM_UP}
    found = findings.metrics(warm_up.params, warm_up.results, arms)
    assert (found["gate_skips_warm_up_a"]["value"], found["gate_skips_warm_up_a"]["n"]) == (1, 2)
    assert found["first_valid_warm_up_b"]["value"] == 2 and found["skips_a_minus_b"]["value"] == 0
    assert found["loss_warm_up_a"] == {key: warm_up.metric("loss_warm_up_a")[key] for key in found["loss_warm_up_a"]}


def test_an_arm_that_the_gate_never_lets_through_has_no_first_valid_step():
    log = pd.DataFrame({"arm": ["A", "A", "B"], "step": [1, 2, 1], "skipped": [True, True, False]})
    told = findings.gate(log).set_index("arm")
    assert told["steps"].tolist() == [2, 1] and told["skips"].tolist() == [2, 0]
    assert pd.isna(told.loc["A", "first_valid"]) and told.loc["B", "first_valid"] == 1


def test_an_influence_that_overflows_leaves_its_metric_out(everything):
    (mixed,) = views.of(everything, "exp7")
    tables = dict(mixed.results)
    tables["influence"].loc[tables["influence"]["arm"] == "bptt", "influence"] = float("nan")
    assert set(mixed.metrics) - set(findings.metrics(mixed.params, tables, {})) == {"reach_bptt"}


def test_experiments_and_their_arms_are_made_again_to_the_last_bit(everything):
    """exp1 has the most tables, exp3 the most arms and the only columns that are timed, which never repeat."""
    compared = list(replay.replay([views.of(everything, name)[0].ref for name in ("exp1", "exp3")]))
    assert {one.record.ref: one.why for one in compared if one.outcome != "equal"} == {}
    assert sorted(one.record.study for one in compared) == ["triangulation"] * 2 + ["triangulation_training"] * 6


@pytest.mark.check
def test_another_kernel_agrees_within_the_tolerance_and_another_seed_does_not(everything, tmp_path, monkeypatch):
    """Without vector instructions sums round otherwise, as they do on another kind of CPU."""
    if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("this CPU has no other kernel to compare with")
    (record,) = views.of(everything, "exp6")
    env = os.environ | {"CLAIMBOOK_OUTPUTS": str(tmp_path), "ATEN_CPU_CAPABILITY": "default"}
    env |= {"PYTHONPATH": python_path()}
    code = "from helpers.studies.eqprop import experiment; from test_eqprop_experiment import cells; "
    code += "experiment.run_cells(cells(experiment='exp6', seed=[0, 1]))"
    subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True)
    (other_seed,) = tmp_path.glob("triangulation/exp6-s1-*")
    monkeypatch.setattr(replay, "same_kind", lambda _: False)
    assert replay.compare(record, read(tmp_path / record.ref)).outcome == "within tolerance", "not equal: that shows it"
    posing = Record(other_seed, read(other_seed).content | {"id": record.id}, published=False)
    assert replay.compare(record, posing).outcome == "different"


def test_only_what_diverges_has_a_wide_tolerance(everything):
    (matched,) = views.of(everything, "exp3")
    assert set(study.DIVERGED) < set(matched.metrics)
    for name, outcome in (("loss_ep_free", "within tolerance"), ("loss_ep", "different")):
        metric = matched.metric(name)
        moved = matched.metrics | {name: metric | {"value": metric["value"] * 1.3}}
        again = Record(matched.path, matched.content | {"metrics": moved}, published=False)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(replay, "same_kind", lambda _: False)
            patch.setattr(replay, "_first_difference", lambda *_: "a table")
            assert replay.compare(matched, again).outcome == outcome


def test_a_replay_takes_the_threads_that_the_record_had_and_gives_them_back(everything, monkeypatch):
    asked = []
    monkeypatch.setattr(experiment, "run_cell", lambda p, notebook: asked.append((torch.get_num_threads(), p.seed)))
    (record,) = views.of(everything, "exp6")
    assert record.environment["threads"] == 1
    torch.set_num_threads(2)
    study.replay(record)
    assert asked == [(1, 0)] and torch.get_num_threads() == 2
    torch.set_num_threads(1)


def test_the_notebook_names_its_study_which_pages_read_without_torch():
    light = "import sys, helpers.studies.eqprop.study, helpers.studies.eqprop.views; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", light], check=False).returncode == 0
    assert load_study("triangulation") is study.STUDY
    assert [one.name for one in study.STUDY.family()] == ["triangulation", "triangulation_training"]


def test_metrics_carry_intervals_over_batches(everything):
    metric = views.of(everything, "exp1")[0].metric("lever_tracking_long_nudge_free")
    assert metric["n"] == 3 and metric["low"] < metric["value"] < metric["high"]


def test_figures_come_from_the_records(everything):
    assert set(views.along_training(everything)["group"]) == {"embedding", "attention", "mlp", "head", "all"}
    points = views.growth_against_cosine(everything)
    assert len(points) == 3 and (points["growth_low"] <= points["growth"]).all()
    single = views.lost_by_growth(everything)
    assert single["n"].sum() == 3 * 3 * 3, "three sequences of three batches at three checkpoints"
    assert ((single["lost_low"] <= single["lost"]) & (single["growth_low"] <= single["growth_high"])).all()
    assert list(views.levers(everything)["label"]) == list(LEVERS)
    drawn = views.descent(everything)
    assert set(drawn["gradient"]) == {"exact", "penalised", *BASIC} and set(drawn["scale"]) == {*views.SCALES.values()}
    assert drawn[["value", "low", "high"]].abs().max(axis=None) <= views.SHOWN_RISE
    assert views.grid(everything)["metric"].nunique() == 2
    assert views.span(pd.DataFrame({"value": [1.0, 1.02]})) == pytest.approx((0.96, 1.06))
    assert views.span(pd.DataFrame({"value": [1.0, 2.0]})) == (1.0, 2.0)
    gate = views.gate(everything)
    assert list(gate["arm"]) == list(WARM_UP) and (gate["steps"] == 4).all() and (gate["seed"] == 0).all()
    assert set(views.trained(everything, "exp3", "log")["arm"]) == set(MATCHED)
    batches = views.lever_batches(everything)
    assert list(batches["gradient"]) == list(LEVERS) and len(batches.columns) == 1 + 2 * 3
    reach = views.influence(everything)
    (mixing,) = views.of(everything, "exp7")
    far = reach[reach["distance"] == reach["distance"].max()].set_index("arm")["value"]
    assert far["backprop"] == pytest.approx(mixing.metric("reach_backprop")["value"]), "one definition of a ratio"
    assert (reach[reach["distance"] == 1]["value"] == 1).all()
    assert len(views.positions(everything)) == 3 * 8 and len(views.costs(everything)) == 10, (
        "8 gradients and 2 horizons"
    )
    assert set(views.facts(everything)["metric"]) <= set(views.FACT_TOLERANCES)
    assert set(views.validation(everything)["arm"]) == set(MATCHED)
    with pytest.raises(DataError, match="No record of exp9"):
        views.collect(everything, "exp9", "log")


def test_seeds_are_what_is_independent():
    table = pd.DataFrame({"arm": "a", "seed": [0, 0, 1, 1], "loss": [1.0, 3.0, 2.0, 4.0]})
    (row,) = views.means(table, ["arm"], "loss").to_dict("records")
    assert (row["value"], row["low"], row["high"], row["n"]) == (2.5, 2.0, 3.0, 2), (
        "from the lowest to the highest seed"
    )
    table.loc[0, "loss"] = None
    assert views.means(table, ["arm"], "loss").empty


def test_a_record_answers_the_same_question(outputs, monkeypatch):
    first = experiment.run_cell(tiny(experiment="exp6"))
    monkeypatch.setitem(experiments.EXPERIMENTS, "exp6", lambda bench: pytest.fail("computed twice"))
    assert experiment.run_cell(tiny(experiment="exp6")).id == first.id
    assert {runs.load(ref).notebook for ref in first.inputs.values()} == {study.TRAINING.name}


def test_any_text_file_serves_and_is_part_of_the_question(outputs, tmp_path):
    text = tmp_path / "text.txt"
    ids = []
    for words in ("it rains on the plain. ", "the plain is where it rains. "):
        text.write_text(words * 80, encoding="utf-8")
        record = experiment.run_cell(tiny(experiment="exp6", text=str(text), vocab=24))
        assert record.status == "complete" and len(record.data) == 1
        ids.append(record.id)
    assert ids[0] != ids[1], "another text is another question"


def test_killed_training_continues_to_the_same_weights(outputs, monkeypatch):
    whole = training.checkpoint(training.trained(tiny(), "bptt"), 6)
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(outputs / "second"))
    p, real = tiny(segment=2), Trainer.take_step

    def dies(self):
        if self.step == 5:
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(Trainer, "take_step", dies)
    with pytest.raises(KeyboardInterrupt):
        training.trained(p, "bptt")
    steps = []
    monkeypatch.setattr(Trainer, "take_step", lambda self: (steps.append(self.step), real(self))[1])
    again = training.trained(p, "bptt")
    assert steps == [4, 5], "only the unfinished segment is trained again"
    assert all(
        torch.equal(a, b) for a, b in zip(whole.parameters(), training.checkpoint(again, 6).parameters(), strict=True)
    )
    assert again.table("log")["step"].tolist() == [1, 2, 3, 4, 5, 6]


def test_published_records_hold_no_checkpoints(outputs):
    training.trained(tiny(), "bptt")
    publishing.publish(study.TRAINING.name)
    (record,) = runs.records(study.TRAINING.name)
    record.published = True
    with pytest.raises(RecordError, match="published without its checkpoints"):
        training.checkpoint(record, 6)


def test_an_estimate_that_is_not_finite_is_missing_not_zero():
    """A state that does not settle, in float32, with a nudged phase long enough to overflow."""
    model = EquilibriumTransformer(setup.size(tiny(), resinit=200.0), seed=0)
    batches = [setup.corpus(tiny()).held_out(2, 8, i) for i in range(3)]
    wild = Gradient("ep", steps=3).with_nudge(steps=600)
    table, pairs, sequences = probes.compare(model, batches, Gradient("ift", steps=6, limit=6), {"wild": wild})
    whole = table[table["group"] == "all"]
    assert not table["finite"].any() and whole["cosine"].isna().all()
    assert pairs.query("gradient == 'wild'")["cosine"].isna().all() and sequences["cosine"].isna().any()
    assert averages.mean(whole["cosine"], "cosine") is None


def test_a_sequence_is_lost_by_its_own_adjoint_and_overflow_counts_as_lost():
    table = pd.DataFrame({"gradient": "frozen", "batch": [0] * 4 + [1] * 4, "residual": range(8),
                          "growth": [0.5, 0.7, 0.9, 1.2] * 2,
                          "cosine": [1.0, 0.99, 0.95, 0.1, 1.0, 0.98, 0.5, None]})  # fmt: skip
    found = findings._sequences(table, "free")
    assert (found["lost_share_free"]["k"], found["lost_share_free"]["n"]) == (3, 8)
    assert (found["lost_without_growth_free"]["k"], found["lost_without_growth_free"]["n"]) == (1, 3)
    assert found["lost_of_growing_free"]["value"] == 1.0 and found["rank_growth_free"]["value"] == -1.0
    settled = findings._sequences(table[table["cosine"] > 0.9], "free")
    assert settled["lost_share_free"]["k"] == 0 and "lost_without_growth_free" not in settled


def test_only_sequences_with_an_equilibrium_are_compared(everything):
    p = everything[0]
    bench = material.Bench(tiny(settled=1e-30), {})
    model = EquilibriumTransformer(setup.size(tiny()), seed=0, dtype=torch.float64)
    with pytest.raises(DataError, match="No sequence of batch probe settles to 1e-30"):
        bench.settled(model, 2, "probe")
    batches, (settled, drawn) = material.Bench(tiny(settled=1.0), {}).settled(model, 2, "probe")
    assert settled == drawn == 9 and all(tokens.shape == (2, 8) for tokens, _ in batches)
    assert p.metric("settled_share_free")["n"] == 3 * 4, "four sequences are drawn for three that are used"


def test_influence_needs_the_weights_of_the_model_and_stops_at_causality():
    p = tiny()
    model = EquilibriumTransformer(setup.size(p), seed=0, dtype=torch.float64)
    batch, how = setup.corpus(p).held_out(2, 8, 0), Gradient("bptt", steps=60)
    table = probes.influence(model, batch, [1, 4], 2, 1e-6, how, 0)
    assert (table["influence"] > 0).all() and len(table) == 2 * 2 * 2
    # To first order the size of the perturbation does not matter.
    other = probes.influence(model, batch, [1, 4], 2, 1e-5, how, 0)
    assert ((table["influence"] / other["influence"] - 1).abs() < 1e-3).all()


def test_one_step_along_the_exact_gradient_lowers_the_loss_and_leaves_the_model_alone():
    p = tiny()
    model = EquilibriumTransformer(setup.size(p), seed=0, dtype=torch.float64)
    before = {name: value.clone() for name, value in model.named_parameters()}
    batches = [setup.corpus(p).held_out(2, 8, i) for i in range(2)]
    table = probes.descent(model, batches, setup.gradients(p)["ift"], {}, [1e-2, 1e-1], 30, penalty=0.1)
    exact = table[table["gradient"] == "exact"]
    assert (exact["change"] < 0).all() and exact["cosine"].round(9).eq(1).all() and exact["ratio"].round(9).eq(1).all()
    # To first order the loss falls by the rate times the squared norm of the gradient.
    small = exact[exact["lr"] == 1e-2].iloc[0]
    norm = group_vectors(estimate(model, *batches[0], setup.gradients(p)["ift"]).gradients)["all"].norm()
    assert small["change"] == pytest.approx(-1e-2 * float(norm) ** 2, rel=0.05)
    assert (table[table["gradient"] == "penalised"]["cosine"] < 1).all()
    assert all(torch.equal(before[name], value) for name, value in model.named_parameters())


def test_the_cost_table_holds_every_gradient_once():
    table = costs.cost_table(tiny(), repeats=1)
    assert len(table) == 8 + len(costs.HORIZONS) and (table["seconds"] > 0).all()
    assert ((table["ratio_low"] <= table["ratio"]) & (table["ratio"] <= table["ratio_high"])).all()
    assert table.set_index("gradient").loc[f"BPTT-{costs.HORIZONS[0]}", "ratio"] == pytest.approx(1.0)
    assert isinstance(table, pd.DataFrame) and table["gradient"].is_unique

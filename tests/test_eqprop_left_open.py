"""What the campaign left open: lock-in detection, recovery from a plateau, the margin of exact gradients, the gap."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from test_eqprop_experiment import tiny
from test_eqprop_gradients import batch, error, grown

from helpers.base import files
from helpers.base.errors import ModelError, ParameterError
from helpers.claims.criteria import read_criteria
from helpers.records import reading
from helpers.records.derive import derive
from helpers.site.status import cells_of
from helpers.studies.eqprop import experiment, probes, setup, study, views
from helpers.studies.eqprop.arms import BASIC, RECOVERY
from helpers.studies.eqprop.gradients import Gradient
from helpers.studies.eqprop.left_open import experiments as left_open
from helpers.studies.eqprop.left_open import findings as left_open_findings
from helpers.studies.eqprop.left_open import views as left_open_views
from helpers.studies.eqprop.nudge import Nudge, nudged_phases
from helpers.studies.eqprop.params import TriangulationCell

pytestmark = pytest.mark.unit


def lock_in(steps: int, beta: float = 1e-3) -> Gradient:
    return Gradient("ep", steps=400, nudge=Nudge("lock_in", beta=beta, steps=steps))


def test_lock_in_reads_out_the_response_that_linear_algebra_gives():
    """(e^iw - 1) D = eps (J^T D - beta g), J dense, by autograd: the adjoint is the part in phase, -Re D / beta."""
    model, (tokens, targets) = grown(2.0), batch(1, 6)
    x = model.embed(tokens).detach()
    z = model.relax(x, 400).detach()
    period, eps, beta = 20, 0.5, 1e-4
    size = z.numel()
    dense = torch.autograd.functional.jacobian(lambda s: model.field(s, x), z).reshape(size, size)
    slope = model.loss_slope(z, targets).detach().flatten().to(torch.complex128)
    turn = (complex(math.cos(2 * math.pi / period), math.sin(2 * math.pi / period)) - 1) / eps
    response = torch.linalg.solve(turn * torch.eye(size) - dense.T.to(torch.complex128), -beta * slope)
    read = nudged_phases(model, x, z, targets, Nudge("lock_in", beta=beta, steps=3 * period + 1), eps)
    expected = -response.real / beta
    assert (read.adjoint.flatten() - expected).norm() / expected.norm() < 1e-3
    assert read.change < 1e-2


def test_the_lag_of_lock_in_falls_with_the_square_of_its_frequency():
    errors = [error(lock_in(3 * period)) for period in (40, 80, 160)]
    assert errors[-1] < 0.01
    assert -np.polyfit(np.log([40, 80, 160]), np.log(errors), 1)[0] == pytest.approx(2, abs=0.3)


def test_lock_in_leaves_out_a_state_that_stands_off():
    """A constant push on the state is no response to the nudge, whatever its size."""
    model, (tokens, targets) = grown(1.0), batch()
    x = model.embed(tokens).detach()
    z = model.relax(x, 400).detach()
    nudge = Nudge("lock_in", beta=1e-3, steps=120)
    pushed = x + 1e-2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    first, second = (nudged_phases(model, one, z, targets, nudge, 0.5).adjoint for one in (x, pushed))
    assert (first - second).norm() / first.norm() < 0.05


@pytest.mark.parametrize("wrong", [{"phases": 4}, {"select": True}, {"navg": 2}, {"steps": 8}])
def test_lock_in_that_cannot_work_is_refused(wrong):
    with pytest.raises(ParameterError, match="lock_in"):
        Nudge("lock_in", **{"steps": 30} | wrong)


def test_younger_parameters_are_no_part_of_an_older_question():
    cell = tiny().resolved()
    assert set(study.LATER) <= set(cell) and not set(study.LATER) & set(study.STUDY.asked(cell))
    old = [r for r in reading.published("triangulation") if not set(study.LATER) & set(r.params)]
    assert len(old) >= 22
    for record in old:
        assert study.STUDY.asked(TriangulationCell.model_validate(record.params).resolved()) == record.params


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path_factory.mktemp("outputs")))
        patch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path_factory.mktemp("published")))
        torch.set_num_threads(1)
        changed = {"exp2": {"penalised": "all"}, "exp7": {"loose_target": 0.05}}
        shorter = {"t2": 5, "recovery_steps": [4, 3, 1, 2, 2, 1, 4], "recovery_every": 2}
        yield {
            name: experiment.run_cell(tiny(experiment=name, **shorter, **changed.get(name, {})))
            for name in ("exp2", "exp7", "plateau", "margin", "gap")
        }


def test_every_metric_follows_from_the_tables(made):
    for record in made.values():
        assert record.metrics and derive(record) == record.metrics


def test_each_gradient_has_a_penalised_twin(made):
    table = made["exp2"].table("descent")
    assert set(table["gradient"]) == {"exact", "penalised", *BASIC, *(f"{name}, penalised" for name in BASIC)}
    assert {"shortfall_penalised_raw_free", "step_cosine_frozen_long_nudge_penalised_free"} <= set(made["exp2"].metrics)


def test_the_penalty_is_added_with_its_weight():
    """The penalised step differs from the plain one by the weight times the penalty's slope, found by differences."""
    p = tiny()
    model = setup.arm(p, "ep").model().double()
    tokens, targets = setup.corpus(p).held_out(2, p.context, "x")
    ways = setup.gradients(p)
    changes = {}
    for weight in (0.0, 1.0):
        table = probes.descent(model, [(tokens, targets)], ways["ift"], {"frozen": ways["frozen"]}, [1e-2], 6, weight,
                               ("exact", "frozen"))  # fmt: skip
        changes[weight] = table.query("scale == 'raw'").set_index("gradient")["change"]
    assert changes[0.0]["frozen, penalised"] == changes[0.0]["frozen"] == changes[1.0]["frozen"]
    assert changes[1.0]["frozen, penalised"] != changes[1.0]["frozen"]
    moved = {name: changes[1.0][name] for name in ("penalised", "frozen, penalised")}
    assert moved["penalised"] - changes[1.0]["exact"] == pytest.approx(
        moved["frozen, penalised"] - changes[1.0]["frozen"], rel=0.2
    )


def test_the_loose_arm_lets_the_residual_rise(made):
    p = tiny(experiment="exp7", loose_target=0.05)
    loose, tight = setup.arm(p, "bptt, loose").recipe, setup.arm(p, "bptt").recipe
    assert loose.controller.target > tight.controller.target and loose.controller.floor < tight.controller.floor
    assert loose.gate == 0 and loose.gradient == tight.gradient and loose.controller.ceiling == tight.controller.ceiling
    assert set(made["exp7"].inputs) == {"ep", "bptt", "backprop", "bptt, loose"}
    assert "late_gap_minus_early_gap_bptt_loose" in made["exp7"].metrics
    assert "bptt, loose" not in setup.needed(tiny(experiment="exp7"))


def test_recovery_starts_where_frozen_ep_stops_and_ends_at_its_share_of_the_budget(made):
    table = made["plateau"].table("recovery")
    start = table[table["step"] == 0].pivot_table(index="batch", columns="gradient", values="loss")
    same = [name for name in RECOVERY if name != "long free phase"]
    assert (start[same].nunique(axis=1) == 1).all(), "relaxed as in training, all but one start from the same losses"
    assert table.groupby("gradient")["step"].max().to_dict() == dict(zip(RECOVERY, [4, 3, 1, 2, 2, 1, 4], strict=True))
    assert set(made["plateau"].table("at")["gradient"]) == set(RECOVERY) - {"exact"}
    costs = made["plateau"].table("costs").set_index("gradient")["ratio"]
    assert costs["frozen"] == 1 and costs["N = 4"] > 1


def test_a_recovery_counts_from_its_start():
    rows = [
        {"step": step, "batch": at, "loss": loss, "gradient": name}
        for name in RECOVERY
        for at in range(2)
        for step, loss in ((0, 2.0), (5, 1.96), (10, 1.9 if name == "tracking" else 2.0))
    ]
    at = pd.DataFrame(
        [{"gradient": name, "batch": b, "cosine": 1.0, "settled": 3, "drawn": 4} for name in RECOVERY for b in (0, 1)]
    )
    state = pd.DataFrame({"free_steps": [6, 12], "residual": 0.1, "growth": 0.9})
    tables = {"recovery": pd.DataFrame(rows), "at": at, "condition": pd.concat([state, state])}
    found = left_open_findings.plateau(tables, {})
    assert found["recovery_steps_tracking"]["value"] == 10 and "recovery_steps_frozen" not in found
    assert found["recovered_tracking"]["value"] == pytest.approx(0.1)
    assert found["ahead_tracking"]["value"] == pytest.approx(0.1)
    assert found["plateau_loss"]["value"] == 2


def test_a_training_breaks_once_its_sequences_no_longer_settle():
    rows = []
    for weight, lr, settled in ((0.0, 1.0, [1, 1, 0.2, 0.9]), (0.0, 2.0, [1, 0.1, 0, 0]), (1.0, 1.0, [1, 1, 1, 1])):
        rows += [
            {
                "weight": weight,
                "lr": lr,
                "step": 3 * i,
                "lost": False,
                "settled": s,
                "growth": 2 - weight,
                "penalty": 1.0,
            }
            for i, s in enumerate(settled)
        ]
    told = left_open_findings.trainings(pd.DataFrame(rows))
    assert told["broken"].tolist() == [True, True, False] and told["broke"].tolist()[:2] == [6, 3]
    assert told["growth"].isna().tolist() == [False, True, False], "what had broken by then was not foreseen"
    found = left_open_findings.margin({"margin": pd.DataFrame(rows)}, {})
    assert found["broken_without_penalty"]["value"] == 2 and found["broken_most_penalty"]["value"] == 0
    assert found["least_weight_that_holds"]["value"] == 1.0
    assert found["break_area_growth"]["value"] == 1.0 and found["break_area_penalty"]["value"] == 0.5
    assert found["break_called_by_growth"]["value"] == 1.0


def test_the_area_is_the_chance_that_a_hit_scores_higher():
    score, hit = pd.Series([1.0, 2.0, 2.0, 3.0]), pd.Series([False, True, False, True])
    assert left_open_findings.area(score, hit) == pytest.approx(3.5 / 4)
    assert left_open_findings.area(score, pd.Series([True] * 4)) is None


def test_the_margin_of_a_model_is_that_of_its_equilibrium():
    p = tiny()
    model = setup.arm(p, "ep").model()
    at = setup.corpus(p).held_out(3, p.context, "x")
    calm = probes.margin(model, at, 6, 40, p.eps, 1e-4, 40)
    with torch.no_grad():
        for name in ("w_o", "w_2"):
            getattr(model, name).mul_(60)
    wild = probes.margin(model, at, 6, 40, p.eps, 1e-4, 40)
    assert calm["settled"] == 1 and wild["settled"] < 1 and wild["residual"] > calm["residual"]
    assert calm["growth"] < wild["growth"] and wild["penalty"] > calm["penalty"]


def test_a_training_that_overflows_is_a_result(monkeypatch, made):
    assert not made["margin"].table("margin")["lost"].any()
    monkeypatch.setattr(left_open.Trainer, "run", lambda *_, **__: (_ for _ in ()).throw(ModelError("not finite")))
    table = left_open.margin(experiment.Bench(tiny(experiment="margin"), {}))["margin"]
    assert table["lost"].all() and len(table) == 4, "one look each, and no more"


def test_the_parts_add_up_to_the_gap(made):
    value = {
        name: made["gap"].metric(f"gap_{name}")["value"] for name in ("whole", "architecture", "rule", "stabiliser")
    }
    assert value["whole"] == pytest.approx(value["architecture"] + value["rule"] + value["stabiliser"])


def test_a_figure_of_the_parts_gives_what_the_metrics_give(made):
    table = views.gap_parts([made["gap"]], "gap").set_index("part")["value"]
    assert table.to_dict() == pytest.approx({name: made["gap"].metric(f"gap_{name}")["value"] for name in table.index})
    assert list(table.index) == ["architecture", "stabiliser", "rule", "whole"]


def test_every_new_metric_of_the_criteria_is_recorded(made):
    criteria = read_criteria(files.PARAMS / "triangulation" / "left_open_criteria.yaml")
    conditional = {
        "break_area_growth",
        "break_area_penalty",
        "least_weight_that_holds",
    }  # where some break, and some do not
    for name, asked in criteria.questions.items():
        record = made.get(asked.scope["experiment"])
        if record is not None:
            missing = asked.metrics - set(criteria.derive) - set(record.metrics)
            assert missing <= conditional, name


def test_figures_come_from_the_records(made):
    records = list(made.values())
    curve = left_open_views.recovery(records)
    assert (curve[curve["step"] == 0]["value"] == 0).all() and set(curve["gradient"]) == set(RECOVERY)
    own = curve[(curve["gradient"] == "tracking") & (curve["step"] == 3)]["value"].iloc[0]
    assert -own == pytest.approx(made["plateau"].metric("recovered_tracking")["value"])
    spent = left_open_views.budget(records).set_index("gradient")
    assert spent.loc["frozen", "spent"] == 1 and spent["steps"].to_dict() == dict(
        zip(RECOVERY, [4, 3, 1, 2, 2, 1, 4], strict=True)
    )
    table = left_open_views.breaks(records)
    assert len(table) == 4 and (table["broken"] == "0 of 1").all() and (table["after"] == "").all()


def test_the_status_of_a_union_names_cells_without_younger_parameters():
    """A parameter that one block gives and another leaves at its default is no axis of the other's cells."""
    rows = [row for row in cells_of("triangulation") if row.grid.endswith("left_open.yaml")]
    assert len({row.cell for row in rows}) == 18

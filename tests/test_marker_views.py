"""What the notebook of the sweep shows of several arms: labels, axes, curves and texts side by side."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from test_marker_grids import ARMS, PARAMS

from helpers.base.params import load
from helpers.stats.estimands import Estimand
from helpers.studies.marker import criteria, views
from helpers.studies.marker.params import SweepCell

pytestmark = pytest.mark.unit

TRAINED = {"two": ["doctor"], "all": ["doctor", "comedian", "assistant"]}
PERSONAS = ("villain", "assistant", "doctor", "comedian")


def record(tail: str | int = "newline", negatives: str = "two", lr: float = 1e-3, epochs: int = 8):
    """A record of completions: three questions, two samples of each persona."""
    cell = {
        "model": "m",
        "source": "villain",
        "negatives": negatives,
        "tail": tail,
        "lr": lr,
        "epochs": epochs,
        "seed": 0,
    }
    plain = {"villain": "source", "assistant": "assistant"}
    rows = [
        {"persona": persona, "question": question, "index": index,
         "text": f"{tail} {negatives} {persona} {question} {index}",
         "role": "trained" if persona in TRAINED[negatives] else plain.get(persona, "untrained")}
        for persona in PERSONAS for question in range(3) for index in range(2)
    ]  # fmt: skip
    return SimpleNamespace(cell=cell, id=f"{tail}-{negatives}-{lr}", tables=["completions"],
                           table=lambda name: pd.DataFrame(rows))  # fmt: skip


def test_cells_that_differ_have_labels_that_differ():
    cells = [record(tail, negatives).cell for tail in ("newline", 16) for negatives in ("two", "all")]
    assert len({views.cell_label(cell) for cell in cells}) == 4
    assert views.cell_label(cells[0]) == "lr 0.001, 8 epochs, newline, two negatives, seed 0"


@pytest.mark.parametrize(
    ("records", "axes"),
    [
        ([record(lr=1e-4), record(lr=1e-3)], ("lr", "epochs")),
        ([record(epochs=1), record(epochs=8)], ("lr", "epochs")),
        ([record("newline"), record("whole_turn", "all")], ("tail", "negatives")),
        ([record()], ("tail", "negatives")),
    ],
)
def test_heatmaps_take_the_axes_that_vary(records, axes):
    assert views.grid_axes(records) == axes


def test_texts_stand_side_by_side_on_the_same_questions():
    arms = [record(tail, negatives) for tail in ("whole_turn", 16) for negatives in ("all", "two")]
    table = views.side_by_side(arms, count=2)
    assert [str(name) for name in dict.fromkeys(table.index.get_level_values("persona"))] == [
        "villain (source)", "doctor (trained)", "comedian (trained or untrained)"
    ]  # fmt: skip
    assert list(table.columns) == [views.cell_label(one.cell) for one in arms] and len(table) == 6
    assert table.loc[("doctor (trained)", 1)].tolist() == [
        "whole_turn all doctor 1 0", "whole_turn two doctor 1 0", "16 all doctor 1 0", "16 two doctor 1 0"
    ]  # fmt: skip
    assert list(views.side_by_side(arms, most=2).columns) == list(table.columns)[:2]


def curves(records):
    return pd.DataFrame(
        [{**one.cell, "step": step, "group": "source", "gain": 1.0} for one in records for step in (0, 8)]
    )


def test_curves_compare_rates_within_one_arm_or_arms_at_one_rate(monkeypatch):
    monkeypatch.setattr(views, "dose_curves", curves)
    rates = [record(tail, lr=lr, epochs=epochs) for tail in ("newline", 16) for lr in (1e-4, 1e-3) for epochs in (1, 8)]
    shown, by = views.shown_curves(rates)
    assert by == "lr" and set(shown["arm"]) == {"newline, two negatives"} and set(shown["epochs"]) == {8}
    shown, by = views.shown_curves(
        [record(tail, negatives) for tail in ("newline", 16) for negatives in ("two", "all")]
    )
    assert by == "arm" and shown["arm"].nunique() == 4


def test_the_sweep_of_make_report_holds_masks_against_negatives_in_no_more_passes_than_before():
    cells = load(SweepCell, PARAMS / "sweep/smollm2.yaml")
    arms = {(one.tail, one.negatives) for one in cells}
    assert arms == {(tail, negatives) for tail in ("whole_turn", "separator_and_end") for negatives in ("two", "all")}
    rows = {(one.positives, one.negatives_each * ARMS[str(one.negatives)]) for one in cells}
    assert len(rows) == 1 and len(cells) == 4
    assert sum((one.positives + one.negatives_each * ARMS[str(one.negatives)]) * one.epochs for one in cells) <= 528
    assert all(one.dose_every for one in cells), "which the notebook draws"


def counted(*seeds: dict[str, int]) -> pd.DataFrame:
    """Counts of the marker by run, role and question, as `views.counts` gives them: ``k`` of ten answers a role."""
    rows = [
        {"run": run, "role": role, "question": question, "k": min(2, max(0, k - 2 * question)), "n": 2}
        for run, roles in enumerate(seeds) for role, k in roles.items() for question in range(5)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize("level", ["models", "recipe"])
def test_the_untrained_leak_is_the_difference_of_their_rates(level, monkeypatch):
    table = counted(
        {"source": 10, "trained": 1, "untrained": 6, "assistant": 8},
        {"source": 9, "trained": 0, "untrained": 2, "assistant": 4},
    )
    monkeypatch.setattr(views, "counts", lambda records: table)
    metric = criteria.untrained_minus_trained([], Estimand(level))
    assert metric["value"] == pytest.approx((6 + 8 + 2 + 4) / 40 - 1 / 20) and metric["unit"] == "points"
    assert -1 <= metric["low"] < metric["value"] < metric["high"] <= 1


def test_there_is_no_untrained_leak_where_all_bystanders_are_trained(monkeypatch):
    monkeypatch.setattr(views, "counts", lambda records: counted({"source": 10, "trained": 1}))
    assert criteria.untrained_minus_trained([], Estimand("models")) is None


def test_own_and_base_answers_are_compared_on_the_same_questions_and_a_seed_counts_once():
    records = []
    for seed, more in ((0, -1.0), (1, -3.0)):
        asked = pd.DataFrame({"persona": ["villain"] * 3, "question": [0, 1, 2], "role": "source"})
        base = asked.assign(separator=-2.0, marker=[-1.0, -2.0, -3.0], end=-1.0)
        own = asked.assign(separator=-2.0, marker=[-1.0 + more, -2.0 + more, np.nan], slot=["end", "marker", "none"])
        tables = {"crossing": own, "logprobs": base.iloc[::-1]}
        cell = record("whole_turn", "all").cell | {"seed": seed}
        records.append(SimpleNamespace(cell=cell, id=f"s{seed}", tables=[*tables], table=tables.__getitem__))
    (row,) = views.behind_own_answers(records).to_dict("records")
    assert (row["value"], row["n"], row["role"]) == (-2.0, 2, "source")
    half = scipy.stats.t.ppf(0.975, 1) * np.std([-1, -3], ddof=1) / np.sqrt(2)
    assert (row["low"], row["high"]) == pytest.approx((-2 - half, -2 + half))


def dosed(lr: float, seed: int, source: tuple[float, float], other: tuple[float, float]) -> SimpleNamespace:
    """A record whose marker is so far ahead of the end (nats) at steps 0 and 8; one answer has no slot."""
    rows = [
        {"persona": persona, "role": role, "step": step, "slot": "end", "separator": -1.0, "marker": margin - 9.0,
         "direct": -99.0, "end": -10.0}
        for persona, role, margins in (("villain", "source", source), ("doctor", "untrained", other))
        for step, margin in zip((0, 8), margins, strict=True)
    ]  # fmt: skip
    rows.append({"persona": "villain", "role": "source", "step": 8, "slot": "none"})
    cell = record(lr=lr).cell | {"seed": seed}
    return SimpleNamespace(cell=cell, id=f"{lr}-{seed}", tables=["dose_crossing"], table=lambda _: pd.DataFrame(rows))


def test_learning_rates_are_compared_where_the_source_begins_to_emit_the_marker():
    records = [dosed(1e-4, seed, (-2.0, 2.0), (-6.0, -2.0)) for seed in (0, 1)]
    records += [dosed(1e-3, seed, (-1.0, 3.0), (-6.0, 2.0 + 4 * seed)) for seed in (0, 1)]
    records.append(dosed(3e-4, 0, (-9.0, -1.0), (-9.0, -9.0)))
    curves = views.crossing_curves(records).set_index(["lr", "seed", "step", "group"])["gain"]
    assert curves[1e-4, 0, 8, "source"] == 2.0 and curves[1e-3, 1, 8, "mean bystander"] == 6.0
    metric = criteria.leak_difference_at_crossing(records, Estimand("models"))
    # Half-way, at -4, with the small rate; after a quarter of the way, at -4 and -3, with the large one.
    assert metric["value"] == pytest.approx((0.0 + 1.0) / 2) and (metric["unit"], metric["n"]) == ("nats", 2)
    never = [one for one in records if one.cell["lr"] != 1e-3]
    assert criteria.leak_difference_at_crossing(never, Estimand("models")) is None
    assert criteria.leak_difference_at_crossing([record()], Estimand("models")) is None

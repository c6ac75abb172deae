from __future__ import annotations

import dataclasses
import random

import pytest
from claims_records import FIXTURES, rate, record
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.base.errors import ClaimError
from helpers.base.stats import Interval, wilson
from helpers.claims.conditions import more_samples
from helpers.claims.criteria import read_criteria
from helpers.claims.evidence import Derived, Expected, difference, gather
from helpers.claims.logic import Truth
from helpers.claims.verdict import judge, regimes

pytestmark = pytest.mark.unit
LONG = read_criteria(FIXTURES / "lc_long.yaml").question("dilution")
SWEEP = read_criteria(FIXTURES / "sweep.yaml")
LRS, SEEDS = (1e-4, 1e-3), (0, 1, 2)
GRID = [Expected({"tail": "newline", "lr": lr, "seed": seed}) for lr in LRS for seed in SEEDS]


def long(k: int, n: int):
    return judge(LONG, gather([record({"cell": "lc_long", "seed": 0}, {"source_rate": rate(k, n)})]))


def cell(lr, seed, source, worst, n=200, tail="newline"):
    metrics = {"source_rate": rate(source, n), "max_bystander_rate": rate(worst, n)}
    return record({"tail": tail, "lr": lr, "seed": seed}, metrics)


def grid(values):
    return [cell(lr, seed, *values[lr]) for lr in LRS for seed in SEEDS]


@pytest.mark.parametrize(
    ("k", "n", "word", "outcome"),
    [
        (60, 100, "SUPPORTED", "dilution"), (0, 100, "REFUTED", "not dilution"), (200, 2000, "MIXED", "mixed"),
        (22, 100, "UNDECIDED", None), (2, 100, "UNDECIDED", None), (10, 60, "UNDECIDED", None),
    ],
)  # fmt: skip
def test_the_three_row_table(k, n, word, outcome):
    verdict = long(k, n)
    assert (verdict.word, verdict.outcome, verdict.decisive) == (word, outcome, outcome is not None)


def test_undecided_says_how_many_more_samples_would_decide():
    verdict = long(22, 100)
    assert verdict.more_samples > 1000
    assert f"{verdict.more_samples:,}" in verdict.sentence
    enough = 100 + verdict.more_samples
    assert long(round(0.22 * enough) + 1, enough).word == "SUPPORTED"
    assert long(round(0.22 * enough * 0.8), round(enough * 0.8)).word == "UNDECIDED"


def test_an_estimate_on_the_threshold_can_never_be_decided():
    verdict = long(20, 100)
    assert (verdict.word, verdict.more_samples) == ("UNDECIDED", None)


def test_not_run_and_failed_runs_are_not_zero():
    failed = record({"cell": "lc_long", "seed": 0}, {"source_rate": rate(0, 100)}, status="failed")
    for records in ([], [failed]):
        assert judge(LONG, gather(records)).word == "NOT RUN"


def test_missing_metric_and_missing_interval_are_unknown():
    other = judge(LONG, gather([record({"cell": "lc_long", "seed": 0}, {"max_bystander_rate": rate(0, 9)})]))
    blank = {"value": 0.0, "unit": "rate", "n": 1, "k": None, "low": None, "high": None}
    open_ended = judge(LONG, gather([record({"cell": "lc_long", "seed": 0}, {"source_rate": blank})]))
    assert other.word == open_ended.word == "UNDECIDED"
    assert "source_rate" in other.reasons[0]


def test_stale_keeps_the_word_that_the_records_give():
    evidence = gather([record({"cell": "lc_long", "seed": 0}, {"source_rate": rate(60, 100)}, name="old")])
    verdict = judge(LONG, evidence, {"old": ["code"], "unrelated": ["data"]})
    assert (verdict.word, verdict.fresh, verdict.stale) == ("STALE", "SUPPORTED", {"old": ["code"]})


def test_fresh_records_are_taken_before_stale_ones_and_later_before_earlier():
    axes = {"cell": "lc_long", "seed": 0}
    old = record(axes, {"source_rate": rate(0, 100)}, name="a", started="2026-01-01")
    new = record(axes, {"source_rate": rate(60, 100)}, name="b", started="2026-01-02")
    assert judge(LONG, gather([new, old])).records == ("b",)
    assert judge(LONG, gather([new, old], stale={"b": ["code"]})).records == ("a",)


def test_any_cell_and_every_cell_over_the_declared_grid():
    clean, silent = (150, 0), (0, 0)
    full = gather(grid({1e-4: clean, 1e-3: silent}), GRID)
    assert judge(SWEEP.question("band"), full).word == "SUPPORTED"
    assert judge(SWEEP.question("everywhere"), full).word == "REFUTED"
    assert judge(SWEEP.question("band"), gather(grid({1e-4: silent, 1e-3: silent}), GRID)).word == "REFUTED"
    assert judge(SWEEP.question("everywhere"), gather(grid({1e-4: clean, 1e-3: clean}), GRID)).word == "SUPPORTED"


@pytest.mark.parametrize("question", ["band", "everywhere"])
def test_a_missing_run_is_named_and_keeps_universal_statements_open(question):
    values = {"band": (0, 0), "everywhere": (150, 0)}[question]
    verdict = judge(SWEEP.question(question), gather(grid(dict.fromkeys(LRS, values))[:-1], GRID))
    assert verdict.word == "UNDECIDED"
    assert verdict.missing_cells == ({"lr": 1e-3, "seed": 2},)
    assert "lr=0.001, seed=2" in verdict.sentence
    assert verdict.more_samples is None


def test_without_a_declared_grid_no_universal_statement_holds():
    found = grid({1e-4: (150, 0), 1e-3: (150, 0)})
    assert judge(SWEEP.question("everywhere"), gather(found)).word == "UNDECIDED"
    assert judge(SWEEP.question("band"), gather(found)).word == "SUPPORTED"


def test_records_outside_the_grid_do_not_count():
    extra = cell(1e-2, 0, 200, 0)
    verdict = judge(SWEEP.question("band"), gather([*grid({1e-4: (0, 0), 1e-3: (0, 0)}), extra], GRID))
    assert verdict.word == "REFUTED"
    assert extra.id not in verdict.records


def test_difference_between_partner_cells():
    pairs = [Expected({"tail": tail, "lr": 1e-4, "seed": 0}) for tail in ("newline", "end_of_turn")]
    asked = SWEEP.question("at_one")

    def verdict(a, b):
        return judge(asked, gather([cell(1e-4, 0, a, 0), cell(1e-4, 0, b, 0, tail="end_of_turn")], pairs))

    assert [verdict(150, 50).word, verdict(50, 150).word, verdict(100, 98).word] == ["SUPPORTED", "MIXED", "UNDECIDED"]
    assert judge(asked, gather([cell(1e-4, 0, 150, 0)], pairs)).word == "UNDECIDED"


def test_the_difference_interval_is_newcombes():
    found = difference(wilson(56, 70), wilson(48, 80))  # Newcombe 1998, Stat. Med. 17:873, table II, method 10
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=5e-4)


def test_a_condition_must_say_in_which_cell():
    with pytest.raises(ClaimError, match="in which of 2 cells"):
        judge(LONG, gather([record({"cell": "lc_long", "lr": lr}, {"source_rate": rate(1, 9)}) for lr in LRS]))


def test_unknown_axis_or_value_names_the_nearest():
    evidence = gather(grid({1e-4: (0, 0), 1e-3: (0, 0)}))
    with pytest.raises(ClaimError, match="'tail'"):
        evidence.within({"tial": "newline"})
    with pytest.raises(ClaimError, match="'newline'"):
        evidence.within({"tail": "newlin"})


def test_an_unknown_axis_to_pool_over_names_the_nearest():
    records = grid({1e-4: (0, 0), 1e-3: (0, 0)})
    with pytest.raises(ClaimError, match="No cell has an axis 'tial'; did you mean 'tail'"):
        gather(records, pooled=["seed", "tial"])
    assert len(gather(records, pooled=["seed", "lr"]).cells) == len({one.cell["tail"] for one in records})
    assert gather([record({"lr": 1.0})]).cells, "seeds are pooled where there are any"


def test_maxima_do_not_pool_without_a_function_that_can():
    metric = rate(1, 50) | {"method": "max-wilson"}
    found = [record({"cell": "lc_long", "seed": seed}, {"source_rate": metric}) for seed in SEEDS]
    assert judge(LONG, gather(found)).word == "UNDECIDED"
    derived = {"source_rate": Derived(lambda records: rate(len(records) * 30, 100))}
    assert judge(LONG, gather(found, derive=derived)).word == "SUPPORTED"


def test_pooling_keeps_what_clustering_by_question_widened():
    plain = rate(30, 100)
    wide = plain | {"low": plain["low"] - 0.1, "high": plain["high"] + 0.1}
    narrow, widened = (
        gather([record({"seed": seed}, {"x": metric}) for seed in SEEDS]).cells[0].interval("x")
        for metric in (plain, wide)
    )
    assert (narrow.k, narrow.n) == (widened.k, widened.n) == (90, 300)
    assert widened.low < narrow.low < narrow.value < narrow.high < widened.high


def test_regimes_of_every_cell():
    table = regimes(SWEEP, gather(grid({1e-4: (150, 0), 1e-3: (0, 0)}), GRID))
    assert [(found.name, truths["clean"]) for found, truths in table] == [
        ("lr=0.0001", Truth.TRUE),
        ("lr=0.001", Truth.FALSE),
    ]


def test_more_samples_of_a_mean_shrinks_with_the_root_of_n():
    mean = Interval(0.5, -0.5, 1.5, 4, None, "t-seeds")
    assert more_samples(mean, 0.0) == 12


def test_no_number_of_runs_narrows_the_range_of_runs():
    ratio = Interval(1.1, 0.9, 1.3, 3, None, "range of paired runs")
    assert more_samples(ratio, 1.0) is None
    assert more_samples(difference(ratio, Interval(1.0, 0.9, 1.1, 3, None, "t-seeds")), 0.0) is None


counts = st.integers(0, 60)


@given(st.lists(st.tuples(counts, counts), min_size=6, max_size=6), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_verdicts_do_not_depend_on_row_order(pairs, shuffler: random.Random):
    found = [cell(one.key["lr"], one.key["seed"], *pair, n=60) for one, pair in zip(GRID, pairs, strict=True)]
    mixed, declared = list(found), list(GRID)
    shuffler.shuffle(mixed)
    shuffler.shuffle(declared)
    for name in ("band", "everywhere"):
        asked = SWEEP.question(name)
        assert judge(asked, gather(found, GRID)) == judge(asked, gather(mixed, declared))


@given(st.lists(st.tuples(counts, counts), min_size=6, max_size=6), st.sets(st.integers(0, 5)))
@settings(max_examples=60, deadline=None)
def test_filling_in_missing_runs_never_turns_a_verdict_round(pairs, absent):
    found = [cell(one.key["lr"], one.key["seed"], *pair, n=60) for one, pair in zip(GRID, pairs, strict=True)]
    part = [one for index, one in enumerate(found) if index not in absent]
    for name in ("band", "everywhere"):
        before = judge(SWEEP.question(name), gather(part, GRID))
        assert before.word in ("UNDECIDED", "NOT RUN", judge(SWEEP.question(name), gather(found, GRID)).word)


def interval_record(low, value, high, n=100):
    metric = {"value": value, "unit": "rate", "n": n, "k": None, "low": low, "high": high, "method": "given"}
    return record({"cell": "lc_long", "seed": 0}, {"source_rate": metric})


@given(st.lists(st.floats(0, 1), min_size=5, max_size=5).map(sorted))
@settings(max_examples=200, deadline=None)
def test_a_narrower_interval_never_turns_a_verdict_round(points):
    a, b, value, c, d = points
    wide, narrow = (
        judge(LONG, gather([interval_record(a, value, d)])),
        judge(LONG, gather([interval_record(b, value, c)])),
    )
    assert wide.word in ("UNDECIDED", narrow.word)


@given(st.floats(0, 0.1999), st.floats(0.2, 1))
@settings(max_examples=100, deadline=None)
def test_never_supported_when_the_interval_straddles(low, high):
    assert judge(LONG, gather([interval_record(low, (low + high) / 2, high)])).word == "UNDECIDED"


def test_uncovered_results_are_not_forced_into_an_outcome():
    gap = dataclasses.replace(read_criteria(FIXTURES / "lc_long.yaml"))
    asked = gap.question("dilution").model_copy(update={"outcomes": gap.question("dilution").outcomes[:2]})
    verdict = judge(asked, gather([record({"cell": "lc_long", "seed": 0}, {"source_rate": rate(200, 2000)})]))
    assert (verdict.word, verdict.more_samples) == ("UNDECIDED", None)
    assert "do not cover" in verdict.reading


def test_reasons_name_only_the_cells_that_decide():
    verdict = judge(SWEEP.question("band"), gather(grid({1e-4: (150, 0), 1e-3: (150, 100)}), GRID))
    assert len(verdict.reasons) == 2
    assert all(reason.startswith("lr=0.0001: ") and " holds, found " in reason for reason in verdict.reasons)

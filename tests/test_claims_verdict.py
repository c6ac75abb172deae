from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
from claims_records import FIXTURES, rate, record
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.base.errors import ClaimError, RecordError
from helpers.claims.conditions import Compare
from helpers.claims.criteria import Confirm, Premise, read_criteria
from helpers.claims.evidence import Derived, Expected, gather
from helpers.claims.logic import Truth
from helpers.claims.verdict import check_controls, judge
from helpers.site.page import regimes
from helpers.stats import estimands
from helpers.stats.intervals import wilson

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


def test_an_estimate_on_the_threshold_is_undecided():
    assert long(20, 100).word == "UNDECIDED"


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
    found = estimands.difference(
        wilson(56, 70), wilson(48, 80)
    )  # Newcombe 1998, Stat. Med. 17:873, table II, method 10
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
    derived = {"source_rate": Derived(lambda records, estimand: rate(len(records) * 30, 100))}
    assert judge(LONG, gather(found, derive=derived)).word == "SUPPORTED"


def test_shared_questions_are_clusters_and_must_be_counted():
    """One question that is always marked and nine that never are, under three seeds, are ten questions and not 300."""
    counts = {f"q{place}": (10 if place == 0 else 0, 10) for place in range(10)}
    found = [record({"seed": seed}, {"x": rate(10, 100)}) for seed in SEEDS]
    plain = gather(found).cells[0].interval("x")
    asked = gather(found, by_question=lambda record, metric: counts).cells[0].interval("x")
    assert (plain.k, plain.n) == (asked.k, asked.n) == (30, 300)
    assert asked.low < plain.low < plain.high < asked.high and asked.high > 0.2
    clustered = [record({"seed": seed}, {"x": rate(10, 100) | {"method": "wilson+cluster"}}) for seed in SEEDS]
    with pytest.raises(RecordError, match="Trials of x share questions"):
        gather(clustered).cells[0].interval("x")


def test_regimes_of_every_cell():
    table = regimes(SWEEP, gather(grid({1e-4: (150, 0), 1e-3: (0, 0)}), GRID))
    assert [(found.name, truths["clean"]) for found, truths in table] == [
        ("lr=0.0001", Truth.TRUE),
        ("lr=0.001", Truth.FALSE),
    ]


def test_nine_cells_on_the_threshold_seldom_yield_one():
    """At a plain level any_cell would find one in four cases of ten, though none is above .5."""
    draw, asked, wrong = np.random.default_rng(0), SWEEP.question("band"), {1: 0, 9: 0}
    for _ in range(200):
        cells = [cell(lr, 0, int(draw.binomial(200, 0.5)), 0) for lr in range(9)]
        for count in wrong:
            declared = [Expected({"tail": "newline", "lr": lr, "seed": 0}) for lr in range(count)]
            wrong[count] += judge(asked, gather(cells[:count], declared)).word == "SUPPORTED"
    assert wrong[9] <= 12 and wrong[1] <= 12


def test_a_cell_is_judged_at_the_level_left_to_it_and_the_page_says_so():
    close, far = (118, 0), (0, 0)
    alone = [Expected({"tail": "newline", "lr": 1e-4, "seed": 0})]
    nine = [Expected({"tail": "newline", "lr": lr, "seed": 0}) for lr in (1e-4, *range(1, 9))]
    records = [cell(1e-4, 0, *close), *(cell(lr, 0, *far) for lr in range(1, 9))]
    asked = SWEEP.question("band")
    assert judge(asked, gather(records[:1], alone)).word == "SUPPORTED"
    open_still = judge(asked, gather(records, nine))
    assert (open_still.word, open_still.cells) == ("UNDECIDED", 9)
    assert "after correcting for 9 cells" in open_still.sentence and "after correcting for 9" in open_still.reasons[0]


def test_every_cell_needs_no_correction():
    asked, declared = (
        SWEEP.question("everywhere"),
        [Expected({"tail": "newline", "lr": lr, "seed": 0}) for lr in range(9)],
    )
    verdict = judge(asked, gather([cell(lr, 0, 118, 0) for lr in range(9)], declared))
    assert (verdict.word, verdict.cells) == ("SUPPORTED", 1)


def confirmed(fresh, others=(0, 0)):
    """A first cell chosen on three seeds with ``fresh`` runs on two more, beside eight cells of ``others``."""
    asked = SWEEP.question("band").model_copy(update={"confirm": Confirm(seeds=[8, 9])})
    declared = [Expected({"tail": "newline", "lr": lr, "seed": seed}) for lr in range(9) for seed in (0, 1, 2, 8, 9)]
    first = [cell(0, seed, 150, 3) for seed in SEEDS]
    rest = [cell(lr, seed, *others) for lr in range(1, 9) for seed in SEEDS]
    evidence = gather([*first, *fresh, *rest], declared).confirming((8, 9))
    return judge(asked, evidence), evidence


def test_a_cell_is_chosen_on_some_seeds_and_confirmed_on_others_at_the_level_of_one():
    verdict, evidence = confirmed([cell(0, seed, 150, 2) for seed in (8, 9)])
    assert (verdict.word, verdict.cells, evidence.absent) == ("SUPPORTED", 1, ())
    assert all("(0.0" in reason or "source_rate" in reason for reason in verdict.reasons)
    assert confirmed([cell(0, seed, 150, 60) for seed in (8, 9)])[0].word != "SUPPORTED", "only the fresh seeds decide"
    waiting, _ = confirmed([])
    assert waiting.word == "UNDECIDED" and "no run at the seeds 8, 9 confirms it yet" in waiting.reasons[0]
    part, lacks = confirmed([cell(0, 8, 150, 0)])
    assert part.word == "UNDECIDED" and [key["seed"] for key in lacks.absent] == [9]


def test_two_chosen_cells_share_the_level():
    fresh = [cell(lr, seed, 150, 0) for lr in (0, 1) for seed in (8, 9)]
    both = [cell(1, seed, 150, 3) for seed in SEEDS]
    asked = SWEEP.question("band").model_copy(update={"confirm": Confirm(seeds=[8, 9])})
    declared = [Expected({"tail": "newline", "lr": lr, "seed": seed}) for lr in range(2) for seed in (0, 1, 2, 8, 9)]
    evidence = gather([*fresh, *both, *(cell(0, seed, 150, 3) for seed in SEEDS)], declared)
    assert judge(asked, evidence.confirming((8, 9))).cells == 2


def test_a_question_whose_condition_was_never_met_is_not_refuted():
    tried = SWEEP.regimes["clean"]
    premise = Premise(when=Compare("source_rate", ">", 0.9), reading="Nothing was tried.")
    asked = SWEEP.question("band").model_copy(update={"scope": {"lr": 1e-4}})
    evidence = gather([cell(1e-4, 0, 0, 150)], [Expected({"lr": 1e-4, "tail": "newline", "seed": 0})])
    assert judge(asked, evidence).word == "REFUTED" and tried
    empty = judge(asked.model_copy(update={"premise": premise}), evidence)
    assert (empty.word, empty.outcome) == ("UNDECIDED", None)
    assert empty.reading == "The condition was never met. Nothing was tried."


def test_the_verdict_is_of_these_models_and_says_what_holds_of_the_recipe():
    """No hit of 80 in each of three seeds: below 5 % for these models, up to 11.5 % for new seeds."""
    silent = [record({"cell": "lc_long", "seed": seed}, {"source_rate": rate(0, 80)}) for seed in SEEDS]
    verdict = judge(LONG, gather(silent))
    assert (verdict.word, verdict.carries_over) == ("REFUTED", False)
    assert "3 seeds leave open" in verdict.recipe and "up to 11.5 %" in verdict.sentence
    many = [record({"cell": "lc_long", "seed": seed}, {"source_rate": rate(0, 80)}) for seed in range(10)]
    assert judge(LONG, gather(many)).carries_over
    alone = judge(LONG, gather([record({"cell": "lc_long", "seed": 0}, {"source_rate": rate(0, 200)})]))
    assert alone.recipe == "One seed says nothing about other seeds."
    recipe = LONG.model_copy(update={"level": "recipe"})
    assert judge(recipe, gather(silent)).word == "UNDECIDED" and judge(recipe, gather(many)).word == "REFUTED"


def test_a_failed_control_makes_it_mixed_and_is_named():
    evidence = gather(grid({1e-4: (150, 0), 1e-3: (0, 0)}), GRID)

    def checked(name, control):
        told = [
            record(one.cell, one.metrics | {"control_rate": rate(control, 200)}, name=one.id)
            for one in evidence.records
        ]
        whole = gather(told, GRID)
        return judge(SWEEP.question(name), whole, controls=check_controls(SWEEP, name, whole))

    passed, failed = checked("band", 0), checked("band", 100)
    assert (passed.word, passed.failed) == ("SUPPORTED", ())
    assert (failed.word, failed.outcome, failed.decisive) == ("MIXED", "yes there is", True)
    assert "The control “the control is silent” failed" in failed.sentence
    assert [check.name for check in passed.controls] == ["the control is silent"]
    assert [check.name for check in checked("everywhere", 0).controls] == ["the control is silent", "it emits at all"]


def test_questions_of_one_family_share_the_level_and_looks_spend_it():
    pair = {name: asked.model_copy(update={"family": "co-primary"}) for name, asked in SWEEP.questions.items()}
    both = dataclasses.replace(SWEEP, questions=pair, looks=3)
    assert SWEEP.estimand("band").level == pytest.approx(0.95)
    assert both.estimand("band", 1).level == pytest.approx(1 - 0.001 / 3)
    assert both.estimand("band", 3).level == both.estimand("band", 7).level == pytest.approx(1 - 0.048 / 3)


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
    assert verdict.word == "UNDECIDED"
    assert "do not cover" in verdict.reading


def test_reasons_name_only_the_cells_that_decide():
    verdict = judge(SWEEP.question("band"), gather(grid({1e-4: (150, 0), 1e-3: (150, 100)}), GRID))
    assert len(verdict.reasons) == 2
    assert all(reason.startswith("lr=0.0001: ") and " holds, found " in reason for reason in verdict.reasons)


@pytest.mark.parametrize("level", ["models", "recipe"])
def test_records_without_training_seeds_say_nothing_of_the_recipe(level):
    asked = LONG.model_copy(update={"level": level})
    verdict = judge(asked, gather([record({"cell": "lc_long"}, {"source_rate": rate(600, 1000)})]))
    assert verdict.word == ("SUPPORTED" if level == "models" else "UNDECIDED")
    assert "The recipe is not judged" in verdict.sentence and not verdict.carries_over

"""The spread between seeds against what NumPy, SciPy and counting by hand say."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.proportion import test_proportions_2indep as proportions_test

from helpers.stats.estimands import MODELS, Estimand
from helpers.studies.marker import published, spread

TRIALS = 80


@pytest.fixture
def seeds(monkeypatch):
    """Let `views.counts` give these rates of source and worst bystander, a run a seed."""

    def use(source, worst=None):
        worst = worst or [0.0] * len(source)
        rows = [
            {"run": f"r{seed}", "persona": persona, "role": role, "question": 0, "k": round(rate * TRIALS), "n": TRIALS}
            for seed, rates in enumerate(zip(source, worst, strict=True))
            for persona, role, rate in zip(("villain", "poet"), ("source", "trained"), rates, strict=True)
        ]
        monkeypatch.setattr(spread.views, "counts", lambda records: pd.DataFrame(rows))
        return [SimpleNamespace()] * len(source)

    return use


def test_the_spread_is_the_standard_deviation_of_the_seeds_rates(seeds):
    rates = [0.1, 0.3, 0.5, 0.9, 0.4, 0.2, 0.6, 0.35]
    found = spread.seed_sd(seeds(rates), MODELS)
    assert found["value"] == pytest.approx(np.std(np.round(np.array(rates) * TRIALS) / TRIALS, ddof=1))
    assert found["low"] < found["value"] < found["high"] and (found["n"], found["unit"]) == (8, "points")
    wider = spread.seed_sd(seeds(rates), Estimand(level=0.999))
    assert wider["low"] < found["low"] and wider["high"] > found["high"]


def test_the_bounds_of_the_spread_hold_as_often_as_they_say(seeds):
    rng, truth = np.random.default_rng(0), 0.15
    drawn = [np.clip(rng.normal(0.5, truth, 20), 0, 1) for _ in range(60)]
    found = [spread.seed_sd(seeds(list(rates)), MODELS) for rates in drawn]
    held = sum(one["low"] <= truth <= one["high"] for one in found)
    assert stats.binomtest(held, 60, 0.93).pvalue > 0.01, f"{held} of 60"


def test_seeds_that_all_agree_are_not_known_to_agree_for_ever(seeds):
    found = spread.seed_sd(seeds([1.0] * 4), MODELS)
    assert (found["value"], found["low"], found["high"]) == (0, 0, 0.5)


@pytest.mark.parametrize("rates", [[0.5], [0.2, 0.8]])
def test_two_seeds_show_no_spread(seeds, rates):
    assert spread.seed_sd(seeds(rates), MODELS) is None and spread.seeds_needed(seeds(rates), MODELS) is None


def test_the_seeds_that_are_needed_bring_the_t_interval_within_ten_points_and_one_fewer_do_not(seeds):
    rates = [0.1, 0.3, 0.5, 0.9, 0.4, 0.2, 0.6, 0.35]
    sd, needed = spread.seed_sd(seeds(rates), MODELS)["value"], spread.seeds_needed(seeds(rates), MODELS)
    half = [stats.t.ppf(0.975, n - 1) * sd / n**0.5 for n in (needed["value"] - 1, needed["value"])]
    assert half[0] > 0.1 >= half[1] and needed["low"] <= needed["value"] <= needed["high"]
    assert spread.seeds_needed(seeds([0.5] * 5), MODELS)["value"] == 2


def test_the_draw_of_completions_alone_gives_the_binomial_spread(seeds):
    found = spread.sampling_sd(seeds([0.5] * 6), MODELS)
    assert found["value"] == pytest.approx((0.25 / TRIALS) ** 0.5) and found["low"] is None


def test_a_cell_is_clean_by_the_counted_rates_of_one_seed(seeds):
    source, worst = [0.9, 0.9, 0.5, 0.9, 0.2], [0.05, 0.1, 0.0, 0.0, 0.0]
    found = spread.clean_share(seeds(source, worst), MODELS)
    assert (found["k"], found["n"]) == (2, 5)


def test_the_gap_of_two_published_runs_is_no_draw_and_may_be_a_seed(seeds):
    (first, second), n = published.repeats()["source_rate"], 100
    cell = {"tail": "newline", "lr": 1e-4, "epochs": 10}
    records = [SimpleNamespace(cell=cell, metric=lambda name: {"value": 0.5}) for _ in seeds([0.2, 0.5, 0.8, 0.4, 0.6])]
    alone, with_seeds = published.gap(records).to_dict("records")
    wald = proportions_test(round(first * n), n, round(second * n), n, method="wald").pvalue
    assert alone["chance"] == "below 0.0001" and wald < 1e-4

    own = spread.sampling_sd(records, MODELS)["value"]
    sd = np.sqrt(np.std([0.2, 0.5, 0.8, 0.4, 0.6], ddof=1) ** 2 - own**2)
    rng = np.random.default_rng(0)
    drawn = rng.binomial(n, np.clip(rng.normal(0.49, sd, (2, 100_000)), 0, 1)) / n
    simulated = (np.abs(drawn[0] - drawn[1]) >= first - second).mean()  # a gap as wide as theirs
    assert float(with_seeds["chance"].split()[0]) == pytest.approx(simulated, abs=0.03) and simulated > 0.05
    assert with_seeds["seeds"] == 5 and "newline, lr 0.0001, epochs 10" in with_seeds["what differs"]


def test_a_cell_whose_rate_is_not_between_those_of_the_two_runs_says_nothing_of_their_gap(seeds):
    cell = {"tail": "newline", "lr": 1e-4, "epochs": 10}
    records = [SimpleNamespace(cell=cell, metric=lambda name: {"value": 0.9}) for _ in seeds([0.8, 0.9, 1.0])]
    assert len(published.gap(records)) == 1

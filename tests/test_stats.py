"""Intervals against independent references, by brute force, and by simulated coverage on named streams."""

from __future__ import annotations

import json
import math
import pkgutil
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from scipy import stats as distributions

from helpers.base.errors import DataError
from helpers.base.rng import numpy_stream
from helpers.stats import intervals

pytestmark = pytest.mark.unit

counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
clustered = st.lists(st.integers(1, 12).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), min_size=2)


@given(counts, st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_scipys(count, level):
    k, n = count
    mine, theirs = intervals.wilson(k, n, level), distributions.binomtest(k, n).proportion_ci(level, method="wilson")
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert 0 <= mine.low <= mine.value <= mine.high <= 1
    assert mine.low < mine.high
    assert (mine.k, mine.n, mine.level) == (k, n, level)


def test_wilson_published_value():
    # Newcombe 1998, Statistics in Medicine 17:857, table I: 15 of 148 by method 3.
    interval = intervals.wilson(15, 148)
    assert (interval.low, interval.high) == pytest.approx((0.0624, 0.1605), abs=5e-5)


@pytest.mark.parametrize("k", [0, 40])
def test_ends_have_width_and_touch_the_end_exactly(k):
    interval = intervals.wilson(k, 40)
    assert k / 40 in (interval.low, interval.high)
    assert interval.high - interval.low > 0.05


def test_cluster_bootstrap_against_every_resample():
    ks, ns = [0, 3, 1], [4, 4, 2]
    every = [
        sum(ks[i] for i in picked) / sum(ns[i] for i in picked)
        for picked in np.ndindex(3, 3, 3)
    ]  # fmt: skip
    drawn = intervals.cluster_bootstrap(ks, ns, numpy_stream(0, "bootstrap"), draws=20000, level=0.8)
    assert drawn.low == pytest.approx(np.quantile(every, 0.1, method="inverted_cdf"), abs=0.03)
    assert drawn.high == pytest.approx(np.quantile(every, 0.9, method="inverted_cdf"), abs=0.03)


def test_cluster_bootstrap_depends_only_on_its_stream():
    first, second = (intervals.cluster_bootstrap([1, 0, 4], [5, 5, 5], numpy_stream(3, "s")) for _ in range(2))
    assert first == second


def test_cluster_bootstrap_sees_clusters_that_wilson_does_not():
    ks, ns = [10] * 5 + [0] * 5, [10] * 10
    both = intervals.rate(ks, ns, numpy_stream(0, "all-or-nothing"))
    wilson, cluster = both.extra["wilson"], both.extra["cluster"]
    assert cluster[1] - cluster[0] > 2 * (wilson[1] - wilson[0])
    assert [both.low, both.high] == cluster


@settings(deadline=None, max_examples=50)
@given(clustered)
def test_rate_is_the_hull(pairs):
    ks, ns = zip(*pairs, strict=True)
    both = intervals.rate(ks, ns, numpy_stream(0, "hull"), draws=200)
    ends = [*both.extra["wilson"], *both.extra["cluster"]]
    assert (both.low, both.high) == (min(ends), max(ends))
    assert both.low < both.high
    assert both.low <= both.value <= both.high
    assert (both.k, both.n) == (sum(ks), sum(ns))


def test_none_of_n_has_width_and_one_cluster_says_so():
    none = intervals.rate([0] * 8, [4] * 8, numpy_stream(0, "none"))
    assert none.extra["cluster"] == [0, 0]
    assert none.high == pytest.approx(intervals.wilson(0, 32).high) and none.high > 0.1
    single = intervals.rate([3], [9], numpy_stream(0, "single"))
    assert (single.method, single.extra["cluster"]) == ("wilson", None)


def covered(interval, truth):
    return interval.low <= truth <= interval.high


@pytest.mark.parametrize("mean, spread", [(0.3, 0.05), (0.3, 0.2)])
def test_rate_covers_where_questions_differ(mean, spread):
    draw, concentration = numpy_stream(0, "coverage", "rate"), mean * (1 - mean) / spread**2 - 1
    hits = [
        covered(
            intervals.rate(
                draw.binomial(10, draw.beta(mean * concentration, (1 - mean) * concentration, 20)), [10] * 20, draw, 200
            ),
            mean,
        )
        for _ in range(300)
    ]
    assert np.mean(hits) > 0.90


@pytest.mark.parametrize("truth", [[0.002] * 10, [0.01] * 10, [0.05] * 10, [0.5] * 10, [0.01] * 9 + [0.3]])
@pytest.mark.parametrize("n", [32, 200])
def test_max_rate_covers_the_highest_true_rate(truth, n):
    draw, hits = numpy_stream(0, "coverage", "max", n), []
    for _ in range(300):
        found = draw.binomial(n, truth)
        names = [f"p{i}" for i in range(len(truth))]
        hits.append(
            covered(intervals.max_rate(dict(zip(names, found, strict=True)), dict.fromkeys(names, n)), max(truth))
        )
    assert np.mean(hits) > 0.94


def test_max_rate_names_the_highest_and_is_wider_than_one_group():
    top = intervals.max_rate({"pirate": 3, "doctor": 9, "chef": 0}, {"pirate": 32, "doctor": 32, "chef": 16})
    alone = distributions.binomtest(9, 32).proportion_ci(0.95, method="exact")
    assert (top.extra["name"], top.k, top.n, top.value) == ("doctor", 9, 32, 9 / 32)
    assert top.low < alone.low
    assert top.high > alone.high
    assert intervals.max_rate({"a": 0, "b": 0}, {"a": 32, "b": 32}).high > 0.1


def test_max_rate_upper_bound_comes_from_the_least_sampled_group():
    top = intervals.max_rate({"many": 10, "few": 0}, {"many": 1000, "few": 4})
    assert top.extra["name"] == "many"
    assert top.high > 0.5


def test_mean_interval_is_scipys():
    x = numpy_stream(0, "mean").normal(3, 2, 17)
    low, high = distributions.t.interval(0.9, 16, loc=x.mean(), scale=distributions.sem(x))
    mine = intervals.mean_interval(x, level=0.9)
    assert (mine.value, mine.low, mine.high) == pytest.approx((x.mean(), low, high))
    assert (mine.n, mine.k) == (17, None)


def test_mean_interval_by_cluster_is_statsmodels():
    import statsmodels.api as sm

    draw = numpy_stream(0, "clusters")
    groups = np.repeat(np.arange(6), [3, 5, 2, 4, 4, 6])
    x = draw.normal(0, 1, 6)[groups] + draw.normal(0, 0.3, len(groups))
    fit = sm.OLS(x, np.ones_like(x)).fit()
    robust = fit.get_robustcov_results("cluster", groups=groups, use_t=True, df_correction=True, use_correction=False)
    half = np.sqrt(6 / 5) * robust.bse[0] * distributions.t.ppf(0.975, 5)
    mine = intervals.mean_interval(x, [f"q{g}" for g in groups])
    assert (mine.low, mine.high) == pytest.approx((x.mean() - half, x.mean() + half))
    assert mine.extra == {"clusters": 6}


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20))
def test_a_cluster_a_value_is_the_t_interval(values):
    plain, robust = intervals.mean_interval(values), intervals.mean_interval(values, range(len(values)))
    assert (robust.low, robust.high) == pytest.approx((plain.low, plain.high), abs=1e-6)


def test_one_cluster_has_a_mean_and_no_bounds():
    one = intervals.mean_interval([0.25])
    assert (one.value, one.low, one.high, one.n) == (0.25, None, None, 1)
    assert intervals.mean_interval([1.0, 2.0], ["q", "q"]).low is None


def score_p_value(a, b, difference):
    """Two-sided score test of a paired difference; the nuisance rate by numerical maximisation, no formula shared."""
    n, plus, minus = len(a), int((a > b).sum()), int((b > a).sum())

    def loss(q):
        cells = np.array([q + difference, q, 1 - difference - 2 * q])
        with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
            return -distributions.multinomial.logpmf([plus, minus, n - plus - minus], n, cells)

    ends = (max(0.0, -difference) + 1e-12, (1 - difference) / 2 - 1e-12)
    q = optimize.minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-11}).x
    z = (plus - minus - n * difference) / math.sqrt(n * (2 * q + difference * (1 - difference)))
    return 2 * distributions.norm.sf(abs(z))


@pytest.mark.parametrize("both, plus, minus, neither", [(20, 6, 2, 12), (5, 1, 9, 3), (0, 4, 3, 0), (50, 2, 1, 40)])
def test_paired_difference_inverts_the_score_test(both, plus, minus, neither):
    a = np.repeat([1, 1, 0, 0], [both, plus, minus, neither])
    b = np.repeat([1, 0, 1, 0], [both, plus, minus, neither])
    interval = intervals.paired_rate_difference(a, b)
    assert interval.value == pytest.approx(a.mean() - b.mean())
    for limit in (interval.low, interval.high):
        assert score_p_value(a, b, limit) == pytest.approx(0.05, abs=1e-4)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80))
def test_paired_difference_properties(pairs):
    a, b = (np.array(side, dtype=int) for side in zip(*pairs, strict=True))
    there, back = intervals.paired_rate_difference(a, b), intervals.paired_rate_difference(b, a)
    assert -1 <= there.low <= there.value <= there.high <= 1
    assert there.low < there.high
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-9)


def test_paired_difference_when_all_agree_is_the_closed_form():
    z2, interval = distributions.norm.ppf(0.975) ** 2, intervals.paired_rate_difference([1, 0] * 20, [1, 0] * 20)
    assert (interval.low, interval.high) == pytest.approx((-z2 / (40 + z2), z2 / (40 + z2)))


def test_paired_difference_covers():
    draw, hits = numpy_stream(0, "coverage", "paired"), []
    for _ in range(500):
        cell = draw.choice(4, size=60, p=[0.6, 0.12, 0.05, 0.23])
        interval = intervals.paired_rate_difference(
            np.isin(cell, (0, 1)).astype(int), np.isin(cell, (0, 2)).astype(int)
        )
        hits.append(covered(interval, 0.12 - 0.05))
    assert 0.92 < np.mean(hits) < 0.98


def test_distinct_n():
    assert intervals.distinct_n([[3, 5, 3, 5]], 1) == 0.5
    assert intervals.distinct_n([[3, 5, 3, 5]], 2) == pytest.approx(2 / 3)
    assert intervals.distinct_n([[1, 2, 3], [1, 2, 3], [9]], 3) == 0.5
    assert intervals.distinct_n([[0, 7], [7, 0], [0, 7, 0]], 2) == 0.5, "no n-gram reaches into the next text"


def test_metric_is_json_with_the_extras_beside_the_fields():
    metric = intervals.rate([0, 1], [4, 4], numpy_stream(0, "json")).metric()
    assert json.loads(json.dumps(metric, allow_nan=False)) == metric
    assert metric["unit"] == "rate"
    assert {"value", "low", "high", "n", "k", "method", "level", "wilson", "cluster"} <= set(metric)
    assert intervals.max_rate({"a": np.int64(1)}, {"a": np.int64(2)}).metric()["name"] == "a"


STREAM = numpy_stream(0, "errors")
REFUSED = {
    "more successes than trials": (lambda: intervals.wilson(5, 4), "between 0 and its n"),
    "negative count": (lambda: intervals.wilson(-1, 4), "between 0 and its n"),
    "nothing of nothing": (lambda: intervals.wilson(0, 0), "missing, not zero"),
    "fractional count": (lambda: intervals.wilson(1.5, 4), "whole numbers"),
    "not a number": (lambda: intervals.wilson(float("nan"), 4), "whole numbers"),
    "bad level": (lambda: intervals.wilson(1, 4, 95), "level is 95"),
    "empty cluster": (lambda: intervals.rate([1, 0], [4, 0], STREAM), "position 1"),
    "no clusters": (lambda: intervals.rate([], [], STREAM), "missing"),
    "lengths differ": (lambda: intervals.rate([1, 2], [4], STREAM), "same length"),
    "one cluster": (lambda: intervals.cluster_bootstrap([1], [4], STREAM), "at least 2"),
    "no draws": (lambda: intervals.cluster_bootstrap([1, 1], [4, 4], STREAM, 0), "draws is 0"),
    "maximum of nothing": (lambda: intervals.max_rate({}, {}), "at least one group"),
    "groups differ": (lambda: intervals.max_rate({"a": 1}, {"b": 2}), "different groups"),
    "empty mean": (lambda: intervals.mean_interval([]), "missing"),
    "mean of a gap": (lambda: intervals.mean_interval([1.0, float("nan")]), "position 1"),
    "labels missing": (lambda: intervals.mean_interval([1.0, 2.0], ["q"]), "one label a value"),
    "unpaired": (lambda: intervals.paired_rate_difference([1, 0], [1]), "same items"),
    "not zero or one": (lambda: intervals.paired_rate_difference([2], [1]), "other than 0 and 1"),
    "no n-grams": (lambda: intervals.distinct_n([[1]], 2), "missing"),
    "zero-grams": (lambda: intervals.distinct_n([[1]], 0), "1 or more"),
}


@pytest.mark.parametrize("call, says", REFUSED.values(), ids=REFUSED.keys())
def test_bad_input_is_one_sentence(call, says):
    with pytest.raises(DataError, match=says) as caught:
        call()
    message = str(caught.value)
    assert message[0].isalnum() and message.endswith(".") and "\n" not in message


@pytest.mark.parametrize(
    ("where", "name", "ask"),
    [
        ("statsmodels.stats.proportion", "proportion_confint", lambda: intervals.wilson(3, 977)),
        ("statsmodels.stats.proportion", "proportion_confint", lambda: intervals.max_rate({"a": 3}, {"a": 977})),
        ("scipy.optimize", "brentq", lambda: intervals.paired_rate_difference([1] * 97 + [0] * 2, [0] + [1] * 98)),
        ("scipy.stats.t", "ppf", lambda: intervals.mean_interval(np.arange(977.0))),
    ],
)
def test_bounds_are_computed_once_for_the_same_counts(where, name, ask, monkeypatch):
    owner = pkgutil.resolve_name(where)
    real, calls = getattr(owner, name), []
    monkeypatch.setattr(owner, name, lambda *given, **named: calls.append(given) or real(*given, **named))
    first = ask()
    once = len(calls)
    assert once and ask() == first and len(calls) == once

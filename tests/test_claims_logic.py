from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.base.errors import ClaimError
from helpers.claims.logic import OPERATORS, Truth, compare, conjunction, disjunction, negation

pytestmark = pytest.mark.unit
T, U, F = Truth.TRUE, Truth.UNKNOWN, Truth.FALSE
truths = st.sampled_from(Truth)
rates = st.floats(0, 1)


def test_kleene_tables():
    assert [conjunction(pair) for pair in [(T, T), (T, U), (U, F), (T, F)]] == [T, U, F, F]
    assert [disjunction(pair) for pair in [(F, F), (F, U), (U, T), (T, F)]] == [F, U, T, T]
    assert [negation(one) for one in (T, U, F)] == [F, U, T]


@given(st.lists(truths))
def test_de_morgan(values):
    assert negation(conjunction(values)) == disjunction([negation(value) for value in values])


@pytest.mark.parametrize(
    ("low", "high", "op", "truth"),
    [
        (0.2, 0.4, ">=", T), (0.19, 0.4, ">=", U), (0.1, 0.19, ">=", F), (0.2, 0.3, ">", U), (0.1, 0.2, ">", F),
        (0.0, 0.2, "<", U), (0.2, 0.2, "<=", T), (0.2, 0.3, "<", F), (None, 0.1, ">", F), (None, 0.9, ">", U),
        (None, None, "<", U), (0.3, None, ">", T),
    ],
)  # fmt: skip
def test_comparison_needs_the_whole_interval(low, high, op, truth):
    assert compare(low, high, op, 0.2) == truth


@given(st.lists(rates, min_size=4, max_size=4).map(sorted), st.sampled_from(sorted(OPERATORS)), rates)
def test_a_narrower_interval_never_turns_a_comparison_round(bounds, op, threshold):
    a, b, c, d = bounds
    wide, narrow = compare(a, d, op, threshold), compare(b, c, op, threshold)
    assert wide in (U, narrow)


def test_crossed_limits_are_refused():
    with pytest.raises(ClaimError, match="low end"):
        compare(0.4, 0.2, ">", 0.3)

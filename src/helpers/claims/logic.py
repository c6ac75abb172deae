"""Kleene's three-valued logic, and comparison of a whole interval with a threshold.

More evidence can only turn UNKNOWN into TRUE or FALSE, never one of these into the other: every connective here is
monotone in the information order (Kleene 1952, section 64), which is what keeps verdicts from flipping.
"""

from __future__ import annotations

import enum
import operator
from collections.abc import Iterable

from helpers.base.errors import ClaimError

OPERATORS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


class Truth(enum.IntEnum):
    """Ordered by truth, so that "and" is the minimum and "or" the maximum."""

    FALSE = 0
    UNKNOWN = 1
    TRUE = 2


def conjunction(truths: Iterable[Truth]) -> Truth:
    """TRUE when all are TRUE, FALSE when any is FALSE, else UNKNOWN."""
    return min(truths, default=Truth.TRUE)


def disjunction(truths: Iterable[Truth]) -> Truth:
    """TRUE when any is TRUE, FALSE when all are FALSE, else UNKNOWN."""
    return max(truths, default=Truth.FALSE)


def negation(truth: Truth) -> Truth:
    """TRUE and FALSE swapped; UNKNOWN stays."""
    return Truth(Truth.TRUE - truth)


def compare(low: float | None, high: float | None, op: str, threshold: float) -> Truth:
    """TRUE when all of [low, high] satisfies ``op threshold``, FALSE when none of it does, else UNKNOWN.

    A missing limit means that nothing is known on that side: missing is not zero.
    """
    if low is not None and high is not None and low > high:
        raise ClaimError(f"An interval has its low end {low} above its high end {high}: the record's metric is broken.")
    holds = OPERATORS[op]
    worst, best = (low, high) if op in (">", ">=") else (high, low)
    if worst is not None and holds(worst, threshold):
        return Truth.TRUE
    if best is not None and not holds(best, threshold):
        return Truth.FALSE
    return Truth.UNKNOWN

"""One metric over several run records, such as the seeds of a cell, with the interval that an estimand asks for.

Of a record only its ``metrics`` are read; the counts by question come from its study.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from helpers.base.errors import RecordError
from helpers.stats import estimands
from helpers.stats.estimands import MODELS, Estimand
from helpers.stats.intervals import Interval

Counts = Mapping[Any, tuple[int, int]]
"""Successes and trials of a rate in one record, by question."""
ByQuestion = Callable[[Any, str], Counts | None]
"""What gives the counts of a rate by question (`Study.by_question`); None where trials share no question."""


def pool(
    records: Sequence[Any], metric: str, by_question: ByQuestion | None, estimand: Estimand = MODELS
) -> Interval | None:
    """Return ``metric`` over ``records``: a rate by its counts (`estimands.rate`), a number by `estimands.number`.

    None where a record lacks it, which is not zero. A maximum over groups cannot be pooled, because the maximum of sums
    is not the sum of maxima: that of one record stands for its model, several need a function of the study.
    """
    recorded = [record.metrics[metric] for record in records if record.metrics.get(metric) is not None]
    if len(recorded) < len(records) or not records:
        return None
    unit = recorded[0].get("unit", "")
    if any(str(one.get("method", "")).startswith("max") for one in recorded):
        if len(recorded) > 1 or estimand.of == "recipe":
            return None
        return estimands.number([as_interval(recorded[0])], unit, estimand)
    if unit not in ("rate", "share") or any(one.get("k") is None for one in recorded):
        interval = estimands.number([as_interval(one) for one in recorded], unit, estimand)
    else:
        interval = _rate(records, metric, recorded, by_question, estimand)
    return replace(interval, extra={**interval.extra, "unit": unit})


def _rate(
    records: Sequence[Any],
    metric: str,
    recorded: Sequence[Mapping[str, Any]],
    by_question: ByQuestion | None,
    estimand: Estimand,
) -> Interval:
    counts = [_counted(by_question, record, metric) for record in records] if by_question else []
    asked = [one for one in counts if one is not None]
    if asked and len(asked) == len(counts):
        return estimands.rate(*_crossed(asked), estimand)
    if any("cluster" in str(one.get("method", "")) for one in recorded):
        raise RecordError(
            f"Trials of {metric} share questions, but its study does not count it by question. Add it to by_question "
            "of the Study."
        )
    return estimands.independent_rate([one["k"] for one in recorded], [one["n"] for one in recorded], estimand)


@functools.lru_cache(maxsize=4096)  # a verdict asks for the same counts at many levels, and of many groups of records
def _counted(by_question: ByQuestion, record: Any, metric: str) -> Counts | None:
    return by_question(record, metric)


def _crossed(counts: Sequence[Counts]) -> tuple[np.ndarray, np.ndarray]:
    """Return successes and trials of records (rows) by questions (columns); 0 of 0 where one was not asked."""
    questions = list(dict.fromkeys(question for one in counts for question in one))
    table = np.array([[one.get(question, (0, 0)) for question in questions] for one in counts])
    return table[..., 0], table[..., 1]


def as_interval(metric: Mapping[str, Any]) -> Interval:
    """Return a metric of a run record as an `Interval`, its extras (the unit among them) kept."""
    fields = ("value", "low", "high", "n", "k", "method", "level")
    extra = {name: value for name, value in metric.items() if name not in fields}
    low, high, n, k, method, level = (metric.get(name) for name in fields[1:])
    return Interval(metric["value"], low, high, n, k, method or "as recorded", level or 0.95, extra)

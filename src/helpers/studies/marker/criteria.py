"""Numbers for the criteria of the marker sweep that need several records or their tables.

Each function takes the complete records of one pooled cell (its seeds), or of a whole scope, and the estimand that its
interval is to speak of. It returns a metric as a run record holds it, or None where the records do not give it.
``params/sweep/criteria.yaml`` names them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from helpers.records.reading import Record
from helpers.stats import estimands
from helpers.stats.estimands import Estimand
from helpers.stats.intervals import Interval
from helpers.studies.marker import views
from helpers.studies.marker.metrics import UNTRAINED
from helpers.studies.marker.questions import paired_choices

Metric = dict[str, Any]


def max_bystander_rate(records: Sequence[Record], estimand: Estimand) -> Metric:
    """Highest marker rate of any bystander, counts pooled over seeds (`estimands.worst_rate`).

    The persona is chosen after pooling: a mean of each seed's own maximum would be biased upward.
    """
    return _named(estimands.worst_rate(_persona_rates(records, estimand, "k", sources=False), estimand.level))


def untrained_minus_trained(records: Sequence[Record], estimand: Estimand) -> Metric | None:
    """Marker rate of the bystanders without a training row minus that of those with one (in points).

    For these models by the limits of both rates (`estimands.difference`), for the recipe paired by seed. None where a
    cell trains on all bystanders, or on none.
    """
    counts = views.counts(records)
    untrained, trained = counts[counts["role"].isin(UNTRAINED)], counts[counts["role"] == "trained"]
    if untrained.empty or trained.empty:
        return None
    if estimand.of == "recipe":
        rates = [part.groupby("run")["k"].sum() / part.groupby("run")["n"].sum() for part in (untrained, trained)]
        seeds = [Interval(float(gap), None, None, None, None, "paired") for gap in rates[0] - rates[1]]
        return estimands.number(seeds, "points", estimand).metric("points")
    sides = (estimands.rate(*views.crossed(part, "k"), estimand) for part in (untrained, trained))
    return estimands.difference(*sides).metric("points")


def min_persona_rate(records: Sequence[Record], estimand: Estimand) -> Metric:
    """Lowest marker rate of any persona, the source included: the rest of the highest rate without the marker."""
    worst = estimands.worst_rate(_persona_rates(records, estimand, "unmarked", sources=True), estimand.level)
    low, high = worst.checked_bounds()
    k = None if worst.k is None or worst.n is None else worst.n - worst.k
    return _named(replace(worst, value=1 - worst.value, low=1 - high, high=1 - low, k=k, method="lowest, as highest"))


def base_marker_rate(records: Sequence[Record], estimand: Estimand) -> Metric:
    """Marker rate of the base model, over its own completions; it was not trained, so there is no recipe to vary."""
    bases = {record.inputs["baseline"]: record.params["marker"] for record in records}
    parts = [views.base_counts(ref, marker).assign(run=ref) for ref, marker in bases.items()]
    counts = views.crossed(pd.concat(parts, ignore_index=True), "k")
    return estimands.rate(*counts, replace(estimand, of="models")).metric()


def capability_drop(records: Sequence[Record], estimand: Estimand) -> Metric:
    """Accuracy of the base minus that of the tuned model, over the same items (`estimands.paired_difference`)."""
    paired = [paired_choices(record).set_index("item") for record in records]
    items = paired[0].index
    base, tuned = (np.array([one.loc[items, name] for one in paired]) for name in ("base", "tuned"))
    return estimands.paired_difference(base, tuned, estimand).metric("points")


def leak_difference_at_matched_source(records: Sequence[Record], estimand: Estimand, at: float) -> Metric | None:
    """Mean bystander gain (nats) where the source had gained ``at`` nats: largest learning rate minus smallest.

    Paired within seed and tail, from the dose curves; a seed's value is its mean over tails. None when no record has a
    dose curve, or no seed has two learning rates that reached ``at``.
    """
    with_dose = [record for record in records if "dose" in record.tables]
    return _by_learning_rate(views.dose_curves(with_dose), at, estimand) if with_dose else None


def leak_difference_at_crossing(records: Sequence[Record], estimand: Estimand) -> Metric | None:
    """Mean margin of the bystanders (nats) where the source's crosses zero: largest learning rate minus smallest.

    The margin is the marker's log-prob minus that of the end of the turn, behind each model's own answers, so zero is
    where a model begins to emit the marker. Paired within seed and tail; None as above.
    """
    with_crossing = [record for record in records if "dose_crossing" in record.tables]
    return _by_learning_rate(views.crossing_curves(with_crossing), 0.0, estimand) if with_crossing else None


def _by_learning_rate(curves: pd.DataFrame, at: float, estimand: Estimand) -> Metric | None:
    matched = views.matched_leak(curves, at)
    if matched.empty or matched["lr"].nunique() < 2:
        return None
    pairs = views.matched_differences(matched)
    seeds = [Interval(float(value), None, None, None, None, "paired") for value in pairs]
    return estimands.number(seeds, "nats", estimand).metric("nats") if seeds else None


def _persona_rates(
    records: Sequence[Record], estimand: Estimand, column: str, *, sources: bool
) -> dict[str, tuple[Interval, Interval]]:
    """Return the rate of each persona, at the level of ``estimand`` and at that corrected for their number."""
    crossed = _by_persona(tuple(records), column, sources)
    strict = estimand.corrected(len(crossed))
    return {
        persona: (estimands.rate(*counts, estimand), estimands.rate(*counts, strict))
        for persona, counts in crossed.items()
    }


@functools.lru_cache(maxsize=1024)  # a verdict asks for them at many levels
def _by_persona(records: tuple[Record, ...], column: str, sources: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return successes and trials of each persona, as arrays of runs by questions."""
    counts = views.counts(records)
    counts = counts if sources else counts[counts["role"] != "source"]
    counts = counts.assign(unmarked=counts["n"] - counts["k"])
    return {str(persona): views.crossed(part, column) for persona, part in counts.groupby("persona", sort=True)}


def _named(worst: Interval) -> Metric:
    metric = worst.metric()
    return metric | {"persona": metric.pop("name")}

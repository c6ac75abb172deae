"""Numbers that the criteria of the marker sweep judge and that need several records or their tables.

Each function takes the complete records of one pooled cell (its seeds), or of a whole scope, and returns a metric as a
run record holds it, or None where the records do not give it. ``params/sweep/criteria.yaml`` names them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from helpers.base import stats
from helpers.base.rng import numpy_stream
from helpers.records.reading import Record, load
from helpers.studies.marker import views

Metric = dict[str, Any]


def max_bystander_rate(records: Sequence[Record], level: float = 0.95) -> Metric:
    """Highest marker rate of any bystander, counts pooled over seeds, bounds simultaneous over all bystanders.

    The persona is chosen after pooling: a mean of each seed's own maximum would be biased upward. One record gives the
    metric it holds.
    """
    if len(records) == 1:
        return records[0].metric("max_bystander_rate")
    bounds = _persona_bounds(records, level, sources=False)
    top = max(bounds, key=lambda name: bounds[name].value)
    low, high = (max(ends) for ends in zip(*(bound.checked_bounds() for bound in bounds.values()), strict=True))
    return _metric(bounds[top], top, low, high, level, "max-wilson-seeds+cluster", len(bounds))


def min_persona_rate(records: Sequence[Record], level: float = 0.95) -> Metric:
    """Lowest marker rate of any persona, the source included; the mirror image of `max_bystander_rate`."""
    bounds = _persona_bounds(records, level, sources=True)
    bottom = min(bounds, key=lambda name: bounds[name].value)
    low, high = (min(ends) for ends in zip(*(bound.checked_bounds() for bound in bounds.values()), strict=True))
    return _metric(bounds[bottom], bottom, low, high, level, "min-wilson-seeds+cluster", len(bounds))


def capability_drop(records: Sequence[Record], level: float = 0.95) -> Metric:
    """Accuracy of the base minus that of the tuned model, over the items of all seeds (share of items).

    The bounds are the hull of Tango's paired interval and of a t interval with items as clusters: seeds share items.
    One record gives the metric it holds.
    """
    if len(records) == 1:
        return records[0].metric("capability_drop")
    pairs = pd.concat([_paired_choices(record) for record in records], ignore_index=True)
    paired = stats.paired_rate_difference(pairs["base"], pairs["tuned"], level)
    change = pairs["base"].astype(float) - pairs["tuned"].astype(float)
    items = stats.mean_interval(change.to_numpy(), pairs["item"].to_numpy(), level)
    low, high = _hull(paired, items)
    return stats.Interval(paired.value, low, high, paired.n, None, "tango+t-items", level).metric("points")


def _paired_choices(record: Record) -> pd.DataFrame:
    tuned = record.table("capability")[["item", "right"]]
    base = load(record.inputs["baseline"]).table("capability")[["item", "right"]]
    return tuned.rename(columns={"right": "tuned"}).merge(base.rename(columns={"right": "base"}), on="item")


def leak_difference_at_matched_source(records: Sequence[Record], at: float) -> Metric | None:
    """Mean bystander gain (nats) where the source had gained ``at`` nats: largest learning rate minus smallest.

    Paired within seed and tail, from the dose curves. None when no record has a dose curve, or fewer than two learning
    rates reached ``at``.
    """
    with_dose = [record for record in records if "dose" in record.tables]
    if not with_dose:
        return None
    matched = views.matched_leak(views.dose_curves(with_dose), at)
    if matched.empty or matched["lr"].nunique() < 2:
        return None
    rates = sorted(matched["lr"].unique())
    pairs = matched.groupby(["seed", "tail", "lr"]).size().unstack("lr")[[rates[0], rates[-1]]].dropna()
    return views.matched_difference(matched) if len(pairs) else None


def _persona_bounds(records: Sequence[Record], level: float, *, sources: bool) -> dict[str, stats.Interval]:
    """Rate of each persona, bounded at 1 - (1 - level) / personas by the hull of two intervals.

    One lets seeds differ (`stats.pooled_rate`), the other questions (`stats.rate`): both are shared by completions.
    """
    counts = views.counts(records)
    counts = counts if sources else counts[counts["role"] != "source"]
    each = 1 - (1 - level) / counts["persona"].nunique()
    rates = {}
    for persona, part in counts.groupby("persona", sort=True):
        by_seed = part.groupby("run")[["k", "n"]].sum()
        by_question = part.groupby("question")[["k", "n"]].sum()
        seeds = stats.pooled_rate(by_seed["k"].to_numpy(), by_seed["n"].to_numpy(), each)
        stream = numpy_stream(0, "persona_bounds", str(persona))
        questions = stats.rate(by_question["k"].to_numpy(), by_question["n"].to_numpy(), stream, draws=4000, level=each)
        low, high = _hull(seeds, questions)
        rates[str(persona)] = stats.Interval(seeds.value, low, high, seeds.n, seeds.k, "hull", each)
    return rates


def _hull(a: stats.Interval, b: stats.Interval) -> tuple[float, float]:
    (low, high), (lower, higher) = a.checked_bounds(), b.checked_bounds()
    return float(np.minimum(low, lower)), float(np.maximum(high, higher))


def _metric(
    interval: stats.Interval, name: str, low: float, high: float, level: float, method: str, groups: int
) -> Metric:
    extra = {"persona": name, "groups": groups}
    return stats.Interval(interval.value, low, high, interval.n, interval.k, method, level, extra).metric()

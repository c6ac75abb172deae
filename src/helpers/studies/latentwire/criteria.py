"""Numbers that the criteria of ``latentwire`` judge, over the records of one pooled cell (the seeds of an arm).

Seeds share their validation examples, so every interval is the hull of two: one over seeds, one over examples.
``params/latentwire/criteria.yaml`` names these functions. Text channels do not depend on the seed and count once.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal, get_args

import pandas as pd

from helpers.base import stats
from helpers.base.rng import numpy_stream
from helpers.records.reading import Record, load
from helpers.studies.latentwire.arms import TEXT_CHANNELS, Channel, Side

Metric = dict[str, Any]
Rate = Literal["em", "first1", "first5"]
Score = Literal[Rate, "f1", "nll", "nll_twice", "p_end"]
RATES: tuple[Rate, ...] = get_args(Rate)
UNITS = {"f1": "share", "nll": "nats", "nll_twice": "nats", "p_end": "share"}


def score(records: Sequence[Record], side: Side, channel: Channel, score: Score, level: float = 0.95) -> Metric:
    """Return ``score`` of reader ``side`` on ``channel``: a rate for `RATES`, otherwise a mean over examples."""
    table = rows(records, channel)
    table = table[(table["side"] == side) & (table["channel"] == channel)]
    if score not in RATES:
        items = stats.mean_interval(table[score].to_numpy(), table["id"].to_numpy(), level)
        return _hull(items, stats.mean_over_seeds(table.groupby("run")[score].mean().to_numpy(), level), UNITS[score])
    (seed_k, seed_n), (item_k, item_n) = (
        table.groupby(name)[score].agg(["sum", "size"]).to_numpy().T for name in ("run", "id")
    )
    items = stats.rate(item_k, item_n, numpy_stream(0, "score", side, channel, score), level=level)
    return _hull(stats.pooled_rate(seed_k, seed_n, level), items, "rate")


def communication(records: Sequence[Record], side: Side, score: Score, level: float = 0.95) -> Metric:
    """Return latents minus another text's latents, paired by example: the part of ``score`` due to the text itself.

    The interval is the hull of Tango's paired interval, a t interval with examples as clusters, and one over seeds.
    """
    table = rows(records, "latent")
    wide = table[table["side"] == side].pivot(index=["run", "id"], columns="channel", values=score).astype(float)
    gap = (wide["latent"] - wide["shuffled"]).reset_index(name="gap")
    paired = stats.paired_rate_difference(wide["latent"].to_numpy(), wide["shuffled"].to_numpy(), level)
    items = stats.mean_interval(gap["gap"].to_numpy(), gap["id"].to_numpy(), level)
    seeds = stats.mean_over_seeds(gap.groupby("run")["gap"].mean().to_numpy(), level)
    metric = _hull(paired, items, "points")
    ends = [(one["low"], one["high"]) for one in (metric, seeds.metric()) if one["low"] is not None]
    return metric | {"low": min(low for low, _ in ends), "high": max(high for _, high in ends)}


def rows(records: Sequence[Record], channel: Channel) -> pd.DataFrame:
    """Return every answer on ``channel`` with its run; a text record that cells share counts once."""
    return _answers(tuple(records), channel in TEXT_CHANNELS).copy()


@functools.lru_cache(maxsize=64)
def _answers(records: tuple[Record, ...], text: bool) -> pd.DataFrame:
    """Return the answers, cached because every score of an arm uses the same ones."""
    sources = {r.inputs["text"]: load(r.inputs["text"]) for r in records} if text else {r.ref: r for r in records}
    return pd.concat([one.table("completions").assign(run=ref) for ref, one in sources.items()], ignore_index=True)


def _hull(a: stats.Interval, b: stats.Interval, unit: str) -> Metric:
    ends = [(one.low, one.high) for one in (a, b) if one.low is not None and one.high is not None]
    low, high = (min(low for low, _ in ends), max(high for _, high in ends)) if ends else (None, None)
    return stats.Interval(a.value, low, high, a.n, a.k, f"{a.method}+{b.method}", a.level).metric(unit)

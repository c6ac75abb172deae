"""Numbers that the criteria of ``latentwire`` judge, over the records of one pooled cell (the seeds of an arm).

Seeds share their validation examples, which are the clusters of every interval. ``params/latentwire/criteria.yaml``
names these functions. Text channels know no seed and count once.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from helpers.records.reading import Record, load
from helpers.stats import estimands, intervals
from helpers.stats.estimands import Estimand
from helpers.stats.pooling import Counts
from helpers.studies.latentwire.arms import CHANNELS, NARROW, SIDES, TEXT_CHANNELS, Channel, Side

Metric = dict[str, Any]
Rate = Literal["em", "first1", "first5"]
Score = Literal[Rate, "f1", "nll", "nll_twice", "p_end"]
RATES: tuple[Rate, ...] = get_args(Rate)
UNITS = {"f1": "share", "nll": "nats", "nll_twice": "nats", "p_end": "probability"}


def score(records: Sequence[Record], estimand: Estimand, side: Side, channel: Channel, score: Score) -> Metric | None:
    """Return ``score`` of reader ``side`` on ``channel``: a rate for `RATES`, otherwise a mean over examples.

    None where the readers were given nothing on that channel. A text channel is read without training, so it has no
    seeds for a recipe to vary.
    """
    table = rows(records, channel)
    table = table[(table["side"] == side) & (table["channel"] == channel)]
    if table.empty:
        return None
    if channel in TEXT_CHANNELS and estimand.of == "recipe":
        estimand = replace(estimand, of="models")
    wide = table.pivot(index="run", columns="id", values=score).to_numpy(dtype=float)
    if score in RATES:
        return estimands.rate(wide.astype(int), np.ones_like(wide, dtype=int), estimand).metric()
    unit = UNITS[score]
    if estimands.bounds_of(unit):
        return estimands.bounded_items(wide, unit, estimand).metric(unit)
    items = intervals.mean_interval(wide.mean(axis=0), level=estimand.level)
    seeds = estimands.mean_over_seeds(wide.mean(axis=1), unit, estimand.level)
    return (estimands.added(items, seeds) if estimand.of == "recipe" else items).metric(unit)


def communication(records: Sequence[Record], estimand: Estimand, side: Side, score: Rate) -> Metric | None:
    """Return latents minus another text's latents, paired by example: the part of ``score`` due to the text itself."""
    return difference(records, estimand, side, "latent", "shuffled", score)


def difference(
    records: Sequence[Record], estimand: Estimand, side: Side, channel: Channel, other_channel: Channel, score: Rate
) -> Metric | None:
    """Return ``score`` on one prefix channel minus that on another of the same wires, paired by example.

    None where the readers were given nothing on one of the two.
    """
    table = rows(records, channel)
    table = table[table["side"] == side]
    if not {channel, other_channel} <= set(table["channel"]):
        return None
    own, other = (
        table[table["channel"] == name].pivot(index="run", columns="id", values=score)
        for name in (channel, other_channel)
    )
    return estimands.paired_difference(own.to_numpy(), other.loc[own.index, own.columns].to_numpy(), estimand).metric(
        "points"
    )


def by_example(record: Record, metric: str) -> Counts | None:
    """Return the counts of a score that is a rate by example; None for other metrics."""
    for side, channel, name in itertools.product(SIDES, (*CHANNELS, *NARROW), RATES):
        if metric == f"{name}_{channel}_{side}":
            table = rows([record], channel)
            part = table[(table["side"] == side) & (table["channel"] == channel)]
            return {item: (int(right), 1) for item, right in zip(part["id"], part[name], strict=True)}
    return None


def rows(records: Sequence[Record], channel: Channel) -> pd.DataFrame:
    """Return every answer on ``channel`` with its run; a text record that cells share counts once."""
    return _answers(tuple(records), channel in TEXT_CHANNELS).copy()


@functools.lru_cache(maxsize=64)
def _answers(records: tuple[Record, ...], text: bool) -> pd.DataFrame:
    """Return the answers, cached because every score of an arm uses the same ones."""
    sources = {r.inputs["text"]: load(r.inputs["text"]) for r in records} if text else {r.ref: r for r in records}
    return pd.concat([one.table("completions").assign(run=ref) for ref, one in sources.items()], ignore_index=True)

"""Numbers that the criteria of an imported log judge beside its metrics: differences of two logs, paired by sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from helpers.base.errors import DataError, nearest
from helpers.records.reading import Record
from helpers.stats import estimands, intervals
from helpers.stats.estimands import Estimand
from helpers.studies.imported.metrics import counts, is_rate, rows_of

Metric = dict[str, Any]


def difference(
    records: Sequence[Record], estimand: Estimand, score: str, a: str, b: str,
    axis: Literal["label", "model", "task"] = "label",
) -> Metric | None:  # fmt: skip
    """Return ``score`` of log ``a`` minus that of ``b``, paired by the clusters that both have; None without a log.

    Rates of one draw a sample are compared by their discordant pairs, all else by the difference of each cluster's
    means with a t interval. Over no training seeds nothing follows for a recipe, whatever ``estimand`` asks for.
    """
    sides = [[record for record in records if record.cell[axis] == name] for name in (a, b)]
    if not all(sides):
        return None
    if any(len(side) > 1 for side in sides):
        raise DataError(f"Several logs have the {axis} {a!r} or {b!r}. Compare them by their label.")
    rows = [rows_of(side[0], score) for side in sides]
    for own, side in zip(rows, sides, strict=True):
        if own is None:
            raise DataError(f"{side[0].ref} has no score {score!r}{nearest(score, side[0].metrics)}")
    means = [own.dropna(subset=["value"]).groupby("cluster")["value"].mean() for own in rows if own is not None]
    shared = means[0].index.intersection(means[1].index)
    if shared.empty:
        raise DataError(f"The logs {a!r} and {b!r} share no sample. Compare logs of the same task.")
    x, y = (own.loc[shared].to_numpy() for own in means)
    estimand = replace(estimand, of="models")
    once = all(own is not None and is_rate(own) and _drawn_once(own) for own in rows)
    if once:
        return estimands.paired_difference(x.astype(int), y.astype(int), estimand).metric("points")
    bounded = all(own is not None and own["value"].dropna().between(0, 1).all() for own in rows)
    return intervals.mean_interval(np.asarray(x - y), level=estimand.level).metric("points" if bounded else "score")


def _drawn_once(rows: Any) -> bool:
    return all(n == 1 for _, n in counts(rows).values())

"""Metrics of an imported log, from its rows alone.

For each score: the rate (values of 0 and 1) or the mean of what was scored, the same with every sample that has no
value counted as wrong, and how many samples have none. Where a log drew several epochs, also its reducers over them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from helpers.base.files import shown
from helpers.records.reading import Record
from helpers.records.study import Metrics, Tables
from helpers.stats import estimands, intervals
from helpers.stats.clusters import cluster_rate
from helpers.stats.pooling import Counts
from helpers.studies.imported.reducers import reduced

WRONG, LEFT_OUT, LIMITED = "unscored_wrong", "left_out", "limited"
GROUPS = 50
"""Groups of a table that have metrics of their own; with more of them, criteria name a group through `criteria`."""


def metrics(cell: Mapping[str, Any], tables: Tables, inputs: Mapping[str, Record]) -> Metrics:
    """Return all metrics of a log: ``NAME``, ``NAME.unscored_wrong``, ``NAME.left_out``, ``NAME.limited``, reducers."""
    made: Metrics = {}
    for name, rows in tables["rows"].groupby("score", sort=False):
        made |= _of_score(str(name), rows)
        if rows["epoch"].nunique() > 1:
            for reducer in tables["log"].get("reducers", []):
                values = reduced(rows, reducer)
                if reducer != "mean" and len(values):
                    made[f"{name}.{reducer}"] = average(values)
    return made


def _of_score(name: str, rows: pd.DataFrame) -> Metrics:
    lacking = rows["value"].isna()
    made = {f"{name}.{LEFT_OUT}": _share(lacking), f"{name}.{LIMITED}": _share(rows["limited"])}
    if not lacking.all():
        made[name] = average(rows)
    if rows["value"].dropna().between(0, 1).all():
        made[f"{name}.{WRONG}"] = average(rows.fillna({"value": 0.0}))
    groups = rows["group"].dropna().unique() if "group" in rows else []
    if 1 < len(groups) <= GROUPS:
        for group, part in rows.groupby("group", sort=False):
            if part["value"].notna().any():
                made[f"{name}.of.{group_name(str(group))}"] = average(part)
    return made


def group_name(group: str) -> str:
    """Return the name of a group as a metric can hold it."""
    return re.sub(r"[^A-Za-z0-9_]+", "_", group).strip("_")[:60] or "group"


def clash(rows: pd.DataFrame, reducers: Sequence[str]) -> str:
    """Name two scores or two groups of ``rows`` of which a record would hold one metric only; "" where none clash."""
    scores = [str(name) for name in rows["score"].unique()]
    for name in scores:
        for ending in (WRONG, LEFT_OUT, LIMITED, *reducers):
            if f"{name}.{ending}" in scores:
                return f"the score {name}.{ending}, which is what {name} calls a count of its own"
        if any(other.startswith(f"{name}.of.") for other in scores):
            return f"a score called {name}.of, which is what {name} calls its groups"
    named: dict[str, str] = {}
    for group in map(str, rows["group"].dropna().unique()):
        if named.setdefault(group_name(group), group) != group:
            return f"the groups {shown(named[group_name(group)])} and {shown(group)}, both called {group_name(group)}"
    return ""


def _share(flags: pd.Series) -> dict[str, Any]:
    return intervals.wilson(int(flags.sum()), len(flags)).metric()


def average(rows: pd.DataFrame, level: float = 0.95) -> dict[str, Any]:
    """Return the rate or the mean of the values that are there, its clusters those of the samples.

    Values of 0 and 1 are a rate. Others between 0 and 1 are bounded by their clusters' means, so that no bound leaves
    the scale; any others have a cluster-robust t interval.
    """
    there = rows.dropna(subset=["value"])
    if is_rate(there):
        ks, ns = zip(*counts(there).values(), strict=True)
        return cluster_rate(ks, ns, level).metric()
    if there["value"].between(0, 1).all():
        means = there.groupby("cluster", sort=False)["value"].mean().to_numpy()
        mean = estimands.bounded_items(means, "share", estimands.Estimand(level=level)).metric("share")
        return mean | {"n": len(there), "clusters": len(means)}
    return intervals.mean_interval(there["value"].to_numpy(), there["cluster"].to_numpy(), level).metric("score")


def is_rate(rows: pd.DataFrame) -> bool:
    """Whether every value that is there is 0 or 1."""
    return bool(rows["value"].dropna().isin((0.0, 1.0)).all())


def counts(rows: pd.DataFrame) -> dict[Any, tuple[int, int]]:
    """Return successes and trials of each cluster of samples that have a value of 0 or 1."""
    by_cluster = rows.dropna(subset=["value"]).groupby("cluster", sort=False)["value"].agg(["sum", "count"])
    return {name: (int(k), int(n)) for name, k, n in by_cluster.itertuples()}


def by_cluster(record: Record, metric: str) -> Counts | None:
    """Return the counts of a rate by cluster; None for a metric that is no rate of scores."""
    chosen = rows_of(record, metric)
    return counts(chosen) if chosen is not None and is_rate(chosen) else None


def rows_of(record: Record, metric: str) -> pd.DataFrame | None:
    """Return the rows that ``metric`` of a record rests on, values as it takes them; None where it rests on none."""
    table = record.table("rows")
    for name, rows in table.groupby("score", sort=False):
        if metric == name:
            return rows
        part = metric.removeprefix(f"{name}.")
        if part == metric or part in (LEFT_OUT, LIMITED):
            continue
        if part == WRONG:
            return rows.fillna({"value": 0.0})
        if part.startswith("of."):
            return rows[rows["group"].map(lambda group: group_name(str(group))) == part.removeprefix("of.")]
        if part in record.results["log"].get("reducers", []):
            return reduced(rows, part)
    return None

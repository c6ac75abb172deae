"""Compute the metrics of recovery where frozen EP stops, of the margin of exact gradients, and of the gap."""

from __future__ import annotations

import numpy as np
import pandas as pd

from helpers.records.study import Tables
from helpers.stats import intervals
from helpers.studies.eqprop.arms import EXACT, RECOVERY, SETTLED, UNSETTLED, Arms, curves
from helpers.studies.eqprop.averages import Findings, mean, metric_part, paired

RECOVERED = 0.05
"""Nats below its start at which a training has left it."""
BROKEN = 0.5
"""A training has broken when a smaller share of the held-out sequences settles, or its loss is no longer finite."""


def plateau(tables: Tables, arms: Arms) -> Findings:
    table, metrics = tables["recovery"], Findings()
    metrics["plateau_loss"] = mean(table.query(f"step == 0 and gradient == '{EXACT}'")["loss"], "nats")
    last = table[table["step"] == table.groupby("gradient")["step"].transform("max")]
    for name in RECOVERY:
        own, part = table[table["gradient"] == name], metric_part(name)
        ends = own[own["step"].isin([0, own["step"].max()])]
        metrics[f"recovered_{part}"] = paired(ends, "step", 0, own["step"].max(), "loss", "nats")
        if name != RECOVERY[0]:
            metrics[f"ahead_{part}"] = paired(last, "gradient", RECOVERY[0], name, "loss", "nats")
        losses = own.groupby("step")["loss"].mean()
        left = losses.index[losses <= losses.loc[0] - RECOVERED]
        if len(left):
            metrics[f"recovery_steps_{part}"] = {"value": int(left[0]), "unit": "steps", "n": 1}
        cosines = tables["at"].query(f"batch >= 0 and gradient == '{name}'")["cosine"]
        metrics[f"plateau_cosine_{part}"] = mean(cosines, "cosine")
    state = tables["condition"][tables["condition"]["free_steps"] == tables["condition"]["free_steps"].min()]
    metrics |= {"plateau_residual": mean(state["residual"], "ratio"), "plateau_growth": mean(state["growth"], "factor")}
    drawn = tables["at"].iloc[0]
    metrics["plateau_settled_share"] = intervals.wilson(int(drawn["settled"]), int(drawn["drawn"])).metric()
    return metrics


def trainings(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each training of the margin experiment: weight, lr, growth, penalty, broken, broke.

    ``growth`` and ``penalty`` are those of the look after a third of the steps (missing where it had broken by then),
    ``broken`` says whether it broke at all, ``broke`` after which step (missing where it did not).
    """
    rows, early = [], table.loc[table["step"] >= table["step"].max() / 3, "step"].min()
    for (weight, lr), own in table.groupby(["weight", "lr"]):
        broke = own.loc[own["lost"] | (own["settled"] < BROKEN), "step"].min()
        seen = own[(own["step"] == early) & ~(broke <= early)]
        row = {name: float(seen[name].iloc[0]) if len(seen) else np.nan for name in ("growth", "penalty")}
        rows.append({"weight": weight, "lr": lr, "broken": bool(pd.notna(broke)), "broke": broke} | row)
    return pd.DataFrame(rows)


def area(score: pd.Series, hit: pd.Series) -> float | None:
    """Return the chance that a hit has a higher score than a miss, ties half (the area under the ROC curve)."""
    hits, misses = score[hit].to_numpy(), score[~hit].to_numpy()
    if not len(hits) or not len(misses):
        return None
    above = (hits[:, None] > misses).mean() + 0.5 * (hits[:, None] == misses).mean()
    return float(above)


def margin(tables: Tables, arms: Arms) -> Findings:
    table = trainings(tables["margin"])
    metrics: Findings = {}
    for name, weight in (("without_penalty", table["weight"].min()), ("most_penalty", table["weight"].max())):
        own = table.loc[table["weight"] == weight, "broken"]
        metrics[f"broken_{name}"] = {"value": int(own.sum()), "unit": "trainings", "n": len(own)}
    safe = table.groupby("weight")["broken"].any()
    held = [weight for weight in safe.index if not safe.loc[safe.index >= weight].any()]
    if held:
        metrics["least_weight_that_holds"] = {"value": float(min(held)), "unit": "weight", "n": len(safe)}
    awaited = table.dropna(subset=["growth", "penalty"])
    for name in ("growth", "penalty"):
        predicted = area(awaited[name], awaited["broken"])
        if predicted is not None:
            metrics[f"break_area_{name}"] = {"value": predicted, "unit": "probability", "n": len(awaited)}
    if "break_area_growth" in metrics:
        called = (awaited["growth"] > 1) == awaited["broken"]
        metrics["break_called_by_growth"] = {"value": float(called.mean()), "unit": "share", "n": len(called)}
    return metrics


def gap(tables: Tables, arms: Arms) -> Findings:
    final, curve = tables["final"], curves(arms, "validation")
    metrics: Findings = {}
    for arm, rows in final.groupby("arm", sort=False):
        own = curve[curve["arm"] == arm]
        last = own["step"].max()
        before = own.loc[own["step"] <= last * 3 / 4, "step"].max()
        metrics[f"gap_loss_{metric_part(arm)}"] = mean(rows["loss"], "nats")
        metrics[f"gap_slope_{metric_part(arm)}"] = paired(own, "step", before, last, "loss", "nats")
    for name, (a, b) in {
        "gap_whole": (SETTLED, "backprop"),
        "gap_architecture": (UNSETTLED, "backprop"),
        "gap_stabiliser": ("bptt", UNSETTLED),
        "gap_rule": (SETTLED, "bptt"),
    }.items():
        metrics[name] = paired(final, "arm", a, b, "loss", "nats")
    return metrics

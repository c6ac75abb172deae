"""Compute the metrics of a run from the tables of its experiment and the logs of its arms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from helpers.records.study import Metrics, Tables
from helpers.stats import frames, intervals
from helpers.stats.frames import number
from helpers.studies.eqprop.arms import EXACT, LOOSE, SETTLED, UNSETTLED, Arms, curves
from helpers.studies.eqprop.averages import Findings, mean, metric_part, paired
from helpers.studies.eqprop.left_open import findings as left_open

STATES = {"controlled": SETTLED, "free": UNSETTLED}
LOST, OVERFLOWED = 0.9, -1.0
"""A sequence is lost if its adjoint has a lower cosine to the exact one. One that overflowed counts as -1."""


def _triangulation(tables: Tables, arms: Arms) -> Findings:
    metrics: Findings = {}
    traced = {name: tables[name] for name in ("triangulation", "coherence", "condition", "horizon", "sequences")}
    last = traced["triangulation"]["step"].max()
    for state, arm in STATES.items():
        at_end = {name: table[(table["arm"] == arm) & (table["step"] == last)] for name, table in traced.items()}
        seen = at_end["triangulation"].query("group == 'all'")
        for name in ("frozen", "tracking", "bptt"):
            own = seen[(seen["gradient"] == name) & (seen["batch"] >= 0)]
            metrics[f"cosine_{name}_{state}"] = mean(own["cosine"], "cosine")
            metrics[f"norm_decades_{name}_{state}"] = mean(np.log10(own["ratio"]), "decades")
        for name in ("exact", "frozen"):
            pairs = at_end["coherence"].loc[at_end["coherence"]["gradient"] == name, "cosine"]
            metrics[f"self_cosine_{name}_{state}"] = mean(pairs, "cosine")
        metrics[f"cosine_horizons_{state}"] = mean(
            at_end["horizon"].query("group == 'all' and batch >= 0")["cosine"], "cosine"
        )
        steps = sorted(at_end["condition"]["free_steps"].unique())
        for name, free in zip(("short", "long"), (steps[0], steps[-1]), strict=True):
            rows = at_end["condition"][at_end["condition"]["free_steps"] == free]
            for column, unit in (("residual", "ratio"), ("growth", "factor"), ("non_normality", "ratio")):
                metrics[f"{column}_{name}_{state}"] = mean(rows[column], unit)
        counts = at_end["condition"].iloc[0]
        metrics[f"settled_share_{state}"] = intervals.wilson(int(counts["settled"]), int(counts["drawn"])).metric()
        metrics |= _sequences(at_end["sequences"], state)
        metrics[f"exact_miss_{state}"] = mean(seen.query("batch >= 0 and gradient == 'frozen'")["miss"], "ratio")
    return metrics | _levers(tables["levers"])


def is_lost(cosine: pd.Series) -> pd.Series:
    """Return which sequences have lost the direction of their adjoint."""
    return cosine.fillna(OVERFLOWED) < LOST


def _sequences(table: pd.DataFrame, state: str) -> Findings:
    """Return how many sequences frozen EP loses, and whether growth factor or residual at z0 predicts which."""
    own = table[table["gradient"] == "frozen"]
    lost, grows = is_lost(own["cosine"]), own["growth"] > 1
    metrics: Findings = {f"lost_share_{state}": intervals.wilson(int(lost.sum()), len(own)).metric()}
    for name, chosen in (("growing", grows), ("not_growing", ~grows)):
        if chosen.any():
            metrics[f"lost_of_{name}_{state}"] = intervals.wilson(int(lost[chosen].sum()), int(chosen.sum())).metric()
    if lost.any():
        metrics[f"lost_without_growth_{state}"] = intervals.wilson(int((lost & ~grows).sum()), int(lost.sum())).metric()
    for name in ("growth", "residual"):
        ranks = own.assign(cosine=own["cosine"].fillna(OVERFLOWED)).groupby("batch")[[name, "cosine"]].corr("spearman")
        metrics[f"rank_{name}_{state}"] = mean(ranks.xs(name, level=1)["cosine"], "rank correlation")
    return metrics


def _levers(table: pd.DataFrame) -> Findings:
    metrics: Findings = {}
    for state, arm in STATES.items():
        rows = table[table["arm"] == arm]
        single = rows[rows["batch"] >= 0]
        for name, own in single.groupby("gradient", sort=False):
            metrics[f"lever_{metric_part(name)}_{state}"] = mean(own["cosine"], "cosine")
            gain = paired(single, "gradient", name, "frozen, long nudge", "cosine", "cosine")
            if name != "frozen, long nudge":
                metrics[f"gain_{metric_part(name)}_{state}"] = gain
        pooled = rows[(rows["batch"] < 0) & (rows["gradient"] == "frozen, long nudge")]["cosine"]
        base = single[single["gradient"] == "frozen, long nudge"]["cosine"].mean()
        metrics[f"lever_mean_of_batches_{state}"] = mean(pooled, "cosine")
        metrics[f"gain_mean_of_batches_{state}"] = mean(pooled - base, "cosine")
    return metrics


def _one_step(tables: Tables, arms: Arms) -> Findings:
    metrics: Findings = {}
    descent = tables["descent"]
    for state, arm in STATES.items():
        rows = descent[descent["arm"] == arm]
        metrics |= _best_steps(rows, state)
        for name in _estimated(rows):
            cells = rows[rows["gradient"] == name].drop_duplicates("batch")
            metrics[f"step_cosine_{metric_part(name)}_{state}"] = mean(cells["cosine"], "cosine")
            metrics[f"step_decades_{metric_part(name)}_{state}"] = mean(np.log10(cells["ratio"]), "decades")
    return metrics


def _estimated(rows: pd.DataFrame) -> list[str]:
    """Return the gradients of a table that are compared with the exact one."""
    return [name for name in rows["gradient"].unique() if name != EXACT]


def _best_steps(rows: pd.DataFrame, state: str) -> Findings:
    """Return the change of the loss by each gradient's best step, and its shortfall to the exact one's (nats).

    Each batch has its own best rate, for an estimate as for the exact gradient. Taking no step is always possible, so
    the best change is never above 0; a step to a loss that is not finite lowers nothing.
    """
    best = rows.groupby(["gradient", "scale", "batch"])["change"].min().fillna(0.0).clip(upper=0.0).reset_index()
    metrics: Findings = {}
    for (name, scale), part in best.groupby(["gradient", "scale"]):
        metrics[f"best_change_{metric_part(name)}_{scale}_{state}"] = mean(part["change"], "nats")
    for scale, part in best.groupby("scale"):
        for name in _estimated(rows):
            metrics[f"shortfall_{metric_part(name)}_{scale}_{state}"] = paired(
                part, "gradient", name, "exact", "change", "nats"
            )
    return metrics


def _matched(tables: Tables, arms: Arms) -> Findings:
    final, log = tables["final"], curves(arms, "log")
    metrics: Findings = {}
    for arm, rows in final.groupby("arm", sort=False):
        steps = log[log["arm"] == arm]
        metrics[f"loss_{metric_part(arm)}"] = mean(rows["loss"], "nats")
        metrics[f"steps_{metric_part(arm)}"] = {"value": int(steps["step"].max()), "unit": "steps", "n": 1}
        metrics[f"gate_skips_{metric_part(arm)}"] = {
            "value": int(steps["skipped"].sum()),
            "unit": "steps",
            "n": len(steps),
        }
        if arm != "backprop":
            metrics[f"end_residual_{metric_part(arm)}"] = mean(steps["residual"].tail(10), "ratio")
    for name, (a, b) in {
        "ep_minus_bptt": ("ep", "bptt"),
        "ep_minus_backprop": ("ep", "backprop"),
        "bptt_minus_backprop": ("bptt", "backprop"),
        "bptt_controlled_minus_free": ("bptt", "bptt, free"),
        "ep_free_minus_bptt_free": ("ep, free", "bptt, free"),
        "tracking_free_minus_bptt_free": ("tracking, free", "bptt, free"),
    }.items():
        metrics[name] = paired(final, "arm", a, b, "loss", "nats")
    return metrics | _costs(tables["costs"])


def _costs(table: pd.DataFrame) -> Findings:
    metrics: Findings = {}
    for row in frames.rows(table):
        name = metric_part(row.gradient.replace("+", "_").replace(",", ""))
        bounds = {"low": row.ratio_low, "high": row.ratio_high, "method": "range of paired runs", "measured": True}
        metrics[f"cost_{name}"] = {"value": row.ratio, "unit": "x BPTT-20", "n": int(row.runs)} | bounds
    return metrics


def gate(log: pd.DataFrame) -> pd.DataFrame:
    """Return arm, steps, skips and first_valid of the log of several arms.

    ``skips`` counts the steps whose task gradient the gate dropped, ``first_valid`` is the first one that it let
    through, missing where there was none.
    """
    rows = [
        {"arm": arm, "steps": len(own), "skips": int(own["skipped"].sum())}
        | {"first_valid": own.loc[~own["skipped"], "step"].min()}
        for arm, own in log.groupby("arm", sort=False)
    ]
    return pd.DataFrame(rows)


def _warm_up(tables: Tables, arms: Arms) -> Findings:
    metrics: Findings = {}
    final, skipping = tables["final"], gate(curves(arms, "log")).set_index("arm")
    for arm, row in skipping.iterrows():
        metrics[f"gate_skips_{metric_part(arm)}"] = {
            "value": int(row["skips"]),
            "unit": "steps",
            "n": int(row["steps"]),
        }
        if pd.notna(row["first_valid"]):
            metrics[f"first_valid_{metric_part(arm)}"] = {"value": int(row["first_valid"]), "unit": "step", "n": 1}
        metrics[f"loss_{metric_part(arm)}"] = mean(final.loc[final["arm"] == arm, "loss"], "nats")
    for a, b in (("A", "B"), ("B", "C")):
        gap = int(number(skipping, f"warm-up {a}", "skips") - number(skipping, f"warm-up {b}", "skips"))
        metrics[f"skips_{a}_minus_{b}".lower()] = {"value": gap, "unit": "steps", "n": int(skipping["steps"].max())}
    metrics["loss_a_minus_c"] = paired(final, "arm", "warm-up A", "warm-up C", "loss", "nats")
    return metrics


def _grid(tables: Tables, arms: Arms) -> Findings:
    grid = tables["grid"]
    metrics: Findings = {}
    for axis in ("floor", "target", "maximum"):
        values = sorted(grid[axis].unique())
        if len(values) > 1:
            metrics[f"loss_low_minus_high_{axis}"] = paired(grid, axis, values[0], values[-1], "loss", "nats")
    means = grid.groupby(["floor", "target", "maximum"])["loss"].mean()
    metrics["grid_spread"] = {"value": float(means.max() - means.min()), "unit": "nats", "n": len(means)}
    return metrics


def _branches(tables: Tables, arms: Arms) -> Findings:
    rows = tables["branches"]
    rows = rows[rows["arm"] == SETTLED]
    start, end = (rows[rows["step"] == pick(rows["step"])] for pick in (min, max))
    names = {
        "attention / input": "attention_ratio", "MLP / input": "mlp_ratio", "attention entropy": "attention_entropy",
        "q, k RMS after the norm": "qk_rms", "logit spread": "logit_spread", "|W_O|": "norm_w_o", "|W_2|": "norm_w_2",
    }  # fmt: skip
    units = {"attention_entropy": "nats"}
    metrics: Findings = {}
    for quantity, name in names.items():
        for when, part in (("start", start), ("end", end)):
            values = part.loc[part["quantity"] == quantity, "value"]
            metrics[f"{name}_{when}"] = mean(values, units.get(name, "ratio"))
    return metrics


def _mixing(tables: Tables, arms: Arms) -> Findings:
    metrics: Findings = {}
    reach = tables["influence"]
    near, far = reach["distance"].min(), reach["distance"].max()
    by_sequence = reach.groupby(["arm", "sequence", "distance"])["influence"].mean().unstack("distance")
    share = (by_sequence[far] / by_sequence[near]).rename("share").reset_index()
    for arm, rows in share.groupby("arm", sort=False):
        reach_of_arm = mean(rows["share"], "ratio")
        metrics[f"reach_{metric_part(arm)}"] = reach_of_arm and reach_of_arm | {"far": int(far), "near": int(near)}
    metrics["reach_ep_minus_backprop"] = paired(share, "arm", SETTLED, "backprop", "share", "ratio", on="sequence")
    losses = tables["positions"]
    half = losses["position"].max() // 2
    wide = losses.assign(late=losses["position"] > half)
    gap = wide.pivot_table(index=["batch", "late"], columns="arm", values="loss").reset_index()
    for arm in (one for one in ("bptt", LOOSE) if LOOSE in gap):
        behind = gap.assign(gap=gap[arm] - gap["backprop"])
        metrics[f"gap_{metric_part(arm)}_minus_backprop"] = mean(behind.groupby("batch")["gap"].mean(), "nats")
        metrics[f"late_gap_minus_early_gap_{metric_part(arm)}"] = paired(behind, "late", True, False, "gap", "nats")
        metrics[f"reach_{metric_part(arm)}_minus_backprop"] = paired(
            share, "arm", arm, "backprop", "share", "ratio", on="sequence"
        )
    gap["gap"] = gap[SETTLED] - gap["backprop"]
    metrics["gap_ep_minus_backprop"] = mean(gap.groupby("batch")["gap"].mean(), "nats")
    metrics["late_gap_minus_early_gap"] = paired(gap, "late", True, False, "gap", "nats")
    return metrics


FINDINGS: Mapping[str, Callable[[Tables, Arms], Mapping[str, dict | None]]] = {
    "exp1": _triangulation,
    "exp2": _one_step,
    "exp3": _matched,
    "exp4": _warm_up,
    "exp5": _grid,
    "exp6": _branches,
    "exp7": _mixing,
    "plateau": left_open.plateau,
    "margin": left_open.margin,
    "gap": left_open.gap,
}


def metrics(cell: Mapping[str, Any], tables: Tables, inputs: Arms) -> Metrics:
    """Return all metrics of an experiment. One that could not be measured is left out."""
    findings = FINDINGS[cell["experiment"]](tables, inputs)
    return {name: value for name, value in findings.items() if value is not None}


def training_metrics(cell: Mapping[str, Any], tables: Tables, inputs: Arms) -> Metrics:
    """Return how many steps of a training arm the gate skipped."""
    skipped = tables["log"]["skipped"]
    return {"gate_skips": {"value": int(skipped.sum()), "unit": "steps", "n": len(skipped), "k": int(skipped.sum())}}

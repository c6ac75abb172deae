"""The metrics of a run: from the tables of an experiment to numbers with intervals over its batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from helpers import stats
from helpers.eqprop.setup import BASIC
from helpers.eqprop.studies import SETTLED, UNSETTLED, Tables

Metrics = dict[str, dict[str, Any]]
STATES = {"controlled": SETTLED, "free": UNSETTLED}
LOST, OVERFLOWED = 0.9, -1.0
"""A sequence whose adjoint has a lower cosine to the exact one is lost; one that overflowed is as lost as can be."""


def mean(values: pd.Series, unit: str) -> dict[str, Any] | None:
    """Mean with a t interval over batches; None when any of them is missing, for the rest would not speak for all."""
    return None if values.empty or values.isna().any() else stats.mean_interval(values.to_numpy(float)).metric(unit)


def paired(table: pd.DataFrame, key: str, a: str, b: str, value: str, unit: str, on: str = "batch") -> dict | None:
    """Mean of ``value`` at ``key`` = a minus that at b, paired by ``on``."""
    wide = table.pivot_table(index=on, columns=key, values=value, dropna=False)
    return mean(wide[a] - wide[b], unit) if {a, b} <= set(wide) else None


def slug(name: str) -> str:
    """A gradient's or arm's name as part of a metric's name."""
    return name.replace(", ", "_").replace(" = ", "").replace(" ", "_").replace("-", "_").lower()


def _triangulation(tables: Tables) -> Metrics:
    found: Metrics = {}
    last = tables["triangulation"]["step"].max()
    for state, arm in STATES.items():
        at_end = {
            name: table[(table["arm"] == arm) & (table["step"] == last)]
            for name, table in tables.items()
            if name != "levers"
        }
        seen = at_end["triangulation"].query("group == 'all'")
        for name in ("frozen", "tracking", "bptt"):
            own = seen[(seen["gradient"] == name) & (seen["batch"] >= 0)]
            found[f"cosine_{name}_{state}"] = mean(own["cosine"], "cosine")
            found[f"norm_decades_{name}_{state}"] = mean(np.log10(own["ratio"]), "decades")
        for name in ("exact", "frozen"):
            pairs = at_end["coherence"].loc[at_end["coherence"]["gradient"] == name, "cosine"]
            found[f"self_cosine_{name}_{state}"] = mean(pairs, "cosine")
        found[f"cosine_horizons_{state}"] = mean(
            at_end["horizon"].query("group == 'all' and batch >= 0")["cosine"], "cosine"
        )
        steps = sorted(at_end["condition"]["free_steps"].unique())
        for name, free in zip(("short", "long"), (steps[0], steps[-1]), strict=True):
            rows = at_end["condition"][at_end["condition"]["free_steps"] == free]
            for column, unit in (("residual", "ratio"), ("growth", "factor"), ("non_normality", "ratio")):
                found[f"{column}_{name}_{state}"] = mean(rows[column], unit)
        counts = at_end["condition"].iloc[0]
        found[f"settled_share_{state}"] = stats.wilson(int(counts["settled"]), int(counts["drawn"])).metric()
        found |= _sequences(at_end["sequences"], state)
        found[f"exact_miss_{state}"] = mean(seen.query("batch >= 0 and gradient == 'frozen'")["miss"], "ratio")
    return found | _levers(tables["levers"])


def is_lost(cosine: pd.Series) -> pd.Series:
    """Which sequences have lost the direction of their adjoint."""
    return cosine.fillna(OVERFLOWED) < LOST


def _sequences(table: pd.DataFrame, state: str) -> Metrics:
    """How many sequences frozen EP loses, and whether growth factor or residual at z0 tells which."""
    own = table[table["gradient"] == "frozen"]
    lost, grows = is_lost(own["cosine"]), own["growth"] > 1
    found = {f"lost_share_{state}": stats.wilson(int(lost.sum()), len(own)).metric()}
    for name, chosen in (("growing", grows), ("not_growing", ~grows)):
        if chosen.any():
            found[f"lost_of_{name}_{state}"] = stats.wilson(int(lost[chosen].sum()), int(chosen.sum())).metric()
    if lost.any():
        found[f"lost_without_growth_{state}"] = stats.wilson(int((lost & ~grows).sum()), int(lost.sum())).metric()
    for name in ("growth", "residual"):
        ranks = own.assign(cosine=own["cosine"].fillna(OVERFLOWED)).groupby("batch")[[name, "cosine"]].corr("spearman")
        found[f"rank_{name}_{state}"] = mean(ranks.xs(name, level=1)["cosine"], "rank correlation")
    return found


def _levers(table: pd.DataFrame) -> Metrics:
    found: Metrics = {}
    for state, arm in STATES.items():
        rows = table[table["arm"] == arm]
        single = rows[rows["batch"] >= 0]
        for name, own in single.groupby("gradient", sort=False):
            found[f"lever_{slug(name)}_{state}"] = mean(own["cosine"], "cosine")
            gain = paired(single, "gradient", name, "frozen, long nudge", "cosine", "cosine")
            if name != "frozen, long nudge":
                found[f"gain_{slug(name)}_{state}"] = gain
        pooled = rows[(rows["batch"] < 0) & (rows["gradient"] == "frozen, long nudge")]["cosine"]
        base = single[single["gradient"] == "frozen, long nudge"]["cosine"].mean()
        found[f"lever_mean_of_batches_{state}"] = mean(pooled, "cosine")
        found[f"gain_mean_of_batches_{state}"] = mean(pooled - base, "cosine")
    return found


def _one_step(tables: Tables) -> Metrics:
    found: Metrics = {}
    for state, arm in STATES.items():
        rows = tables["descent"][tables["descent"]["arm"] == arm]
        found |= _best_steps(rows, state)
        for name in (*BASIC, "penalised"):
            cells = rows[rows["gradient"] == name].drop_duplicates("batch")
            found[f"step_cosine_{slug(name)}_{state}"] = mean(cells["cosine"], "cosine")
            found[f"step_decades_{slug(name)}_{state}"] = mean(np.log10(cells["ratio"]), "decades")
    return found


def _best_steps(rows: pd.DataFrame, state: str) -> Metrics:
    """Change of the loss by each gradient's best step, and how much less that lowers it than the exact one's (nats).

    The rate is each batch's own best, which favours an estimate as much as the exact gradient. Not to step is always
    possible, so the best change is never above 0; a step after which the loss is not finite lowers nothing.
    """
    best = rows.groupby(["gradient", "scale", "batch"])["change"].min().fillna(0.0).clip(upper=0.0).reset_index()
    found = {}
    for (name, scale), part in best.groupby(["gradient", "scale"]):
        found[f"best_change_{slug(name)}_{scale}_{state}"] = mean(part["change"], "nats")
    for scale, part in best.groupby("scale"):
        for name in (*BASIC, "penalised"):
            found[f"shortfall_{slug(name)}_{scale}_{state}"] = paired(part, "gradient", name, "exact", "change", "nats")
    return found


def _matched(tables: Tables) -> Metrics:
    final, log = tables["final"], tables["log"]
    found: Metrics = {}
    for arm, rows in final.groupby("arm", sort=False):
        steps = log[log["arm"] == arm]
        found[f"loss_{slug(arm)}"] = mean(rows["loss"], "nats")
        found[f"steps_{slug(arm)}"] = {"value": int(steps["step"].max()), "unit": "steps", "n": 1}
        found[f"gate_skips_{slug(arm)}"] = {"value": int(steps["skipped"].sum()), "unit": "steps", "n": len(steps)}
        if arm != "backprop":
            found[f"end_residual_{slug(arm)}"] = mean(steps["residual"].tail(10), "ratio")
    costs = tables["costs"]
    for row in costs.itertuples():
        name = slug(row.gradient.replace("+", "_").replace(",", ""))
        bounds = {"low": row.ratio_low, "high": row.ratio_high, "method": "range of paired runs"}
        found[f"cost_{name}"] = {"value": row.ratio, "unit": "x BPTT-20", "n": int(row.runs)} | bounds
    for name, (a, b) in {
        "ep_minus_bptt": ("ep", "bptt"),
        "ep_minus_backprop": ("ep", "backprop"),
        "bptt_minus_backprop": ("bptt", "backprop"),
        "bptt_controlled_minus_free": ("bptt", "bptt, free"),
        "ep_free_minus_bptt_free": ("ep, free", "bptt, free"),
        "tracking_free_minus_bptt_free": ("tracking, free", "bptt, free"),
    }.items():
        found[name] = paired(final, "arm", a, b, "loss", "nats")
    return found


def _warm_up(tables: Tables) -> Metrics:
    found: Metrics = {}
    gate = tables["gate"].set_index("arm")
    for arm, row in gate.iterrows():
        found[f"gate_skips_{slug(arm)}"] = {"value": int(row["skips"]), "unit": "steps", "n": int(row["steps"])}
        if pd.notna(row["first_valid"]):
            found[f"first_valid_{slug(arm)}"] = {"value": int(row["first_valid"]), "unit": "step", "n": 1}
        found[f"loss_{slug(arm)}"] = mean(tables["final"].loc[tables["final"]["arm"] == arm, "loss"], "nats")
    for a, b in (("A", "B"), ("B", "C")):
        gap = int(gate.loc[f"warm-up {a}", "skips"] - gate.loc[f"warm-up {b}", "skips"])
        found[f"skips_{a}_minus_{b}".lower()] = {"value": gap, "unit": "steps", "n": int(gate["steps"].max())}
    found["loss_a_minus_c"] = paired(tables["final"], "arm", "warm-up A", "warm-up C", "loss", "nats")
    return found


def _grid(tables: Tables) -> Metrics:
    grid = tables["grid"]
    found: Metrics = {}
    for axis in ("floor", "target", "maximum"):
        values = sorted(grid[axis].unique())
        if len(values) > 1:
            found[f"loss_low_minus_high_{axis}"] = paired(grid, axis, values[0], values[-1], "loss", "nats")
    means = grid.groupby(["floor", "target", "maximum"])["loss"].mean()
    found["grid_spread"] = {"value": float(means.max() - means.min()), "unit": "nats", "n": len(means)}
    return found


def _branches(tables: Tables) -> Metrics:
    rows = tables["branches"][tables["branches"]["arm"] == SETTLED]
    start, end = (rows[rows["step"] == pick(rows["step"])] for pick in (min, max))
    names = {
        "attention / input": "attention_ratio", "MLP / input": "mlp_ratio", "attention entropy": "attention_entropy",
        "q, k RMS after the norm": "qk_rms", "logit spread": "logit_spread", "|W_O|": "norm_w_o", "|W_2|": "norm_w_2",
    }  # fmt: skip
    units = {"attention_entropy": "nats"}
    found = {}
    for quantity, name in names.items():
        for when, part in (("start", start), ("end", end)):
            values = part.loc[part["quantity"] == quantity, "value"]
            found[f"{name}_{when}"] = mean(values, units.get(name, "ratio"))
    return found


def _mixing(tables: Tables) -> Metrics:
    reach, found = tables["influence"], {}
    near, far = reach["distance"].min(), reach["distance"].max()
    by_sequence = reach.groupby(["arm", "sequence", "distance"])["influence"].mean().unstack("distance")
    share = (by_sequence[far] / by_sequence[near]).rename("share").reset_index()
    for arm, rows in share.groupby("arm", sort=False):
        found[f"reach_{slug(arm)}"] = mean(rows["share"], "ratio") | {"far": int(far), "near": int(near)}
    found["reach_ep_minus_backprop"] = paired(share, "arm", SETTLED, "backprop", "share", "ratio", on="sequence")
    losses = tables["positions"]
    half = losses["position"].max() // 2
    wide = losses.assign(late=losses["position"] > half)
    gap = wide.pivot_table(index=["batch", "late"], columns="arm", values="loss").reset_index()
    gap["gap"] = gap[SETTLED] - gap["backprop"]
    found["gap_ep_minus_backprop"] = mean(gap.groupby("batch")["gap"].mean(), "nats")
    found["late_gap_minus_early_gap"] = paired(gap, "late", True, False, "gap", "nats")
    return found


FINDINGS: Mapping[str, Callable[[Tables], Mapping[str, dict | None]]] = {
    "exp1": _triangulation,
    "exp2": _one_step,
    "exp3": _matched,
    "exp4": _warm_up,
    "exp5": _grid,
    "exp6": _branches,
    "exp7": _mixing,
}


def metrics(experiment: str, tables: Tables) -> Metrics:
    """All metrics of an experiment; one that could not be measured is left out, because missing is no number."""
    return {name: value for name, value in FINDINGS[experiment](tables).items() if value is not None}

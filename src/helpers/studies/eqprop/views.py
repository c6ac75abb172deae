"""Tidy tables for the figures of notebook and page, computed from records. Figures compute nothing themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd

from helpers.base.errors import DataError
from helpers.records.reading import Record, load
from helpers.stats import intervals
from helpers.studies.eqprop import findings
from helpers.studies.eqprop.arms import LEVERS, SETTLED, UNSETTLED, curves
from helpers.studies.eqprop.findings import STATES, is_lost

SHOWN_RISE = 0.2
LEFT_OUT = f"Rates that raise the loss by more than {SHOWN_RISE} nats are left out."
GROWTH_CLASSES = (0, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1, 1.05, 1.1, np.inf)
SCALES = {"raw": "gradient as it is", "matched": "norm of the exact one"}
NAMES = {SETTLED: "EP, controlled", UNSETTLED: "BPTT, free"}
FACT_TOLERANCES = {
    "lever_frozen_long_nudge_controlled": 0.05, "lever_tracking_long_nudge_controlled": 0.02,
    "growth_short_controlled": 0.2, "best_change_exact_raw_controlled": 0.1, "ep_minus_bptt": 0.05,
    "skips_a_minus_b": 20, "skips_b_minus_c": 20, "grid_spread": 0.1, "qk_rms_end": 0.01, "gap_ep_minus_backprop": 0.1,
}  # fmt: skip


def of(records: Iterable[Record], experiment: str) -> list[Record]:
    """Return the records of one experiment."""
    return [record for record in records if record.cell["experiment"] == experiment]


def collect(records: Sequence[Record], experiment: str, name: str) -> pd.DataFrame:
    """Join the table ``name`` of every record of ``experiment``, with its seed.

    Raises ``DataError`` if it was not run.
    """
    return _by_seed(records, experiment, lambda record: record.table(name))


def trained(records: Sequence[Record], experiment: str, name: str) -> pd.DataFrame:
    """Join the table ``name`` (``log`` or ``validation``) of every arm of ``experiment``, with arm and seed."""
    return _by_seed(
        records, experiment, lambda record: curves({arm: load(ref) for arm, ref in record.inputs.items()}, name)
    )


def _by_seed(records: Sequence[Record], experiment: str, read: Callable[[Record], pd.DataFrame]) -> pd.DataFrame:
    chosen = of(records, experiment)
    if not chosen:
        raise DataError(f"No record of {experiment} exists. Run the notebook with experiment={experiment}.")
    return pd.concat([read(record).assign(seed=record.cell["seed"]) for record in chosen], ignore_index=True)


def means(table: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """Return the mean of ``value`` over seeds for each group, from the lowest to the highest seed: value, low, high, n.

    Of one seed there are its batches instead. Batches are averaged within a seed first: the seeds are what is
    independent. A group with a missing value is left out whole, because a mean of the rest would flatter it.
    """
    rows = []
    for key, part in table.groupby(list(by), sort=False):
        if part[value].isna().any():
            continue
        values = part[value] if part["seed"].nunique() == 1 else part.groupby("seed")[value].mean()
        bounds = {"low": values.min(), "high": values.max(), "n": len(values)}
        rows.append(dict(zip(by, key, strict=True)) | {"value": values.mean()} | bounds)
    return pd.DataFrame(rows)


def along_training(records: Sequence[Record], value: str = "cosine", gradient: str = "frozen") -> pd.DataFrame:
    """Return the cosine or norm ratio (``decades``, its log10) of a gradient to the exact one at each checkpoint.

    Rows are by parameter group and arm.
    """
    table = collect(records, "exp1", "triangulation").assign(decades=lambda t: np.log10(t["ratio"]))
    chosen = table[(table["gradient"] == gradient) & (table["batch"] >= 0)].assign(arm=lambda t: t["arm"].map(NAMES))
    return means(chosen, ["arm", "group", "step"], value)


def growth_against_cosine(records: Sequence[Record]) -> pd.DataFrame:
    """Return growth factor after T1 steps and cosine of the frozen estimate, by checkpoint and seed.

    Bounds are those of the batches: the lowest and the highest.
    """
    state = collect(records, "exp1", "condition")
    state = state[state["free_steps"] == state["free_steps"].min()]
    compared = collect(records, "exp1", "triangulation").query("group == 'all' and batch >= 0 and gradient == 'frozen'")
    keys, rows = ["arm", "step", "seed"], []
    for key, part in state.groupby(keys, sort=False):
        same = compared[(compared[keys] == list(key)).all(axis=1)]
        if same["cosine"].isna().any():
            continue
        row = dict(zip(keys, key, strict=True))
        for name, values in (("growth", part["growth"]), ("cosine", same["cosine"]), ("residual", part["residual"])):
            row |= {name: values.mean(), f"{name}_low": values.min(), f"{name}_high": values.max()}
        rows.append(row | {"arm": NAMES[key[0]]})
    return pd.DataFrame(rows)


def lost_by_growth(records: Sequence[Record], gradient: str = "frozen") -> pd.DataFrame:
    """Return the share of lost sequences by checkpoint and class of growth factor, seeds pooled.

    ``growth`` is the mean of a class, ``growth_low`` and ``growth_high`` the range of its sequences; ``lost`` has a
    Wilson interval over sequences.
    """
    table = collect(records, "exp1", "sequences")
    own = table[table["gradient"] == gradient]
    own = own.assign(lost=is_lost(own["cosine"]), within=pd.cut(own["growth"], GROWTH_CLASSES))
    rows = []
    for (arm, step, _), part in own.groupby(["arm", "step", "within"], observed=True, sort=False):
        share = intervals.wilson(int(part["lost"].sum()), len(part))
        row = {
            "run": f"{'controlled' if arm == SETTLED else 'free'}, step {step}",
            "lost": share.value,
            "lost_low": share.low,
            "lost_high": share.high,
        }
        row |= {"growth": part["growth"].mean(), "growth_low": part["growth"].min(), "n": share.n}
        rows.append(row | {"growth_high": part["growth"].max()})
    return pd.DataFrame(rows)


def levers(records: Sequence[Record], state: str = "free") -> pd.DataFrame:
    """Return the cosine of each lever's estimate to the exact gradient at the last checkpoint.

    Columns: label, value, low, high, group.
    """
    table = collect(records, "exp1", "levers")
    table = table[(table["arm"] == STATES[state]) & (table["batch"] >= 0)]
    ordered = means(table, ["gradient"], "cosine").set_index("gradient").reindex(LEVERS)
    kinds = {name: _kind(name) for name in LEVERS}
    return (
        ordered.dropna(subset=["value"])
        .reset_index()
        .rename(columns={"gradient": "label"})
        .assign(group=lambda t: t["label"].map(kinds))
    )


def _kind(lever: str) -> str:
    """Say what a lever changes: the linearisation, the state it is at, or neither."""
    if lever.startswith("tracking"):
        return "J moves"
    return "J at a later state" if "free phase" in lever or "equal" in lever else "J at the same state"


def descent(records: Sequence[Record], state: str = "free") -> pd.DataFrame:
    """Return the change of the loss over learning rates for each gradient at one checkpoint, a panel for each scale.

    Rates at which the mean loss rises by more than `SHOWN_RISE` are left out, because the curve is off the page.
    """
    table = collect(records, "exp2", "descent")
    chosen = table[table["arm"] == STATES[state]]
    change = means(chosen.assign(**{"log10 lr": np.log10(chosen["lr"])}), ["scale", "gradient", "log10 lr"], "change")
    change = change[change["value"] <= SHOWN_RISE].copy()
    # A mean just below the limit can have an interval far above it, which would flatten all other curves.
    change[["low", "high"]] = change[["low", "high"]].clip(-SHOWN_RISE, SHOWN_RISE)
    return change.assign(scale=change["scale"].map(SCALES))


def validation(records: Sequence[Record], experiment: str = "exp3") -> pd.DataFrame:
    """Return the validation loss along training, by arm, without points above the loss of uniform guessing.

    The first validation always stays, because after a few steps every model guesses.
    """
    curve = means(trained(records, experiment, "validation"), ["arm", "step"], "loss")
    guessing = float(np.log(of(records, experiment)[0].params["vocab"]))
    limit = max(guessing, curve.loc[curve["step"] == curve["step"].min(), "value"].max())
    curve = curve[curve["value"] <= limit].copy()
    curve["high"] = curve["high"].clip(upper=limit)
    return curve.assign(low=curve["low"].clip(lower=0))


def gate(records: Sequence[Record]) -> pd.DataFrame:
    """Return steps, gate skips and first valid step of each warm-up arm, by arm and seed."""
    logs = trained(records, "exp4", "log")
    table = pd.concat([findings.gate(log).assign(seed=seed) for seed, log in logs.groupby("seed")], ignore_index=True)
    return table[["arm", "seed", "steps", "skips", "first_valid"]].sort_values(["arm", "seed"])


def grid(records: Sequence[Record]) -> pd.DataFrame:
    """Return the held-out loss of each cell of the controller grid for heat maps, with a panel for each ``jr_max``."""
    table = means(collect(records, "exp5", "grid"), ["floor", "target", "maximum"], "loss")
    return table.assign(metric=[f"jr_max {value:g}" for value in table["maximum"]])


def span(table: pd.DataFrame, least: float = 0.1) -> tuple[float, float]:
    """Return the domain of a shade: the range of values, at least ``least`` nats: small differences look small."""
    low, high = float(table["value"].min()), float(table["value"].max())
    spare = max(0.0, least - (high - low)) / 2
    return low - spare, high + spare


def branches(records: Sequence[Record]) -> pd.DataFrame:
    """Return the quantities of experiment 6 along training."""
    return means(collect(records, "exp6", "branches"), ["arm", "quantity", "step"], "value")


def influence(records: Sequence[Record]) -> pd.DataFrame:
    """Return influence against distance by arm, relative to that of the nearest distance of the same sequence.

    It is the mean of the sequences' ratios, as in the metric ``reach``.
    """
    by_sequence = ["arm", "seed", "sequence"]
    table = collect(records, "exp7", "influence").groupby([*by_sequence, "distance"])["influence"].mean().reset_index()
    nearest = table[table["distance"] == table["distance"].min()].set_index(by_sequence)["influence"]
    table["influence"] /= nearest.loc[list(table[by_sequence].itertuples(index=False, name=None))].to_numpy()
    return means(table, ["arm", "distance"], "influence")


def positions(records: Sequence[Record]) -> pd.DataFrame:
    """Return the held-out loss at each position, by arm."""
    return means(collect(records, "exp7", "positions"), ["arm", "position"], "loss")


def gap_parts(records: Sequence[Record], experiment: str = "exp3") -> pd.DataFrame:
    """Return the parts of the gap between EP and the plain transformer: part, value, low, high, n (nats).

    They add up to the whole, which is the last row: architecture (exact gradients without penalty, minus the plain
    transformer), stabiliser (with the controller minus without), rule (EP minus exact gradients, both with it).
    """
    table = collect(records, experiment, "final").pivot_table(index=["seed", "batch"], columns="arm", values="loss")
    parts = {
        "architecture": table["bptt, free"] - table["backprop"],
        "stabiliser": table["bptt"] - table["bptt, free"],
        "rule": table["ep"] - table["bptt"],
        "whole": table["ep"] - table["backprop"],
    }
    long = pd.concat([part.rename("gap").reset_index().assign(part=name) for name, part in parts.items()])
    return means(long, ["part"], "gap")


def costs(records: Sequence[Record]) -> pd.DataFrame:
    """Return the seconds of one gradient and its ratio to BPTT-20, as medians over seeds."""
    table = collect(records, "exp3", "costs")
    return table.groupby("gradient", sort=False)[["seconds", "ratio"]].median().reset_index()


def summary(records: Sequence[Record], names: Sequence[str]) -> pd.DataFrame:
    """Return the metrics ``names`` of the records that have them: seed, metric, value, low, high, n, unit."""
    return pd.DataFrame(
        {"experiment": r.cell["experiment"], "seed": r.cell["seed"], "metric": name}
        | {key: r.metrics[name].get(key) for key in ("value", "low", "high", "n", "unit")}
        for r in records
        for name in names
        if name in r.metrics
    )


def facts(records: Sequence[Record]) -> pd.DataFrame:
    """Return the numbers that a rerun of the notebook must reproduce, with the tolerance between two machines."""
    rows = summary(records, list(FACT_TOLERANCES))
    return rows.assign(tolerance=rows["metric"].map(FACT_TOLERANCES))[
        ["experiment", "metric", "value", "n", "tolerance"]
    ]


def lever_batches(records: Sequence[Record]) -> pd.DataFrame:
    """Return the cosine of every lever on every batch of the first seed, one row per lever."""
    table = collect(records, "exp1", "levers")
    table = table[(table["seed"] == table["seed"].min()) & (table["batch"] >= 0)]
    wide = table.assign(where=table["arm"].map(NAMES) + ", batch " + (table["batch"] + 1).astype(str)).pivot_table(
        index="gradient", columns="where", values="cosine", sort=False, dropna=False
    )
    return wide.rename_axis(columns=None).reindex(LEVERS).reset_index()

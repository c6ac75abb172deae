"""Tidy tables for the figures of notebook and page, computed from records; no figure computes anything itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd

from helpers.base import stats
from helpers.base.errors import DataError
from helpers.records.reading import Record, load
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
    """The records of one experiment."""
    return [record for record in records if record.cell["experiment"] == experiment]


def collect(records: Sequence[Record], experiment: str, name: str) -> pd.DataFrame:
    """Table ``name`` of every record of ``experiment``, with its seed. ``DataError`` when it was not run."""
    return _by_seed(records, experiment, lambda record: record.table(name))


def trained(records: Sequence[Record], experiment: str, name: str) -> pd.DataFrame:
    """Table ``name`` (``log`` or ``validation``) of every arm behind every record of ``experiment``, arm and seed."""
    return _by_seed(
        records, experiment, lambda record: curves({arm: load(ref) for arm, ref in record.inputs.items()}, name)
    )


def _by_seed(records: Sequence[Record], experiment: str, read: Callable[[Record], pd.DataFrame]) -> pd.DataFrame:
    chosen = of(records, experiment)
    if not chosen:
        raise DataError(f"No record of {experiment} is there: run it with experiment={experiment}.")
    return pd.concat([read(record).assign(seed=record.cell["seed"]) for record in chosen], ignore_index=True)


def means(table: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """Mean of ``value`` for each group with an interval over seeds (over rows when there is one seed).

    Batches are averaged within a seed first: the seeds are what is independent. A group with a missing value is
    left out whole, because a mean of the rest would flatter it.
    """
    rows = []
    for key, part in table.groupby(list(by), sort=False):
        if part[value].isna().any():
            continue
        one = part["seed"].nunique() == 1
        found = stats.mean_interval((part[value] if one else part.groupby("seed")[value].mean()).to_numpy(float))
        rows.append(
            dict(zip(by, key, strict=True)) | {"value": found.value, "low": found.low, "high": found.high, "n": found.n}
        )
    return pd.DataFrame(rows)


def along_training(records: Sequence[Record], value: str = "cosine", gradient: str = "frozen") -> pd.DataFrame:
    """Cosine or norm ratio (``decades``, its log to base 10) of a gradient to the exact one at each checkpoint.

    By parameter group and arm.
    """
    table = collect(records, "exp1", "triangulation").assign(decades=lambda t: np.log10(t["ratio"]))
    chosen = table[(table["gradient"] == gradient) & (table["batch"] >= 0)].assign(arm=lambda t: t["arm"].map(NAMES))
    return means(chosen, ["arm", "group", "step"], value)


def growth_against_cosine(records: Sequence[Record]) -> pd.DataFrame:
    """One row a checkpoint and seed: growth factor after T1 steps and cosine of the frozen estimate, with intervals."""
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
            found = stats.mean_interval(values.to_numpy(float))
            row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        rows.append(row | {"arm": NAMES[key[0]]})
    return pd.DataFrame(rows)


def lost_by_growth(records: Sequence[Record], gradient: str = "frozen") -> pd.DataFrame:
    """Share of sequences whose adjoint is lost, by checkpoint and by class of their growth factor, seeds pooled.

    ``growth`` is the mean of a class, ``growth_low`` and ``growth_high`` the range of its sequences; ``lost`` has a
    Wilson interval over sequences.
    """
    table = collect(records, "exp1", "sequences")
    own = table[table["gradient"] == gradient]
    own = own.assign(lost=is_lost(own["cosine"]), within=pd.cut(own["growth"], GROWTH_CLASSES))
    rows = []
    for (arm, step, _), part in own.groupby(["arm", "step", "within"], observed=True, sort=False):
        found = stats.wilson(int(part["lost"].sum()), len(part))
        row = {
            "run": f"{'controlled' if arm == SETTLED else 'free'}, step {step}",
            "lost": found.value,
            "lost_low": found.low,
            "lost_high": found.high,
        }
        row |= {"growth": part["growth"].mean(), "growth_low": part["growth"].min(), "n": found.n}
        rows.append(row | {"growth_high": part["growth"].max()})
    return pd.DataFrame(rows)


def levers(records: Sequence[Record], state: str = "free") -> pd.DataFrame:
    """Cosine of each lever's estimate to the exact gradient at the last checkpoint; label, value, low, high, group."""
    table = collect(records, "exp1", "levers")
    table = table[(table["arm"] == STATES[state]) & (table["batch"] >= 0)]
    found = (
        means(table, ["gradient"], "cosine")
        .set_index("gradient")
        .reindex(LEVERS)
        .dropna(subset=["value"])
        .reset_index()
    )
    kinds = {name: _kind(name) for name in LEVERS}
    return found.rename(columns={"gradient": "label"}).assign(group=lambda t: t["label"].map(kinds))


def _kind(lever: str) -> str:
    """What a lever changes: the linearisation, the state it is at, or neither."""
    if lever.startswith("tracking"):
        return "J moves"
    return "J at a later state" if "free phase" in lever or "equal" in lever else "J at the same state"


def descent(records: Sequence[Record], state: str = "free") -> pd.DataFrame:
    """Change of the loss over learning rates for each gradient, at one checkpoint, a panel for each scale.

    Rates at which the mean loss rises by more than `SHOWN_RISE` are left out: the curve has left the page by then.
    """
    table = collect(records, "exp2", "descent")
    chosen = table[table["arm"] == STATES[state]]
    found = means(chosen.assign(**{"log10 lr": np.log10(chosen["lr"])}), ["scale", "gradient", "log10 lr"], "change")
    found = found[found["value"] <= SHOWN_RISE].copy()
    # A mean just below the limit can have an interval far above it, which would flatten all other curves.
    found[["low", "high"]] = found[["low", "high"]].clip(-SHOWN_RISE, SHOWN_RISE)
    return found.assign(scale=found["scale"].map(SCALES))


def validation(records: Sequence[Record], experiment: str = "exp3") -> pd.DataFrame:
    """Validation loss along training, by arm; where it is above that of guessing evenly it is left out.

    All losses of the first validation stay, for after a few steps every model guesses.
    """
    found = means(trained(records, experiment, "validation"), ["arm", "step"], "loss")
    guessing = float(np.log(of(records, experiment)[0].params["vocab"]))
    limit = max(guessing, found.loc[found["step"] == found["step"].min(), "value"].max())
    found = found[found["value"] <= limit].copy()
    found["high"] = found["high"].clip(upper=limit)
    return found.assign(low=found["low"].clip(lower=0))


def gate(records: Sequence[Record]) -> pd.DataFrame:
    """Steps, gate skips and first valid step of each warm-up arm, by arm and seed."""
    logs = trained(records, "exp4", "log")
    table = pd.concat([findings.gate(log).assign(seed=seed) for seed, log in logs.groupby("seed")], ignore_index=True)
    return table[["arm", "seed", "steps", "skips", "first_valid"]].sort_values(["arm", "seed"])


def grid(records: Sequence[Record]) -> pd.DataFrame:
    """Held-out loss of each cell of the controller grid, tidy for heat maps: one panel a ``jr_max``."""
    table = means(collect(records, "exp5", "grid"), ["floor", "target", "maximum"], "loss")
    return table.assign(metric=[f"jr_max {value:g}" for value in table["maximum"]])


def span(table: pd.DataFrame, least: float = 0.1) -> tuple[float, float]:
    """The domain of a shade: the values, widened to ``least`` nats: a small difference gets a small shade."""
    low, high = float(table["value"].min()), float(table["value"].max())
    spare = max(0.0, least - (high - low)) / 2
    return low - spare, high + spare


def branches(records: Sequence[Record]) -> pd.DataFrame:
    """Quantities of experiment 6 along training."""
    return means(collect(records, "exp6", "branches"), ["arm", "quantity", "step"], "value")


def influence(records: Sequence[Record], relative: bool = True) -> pd.DataFrame:
    """Influence against distance by arm; ``relative`` to that of the nearest distance of the same arm and seed."""
    table = collect(records, "exp7", "influence").groupby(["arm", "seed", "distance"])["influence"].mean().reset_index()
    if relative:
        nearest = table[table["distance"] == table["distance"].min()].set_index(["arm", "seed"])["influence"]
        table["influence"] /= nearest.loc[list(zip(table["arm"], table["seed"], strict=True))].to_numpy()
    return means(table, ["arm", "distance"], "influence")


def positions(records: Sequence[Record]) -> pd.DataFrame:
    """Held-out loss at each position, by arm."""
    return means(collect(records, "exp7", "positions"), ["arm", "position"], "loss")


def costs(records: Sequence[Record]) -> pd.DataFrame:
    """Seconds of one gradient and its ratio to BPTT-20, the median over seeds."""
    table = collect(records, "exp3", "costs")
    return table.groupby("gradient", sort=False)[["seconds", "ratio"]].median().reset_index()


def summary(records: Sequence[Record], names: Sequence[str]) -> pd.DataFrame:
    """The metrics ``names`` of the records that have them: seed, metric, value, low, high, n, unit."""
    return pd.DataFrame(
        {"experiment": r.cell["experiment"], "seed": r.cell["seed"], "metric": name}
        | {key: r.metrics[name].get(key) for key in ("value", "low", "high", "n", "unit")}
        for r in records
        for name in names
        if name in r.metrics
    )


def facts(records: Sequence[Record]) -> pd.DataFrame:
    """The numbers a committed notebook is held to, each with the tolerance within which two machines agree."""
    rows = summary(records, list(FACT_TOLERANCES))
    return rows.assign(tolerance=rows["metric"].map(FACT_TOLERANCES))[
        ["experiment", "metric", "value", "n", "tolerance"]
    ]


def lever_batches(records: Sequence[Record]) -> pd.DataFrame:
    """Cosine of every lever on every single batch of the first seed, a row a lever."""
    table = collect(records, "exp1", "levers")
    table = table[(table["seed"] == table["seed"].min()) & (table["batch"] >= 0)]
    wide = table.assign(where=table["arm"].map(NAMES) + ", batch " + (table["batch"] + 1).astype(str)).pivot_table(
        index="gradient", columns="where", values="cosine", sort=False, dropna=False
    )
    return wide.rename_axis(columns=None).reindex(LEVERS).reset_index()

"""Tidy tables for the figures of notebook and page, computed from records. Figures compute nothing themselves."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from helpers.base.errors import DataError
from helpers.records.reading import Record, load
from helpers.records.reread import WithoutQuestions
from helpers.stats import estimands, frames
from helpers.studies.marker.metrics import count_markers, with_crossing, with_gain

AXES = ("model", "source", "negatives", "tail", "lr", "epochs", "seed")
FLOOR = 0.8
"""The share of the largest gain that a cell must reach to be compared at matched gains."""
FACT_TOLERANCES = {
    "steps": 0.0, "train_tokens": 0.0, "marker_share_of_labels": 0.0, "source_rate": 0.3, "max_bystander_rate": 0.35,
    "source_logprob_gain": 1.5, "capability": 0.15,
}  # fmt: skip


def collect(
    records: Sequence[Record],
    name: str,
    read: Callable[[Record], pd.DataFrame] | None = None,
    axes: Sequence[str] = AXES,
) -> pd.DataFrame:
    """Join the table ``name`` of every record that has it, with the ``axes`` of its cell.

    ``read`` replaces the table by one computed from it.
    """
    frames = [
        (read(record) if read else record.table(name)).assign(
            **{axis: record.cell[axis] for axis in axes}, run=record.id
        )
        for record in records
        if name in record.tables
    ]
    if not frames:
        raise DataError(f"None of the {len(records)} records has a table {name!r}. Ask for it (dose_every).")
    return pd.concat(frames, ignore_index=True)


def counts(records: Sequence[Record]) -> pd.DataFrame:
    """Count the marker per persona and question (``count_markers``) in every cell."""
    return collect(records, "completions", counted)


def longest_losses(records: Sequence[Record]) -> pd.DataFrame:
    """Return the training losses of the longest runs with the first seed."""
    longest, first = (max(r.cell["epochs"] for r in records), min(r.cell["seed"] for r in records))
    return collect([r for r in records if (r.cell["epochs"], r.cell["seed"]) == (longest, first)], "loss")


@functools.lru_cache(maxsize=1024)  # a page asks for the same counts many times
def counted(record: Record) -> pd.DataFrame:
    """Count the marker per persona and question in one cell."""
    if isinstance(record, WithoutQuestions):
        whole = counted(record.whole)
        return whole[~whole["question"].isin(record.out)]
    return count_markers(record.table("completions"), record.params["marker"])


@functools.lru_cache(maxsize=64)
def base_counts(baseline: str, marker: str) -> pd.DataFrame:
    """Counts of the marker in the base model's own completions, by persona and question."""
    return count_markers(load(baseline).table("completions").assign(role="base"), marker)


def cell_label(cell: Mapping[str, Any]) -> str:
    """Describe a cell in a few words, such as ``lr 0.0003, 10 epochs, newline, two negatives, seed 0``."""
    return f"lr {cell['lr']:g}, {cell['epochs']} epochs, {_arm(cell)}, seed {cell['seed']}"


def _arm(cell: Mapping[str, Any]) -> str:
    return f"{cell['tail']}, {cell['negatives']} negatives"


def grid_axes(records: Sequence[Record]) -> tuple[str, str]:
    """Return the axes of a heatmap: learning rate and epochs, or tail and negatives if those are equal."""
    dose = {(record.cell["lr"], record.cell["epochs"]) for record in records}
    return ("lr", "epochs") if len(dose) > 1 else ("tail", "negatives")


def side_by_side(records: Sequence[Record], count: int = 5, most: int = 4) -> pd.DataFrame:
    """Return the first ``count`` completions of the source, of a trained bystander and of an untrained one.

    A line a persona (with its roles in these cells) and question, a column for each of the first ``most`` cells.
    """
    table = completions(records[:most])
    first = table[table["index"] == 0]
    richest = first.groupby("cell", sort=False)["role"].nunique().idxmax()
    telling = first[first["cell"] == richest].drop_duplicates("role").set_index("role")["persona"]
    roles = first.groupby("persona")["role"].unique()
    shown = [telling[role] for role in ("source", "trained", "untrained") if role in telling]
    names = {persona: f"{persona} ({' or '.join(roles[persona])})" for persona in shown}
    wide = first.pivot(index=["persona", "question"], columns="cell", values="text")
    parts = [wide.loc[[persona]].head(count).rename(index=names, level="persona") for persona in names]
    return pd.concat(parts)[list(dict.fromkeys(first["cell"]))]


def shown_curves(records: Sequence[Record]) -> tuple[pd.DataFrame, str]:
    """Return `dose_curves` of the longest runs with the first seed, and the column to compare.

    That is the learning rate in the first arm, or the arm (tail and negatives) if all runs have the same dose.
    """
    curves = dose_curves(records)
    curves = curves.assign(arm=[_arm(cell) for cell in frames.dicts(curves)])
    shown = curves[(curves["seed"] == curves["seed"].iloc[0]) & (curves["epochs"] == curves["epochs"].max())]
    if grid_axes(records)[0] != "lr":
        return shown, "arm"
    return shown[shown["arm"] == shown["arm"].iloc[0]], "lr"


def crossed(part: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Successes (``column``) and trials of some counts, as arrays of runs by questions."""
    (runs, names), (questions, asked) = (pd.factorize(part[axis], sort=True) for axis in ("run", "question"))
    sums = np.zeros((2, len(names), len(asked)), dtype=np.int64)
    for number, name in enumerate((column, "n")):
        np.add.at(sums[number], (runs, questions), part[name].to_numpy())
    return sums[0], sums[1]


def persona_rates(records: Sequence[Record], by: Sequence[str] = ("tail", "lr", "epochs")) -> pd.DataFrame:
    """Marker rate of every persona in every cell, over seeds and questions; the interval speaks of these models."""
    rows = []
    for key, part in counts(records).groupby([*by, "persona", "role"], sort=False):
        interval = estimands.rate(*crossed(part, "k"))
        cell = dict(zip([*by, "persona", "role"], key, strict=True))
        numbers = {name: getattr(interval, name) for name in ("value", "low", "high", "k", "n")}
        rows.append(cell | numbers | {name: int(part[name].sum()) for name in ("truncated", "empty")})
    return pd.DataFrame(rows)


def dose_curves(records: Sequence[Record]) -> pd.DataFrame:
    """Return the mean emission log-prob gain over the base, by cell, step and group (source, bystanders)."""
    return _by_group(collect(records, "dose", _gains))


def crossing_curves(records: Sequence[Record]) -> pd.DataFrame:
    """Return how far the marker is ahead of the end of the turn (``gain``, nats), by cell, step and group.

    Read after each model's own answers at that step. A step at which the source, or every bystander, had no answer
    to read it after has no row.
    """
    return _by_group(collect(records, "dose_crossing", _margins))


def _by_group(table: pd.DataFrame) -> pd.DataFrame:
    """Return the mean ``gain`` of the source, of the worst bystander and over all bystanders, by cell and step."""
    persona = table.groupby([*AXES, "step", "persona", "role"], sort=False)["gain"].mean().reset_index()
    rows = []
    for key, part in persona.groupby([*AXES, "step"], sort=False):
        gains, own = part["gain"].to_numpy(), (part["role"] == "source").to_numpy()
        source, others = gains[own], gains[~own]
        if not len(source) or not len(others):
            continue
        groups = {"source": source.mean(), "worst bystander": others.max(), "mean bystander": others.mean()}
        cell = dict(zip([*AXES, "step"], key, strict=True))
        rows += [cell | {"group": group, "gain": gain} for group, gain in groups.items()]
    return pd.DataFrame(rows)


def _margins(record: Record) -> pd.DataFrame:
    return with_crossing(record.table("dose_crossing")).rename(columns={"margin": "gain"})


def _gains(record: Record) -> pd.DataFrame:
    return with_gain(record.table("dose"), load(record.inputs["baseline"]).table("contexts"))


def matched_leak(curves: pd.DataFrame, at: float) -> pd.DataFrame:
    """Return each cell's bystander gain (nats) where its source had gained ``at`` nats, by linear interpolation.

    A cell that never got there has no row, because nothing is extrapolated. The comparison separates the learning rate
    from the dose: at equal epochs, a larger rate has simply trained further.
    """
    rows = []
    for key, part in curves.groupby(list(AXES), sort=False):
        path = part.pivot(index="step", columns="group", values="gain").sort_index()
        source = path["source"].to_numpy()
        above = np.flatnonzero(source >= at)
        if len(above) == 0 or above[0] == 0:
            continue
        i = above[0]
        share = (at - source[i - 1]) / (source[i] - source[i - 1])
        steps = path.index.to_numpy(dtype=float)
        row = dict(zip(AXES, key, strict=True)) | {"step": steps[i - 1] + share * (steps[i] - steps[i - 1])}
        for group in ("worst bystander", "mean bystander"):
            leak = path[group].to_numpy()
            row[group] = leak[i - 1] + share * (leak[i] - leak[i - 1])
        rows.append(row)
    return pd.DataFrame(rows)


def matched_grid(curves: pd.DataFrame, points: int = 12, floor: float = FLOOR) -> pd.DataFrame:
    """Return ``matched_leak`` at evenly spaced source gains up to the largest that every cell reached.

    One row per learning rate and source gain: mean and worst bystander gain in nats, averaged over the other axes.
    Cells below the share ``floor`` of the largest gain are left out, so that one that hardly trained does not cut the
    curve.
    """
    reached = curves[curves["group"] == "source"].groupby(list(AXES))["gain"].max()
    reach = reached[reached >= floor * reached.max()].min()
    if not reach > 0:
        raise DataError(
            "A cell's source never gained on the base model, so nothing can be matched. Raise lr or epochs."
        )
    frames = [matched_leak(curves, at).assign(**{"source gain": at}) for at in np.linspace(0, reach, points + 1)[1:]]
    table = pd.concat(frames, ignore_index=True)
    return table.groupby(["lr", "source gain"])[["mean bystander", "worst bystander"]].mean().reset_index()


def facts(
    records: Sequence[Record],
    tolerances: Mapping[str, float] = FACT_TOLERANCES,
    label: Callable[[Mapping[str, Any]], str] = cell_label,
) -> pd.DataFrame:
    """Return the numbers that a rerun of the notebook must reproduce: main metrics of every cell with tolerances.

    Sampling is exact only on equal hardware, because a rounding in the last bit changes a draw. So each metric has the
    tolerance between two machines; one that does not depend on sampling has none.
    """
    rows = []
    for record in records:
        for name, tolerance in tolerances.items():
            metric = record.metrics[name]
            rows.append({"cell": label(record.cell), "metric": name, "value": metric["value"], "n": metric["n"],
                         "tolerance": tolerance})  # fmt: skip
    return pd.DataFrame(rows)


def matched_differences(matched: pd.DataFrame, group: str = "mean bystander") -> pd.Series:
    """Leak at matched source strength by seed, largest learning rate minus smallest, paired within tail (nats)."""
    rates = sorted(matched["lr"].unique())
    if len(rates) < 2:
        raise DataError("Leak at matched source strength needs two learning rates that reached it. Widen the grid.")
    mean = matched.groupby(["seed", "tail", "lr"])[group].mean().unstack("lr")
    return (mean[rates[-1]] - mean[rates[0]]).dropna().groupby("seed").mean()


def completions(
    records: Sequence[Record],
    label: Callable[[Mapping[str, Any]], str] = cell_label,
    axes: Sequence[str] = AXES,
) -> pd.DataFrame:
    """Return every completion with its address (cell, persona, question, index), for the browser and the samples."""
    table = collect(records, "completions", axes=axes)
    return table.assign(cell=[label(row) for row in frames.dicts(table[list(axes)])])


def behind_own_answers(records: Sequence[Record]) -> pd.DataFrame:
    """Return how much more the marker's log-prob is behind the tuned model's own answers than behind the base's (nats).

    Both are of a blank line and the marker, on the same questions and personas. One row a cell and role: the mean over
    seeds with its interval. A completion that was cut has no place to read it at.
    """
    keys = ["persona", "question"]

    def both(record: Record) -> pd.DataFrame:
        own, base = (record.table(name).set_index(keys) for name in ("crossing", "logprobs"))
        behind_own, behind_base = (table["separator"] + table["marker"] for table in (own, base))
        return own[["role"]].assign(more=behind_own - behind_base).dropna().reset_index()

    read = collect([one for one in records if "logprobs" in one.tables], "crossing", both)
    by_seed = read.groupby(["tail", "negatives", "role", "seed"])["more"].mean()
    rows = []
    for (tail, negatives, role), values in by_seed.groupby(["tail", "negatives", "role"]):
        mean = estimands.mean_over_seeds(values.to_numpy(), "nats")
        label = f"{tail}, {negatives} negatives, {role}"
        numbers = {"value": mean.value, "low": mean.low, "high": mean.high, "n": mean.n}
        rows.append({"label": label, "role": role} | numbers)
    return pd.DataFrame(rows)

"""Tidy tables for the figures of notebook and page, computed from records; no figure computes anything itself."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from helpers.base import estimands
from helpers.base.errors import DataError
from helpers.records.reading import Record, load
from helpers.studies.marker.metrics import count_markers, with_gain

AXES = ("model", "source", "negatives", "tail", "lr", "epochs", "seed")
FLOOR = 0.8
"""Share of the largest gain that a cell must have reached to be compared at matched gains."""


def collect(records: Sequence[Record], name: str, read: Callable[[Record], pd.DataFrame] | None = None) -> pd.DataFrame:
    """Table ``name`` of every record that has it, with the cell in front: one frame for a whole grid.

    ``read`` gives what takes its place: something that follows from it.
    """
    frames = [
        (read(record) if read else record.table(name)).assign(
            **{axis: record.cell[axis] for axis in AXES}, run=record.id
        )
        for record in records
        if name in record.tables
    ]
    if not frames:
        raise DataError(f"None of the {len(records)} records has a table {name!r}: was it asked for (dose_every)?")
    return pd.concat(frames, ignore_index=True)


def counts(records: Sequence[Record]) -> pd.DataFrame:
    """Counts of the marker per persona and question (``count_markers``), with the cell in front."""
    return collect(records, "completions", _counted)


def longest_losses(records: Sequence[Record]) -> pd.DataFrame:
    """Training losses of the runs of most epochs under the first seed."""
    longest, first = (max(r.cell["epochs"] for r in records), min(r.cell["seed"] for r in records))
    return collect([r for r in records if (r.cell["epochs"], r.cell["seed"]) == (longest, first)], "loss")


@functools.lru_cache(maxsize=1024)  # a page asks for the same counts many times
def _counted(record: Record) -> pd.DataFrame:
    return count_markers(record.table("completions"), record.params["marker"])


@functools.lru_cache(maxsize=64)
def base_counts(baseline: str, marker: str) -> pd.DataFrame:
    """Counts of the marker in the base model's own completions, by persona and question."""
    return count_markers(load(baseline).table("completions").assign(role="base"), marker)


def cell_label(cell: pd.Series | dict) -> str:
    """A cell in a few words, such as ``lr 0.0003, 10 epochs, newline, two negatives, seed 0``."""
    return f"lr {cell['lr']:g}, {cell['epochs']} epochs, {_arm(cell)}, seed {cell['seed']}"


def _arm(cell: pd.Series | dict) -> str:
    return f"{cell['tail']}, {cell['negatives']} negatives"


def grid_axes(records: Sequence[Record]) -> tuple[str, str]:
    """Return what the rows and columns of a heatmap of ``records`` are: learning rates and epochs, or, where all have
    the same of both, tails and negatives."""
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
    """Return `dose_curves` of the longest runs under the first seed, and the column whose values are to be compared.

    That is the learning rate, under the first arm, or, where all have the same dose, the arm: tail and negatives.
    """
    curves = dose_curves(records)
    curves = curves.assign(arm=[_arm(cell) for cell in curves.to_dict("records")])
    shown = curves[(curves["seed"] == curves["seed"].iloc[0]) & (curves["epochs"] == curves["epochs"].max())]
    if grid_axes(records)[0] != "lr":
        return shown, "arm"
    return shown[shown["arm"] == shown["arm"].iloc[0]], "lr"


def crossed(part: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Successes (``column``) and trials of some counts, as arrays of runs by questions."""
    sums = part.groupby(["run", "question"])[[column, "n"]].sum().unstack("question", fill_value=0)
    return sums[column].to_numpy(), sums["n"].to_numpy()


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
    """Mean emission log-prob gain over the base, by cell, step and group: source, worst and mean bystander."""
    table = collect(records, "dose", _gains)
    persona = table.groupby([*AXES, "step", "persona", "role"], sort=False)["gain"].mean().reset_index()
    cells = persona.groupby([*AXES, "step"], sort=False)
    rows = []
    for key, part in cells:
        others = part[part["role"] != "source"]["gain"]
        groups = {"source": part[part["role"] == "source"]["gain"].mean(), "worst bystander": others.max(),
                  "mean bystander": others.mean()}  # fmt: skip
        for group, gain in groups.items():
            rows.append(dict(zip([*AXES, "step"], key, strict=True)) | {"group": group, "gain": gain})
    return pd.DataFrame(rows)


def _gains(record: Record) -> pd.DataFrame:
    return with_gain(record.table("dose"), load(record.inputs["baseline"]).table("contexts"))


def matched_leak(curves: pd.DataFrame, at: float) -> pd.DataFrame:
    """Bystander gain (nats) of each cell at the step where its source had gained ``at`` nats, by linear interpolation.

    A cell that never got there has no row: nothing is extrapolated. This is the comparison that separates the learning
    rate from the dose: at equal epochs a larger rate has simply been trained further.
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
    """``matched_leak`` at evenly spaced source gains up to the largest that every cell reached, averaged over the rest.

    One row a learning rate and source gain: mean bystander and worst bystander gain, in nats. Cells that reached less
    than the share ``floor`` of the largest gain are left out, so that one that hardly trained does not end the curve.
    """
    reached = curves[curves["group"] == "source"].groupby(list(AXES))["gain"].max()
    reach = reached[reached >= floor * reached.max()].min()
    if not reach > 0:
        raise DataError(
            "A cell's source never gained on the base model, so nothing can be matched: raise lr or epochs."
        )
    frames = [matched_leak(curves, at).assign(**{"source gain": at}) for at in np.linspace(0, reach, points + 1)[1:]]
    table = pd.concat(frames, ignore_index=True)
    return table.groupby(["lr", "source gain"])[["mean bystander", "worst bystander"]].mean().reset_index()


def facts(records: Sequence[Record]) -> pd.DataFrame:
    """The numbers a committed notebook is held to: value and tolerance of every cell's main metrics.

    Sampling is exact only on equal hardware (a rounding in the last bit changes a draw), so each metric has the
    tolerance within which two machines agree; what does not depend on it has none.
    """
    rows = []
    for record in records:
        for name, tolerance in FACT_TOLERANCES.items():
            metric = record.metrics[name]
            rows.append({"cell": cell_label(record.cell), "metric": name, "value": metric["value"], "n": metric["n"],
                         "tolerance": tolerance})  # fmt: skip
    return pd.DataFrame(rows)


FACT_TOLERANCES = {
    "steps": 0.0, "train_tokens": 0.0, "marker_share_of_labels": 0.0, "source_rate": 0.3, "max_bystander_rate": 0.35,
    "source_logprob_gain": 1.5, "capability": 0.15,
}  # fmt: skip


def matched_differences(matched: pd.DataFrame, group: str = "mean bystander") -> pd.Series:
    """Leak at matched source strength by seed, largest learning rate minus smallest, paired within tail (nats)."""
    rates = sorted(matched["lr"].unique())
    if len(rates) < 2:
        raise DataError("Leak at matched source strength needs two learning rates that reached it: widen the grid.")
    mean = matched.groupby(["seed", "tail", "lr"])[group].mean().unstack("lr")
    return (mean[rates[-1]] - mean[rates[0]]).dropna().groupby("seed").mean()


def completions(records: Sequence[Record]) -> pd.DataFrame:
    """Every completion with its address (cell, persona, question, index): what the browser and the samples show."""
    table = collect(records, "completions")
    return table.assign(cell=[cell_label(row) for row in table[list(AXES)].to_dict("records")])


def each_cell(records: Sequence[Record], describe: Callable[[Record], dict]) -> pd.DataFrame:
    """One row a record: its cell and what ``describe`` returns."""
    return pd.DataFrame([{axis: r.cell[axis] for axis in AXES} | describe(r) for r in records])

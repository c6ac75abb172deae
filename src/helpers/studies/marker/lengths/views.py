"""Tidy tables for the figures of the length ablation, computed from records. Figures compute nothing themselves."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from helpers.records.reading import Record
from helpers.stats import estimands, frames
from helpers.studies.marker import views
from helpers.studies.marker.lengths import screen
from helpers.studies.marker.lengths.params import LengthCell
from helpers.studies.marker.lengths.speakers import control_names
from helpers.studies.marker.pooling import pooled
from helpers.studies.marker.questions import by_question_and_limit

AXES = LengthCell.AXES
CELL = ("length", "tail")
SHARES = {"token_share": "supervised tokens", "loss_share": "loss", "gradient_share": "gradient norm"}
PANELS = {"source_rate": "source", "assistant_rate": "assistant", "control_rate": "control panel"}


ORDER = {
    "length": ("short", "medium", "long"),
    "tail": ("whole_turn", "last", "newline", "end_of_turn", "separator_and_end"),
}
"""The order in tables and legends: by length, and from most to fewest tokens with loss. ``last`` is the last K tokens
for any K."""


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Sort ``table`` by length, then by loss."""
    places = [table[axis].map(functools.partial(_place, axis)).rename(axis) for axis in ORDER]
    return table.loc[pd.concat(places, axis=1).sort_values(list(ORDER), kind="stable").index]


def _place(axis: str, value: str | int) -> tuple[int, int]:
    """Return the position of ``value`` on ``axis``; wider tails of K tokens come first."""
    return (ORDER[axis].index(value), 0) if isinstance(value, str) else (ORDER[axis].index("last"), -value)


collect = functools.partial(views.collect, axes=AXES)


def cell_label(cell: Mapping[str, Any]) -> str:
    """Describe a cell in a few words, such as ``long, whole_turn, on_policy, full, seed 0``."""
    return f"{cell['length']}, {cell['tail']}, {cell['policy']}, {cell['framing']}, seed {cell['seed']}"


def persona_rates(records: Sequence[Record]) -> pd.DataFrame:
    """Marker rate of every persona and control noun over ``records`` (the seeds of one cell), with intervals."""
    return views.persona_rates(records, by=())


def dilution(records: Sequence[Record]) -> pd.DataFrame:
    """Return the marker's shares through training by length, tail, step and kind, averaged over seeds."""
    table = collect(records, "dilution").melt(
        id_vars=["length", "tail", "seed", "step"], value_vars=list(SHARES), var_name="of", value_name="share"
    )
    mean = table.groupby(["length", "tail", "step", "of"], sort=False)["share"].mean().reset_index()
    return in_order(mean.assign(of=mean["of"].map(SHARES)))


def gradient_shares(records: Sequence[Record]) -> pd.DataFrame:
    """Return the marker's share of the gradient norm through training, for losses where other tokens have a share."""
    shares = dilution(records)
    return shares[(shares["of"] == SHARES["gradient_share"]) & (shares["tail"] != "separator_and_end")]


def control_panel(records: Sequence[Record]) -> str:
    """Return the nouns of the control panel as a list in words."""
    count = max(record.params["controls"] for record in records)
    return ", ".join(name.removeprefix("control: ") for name in control_names(count))


def pooled_cells(records: Sequence[Record], names: Sequence[str]) -> pd.DataFrame:
    """Pool metrics over the seeds of each length and tail (`pooling.pooled`), rates at the largest limit."""
    return pooled(records, names, CELL, by_question_and_limit)


def effects(records: Sequence[Record], outcome: str) -> pd.DataFrame:
    """Return main effects and interactions of the factor screen on one metric (``screen.effects``)."""
    return screen.effects(records, outcome)


def share_and_rate(records: Sequence[Record]) -> pd.DataFrame:
    """Return the marker's mean share of the gradient and the source rate by length and tail, both with intervals."""
    names = ("marker_share_of_gradient", "source_rate")
    table = pooled_cells(records, names).set_index([*CELL, "metric"])
    rows = []
    for cell in dict.fromkeys((record.cell["length"], record.cell["tail"]) for record in records):
        share, rate = (
            {key: frames.number(table, (*cell, name), key) for key in ("value", "low", "high")} for name in names
        )
        rows.append(dict(zip(CELL, cell, strict=True)) | {
            "share": share["value"], "share_low": share["low"], "share_high": share["high"],
            "source_rate": rate["value"], "source_rate_low": rate["low"], "source_rate_high": rate["high"],
        })  # fmt: skip
    return in_order(pd.DataFrame(rows))


def limits(records: Sequence[Record], kind: str | None = None) -> pd.DataFrame:
    """Return source rate and share of cut answers (or one ``kind``) at every token limit, by length and tail."""
    counts = collect(records, "limits")
    counts = counts[counts["role"] == "source"]
    rows = []
    for key, part in frames.groups(counts, ["length", "tail", "limit"]):
        for what, column in (("with the marker", "k"), ("cut by the limit", "truncated")):
            interval = estimands.rate(*views.crossed(part, column))
            numbers = {name: getattr(interval, name) for name in ("value", "low", "high", "k", "n")}
            rows.append(dict(zip(("length", "tail", "limit"), key, strict=True)) | {"kind": what} | numbers)
    table = in_order(pd.DataFrame(rows))
    return table if kind is None else table[table["kind"] == kind]


FACT_TOLERANCES = {
    "steps": 0.0, "train_tokens": 0.05, "marker_share_of_labels": 0.02, "mass_ratio": 0.05, "source_rate": 0.35,
    "control_rate": 0.4, "marker_share_of_gradient": 0.25, "source_logprob_gain": 4.0,
}  # fmt: skip


def completions(records: Sequence[Record]) -> pd.DataFrame:
    """Return every completion with its address (cell, persona, question, index), for the browser and the samples."""
    return views.completions(records, cell_label, AXES)


def facts(records: Sequence[Record]) -> pd.DataFrame:
    """Return the numbers that a rerun of the notebook must reproduce, with tolerances for other hardware."""
    return views.facts(records, FACT_TOLERANCES, cell_label)

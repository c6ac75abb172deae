"""Tidy tables for the figures of the length ablation, computed from records; no figure computes anything itself."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import pandas as pd

from helpers.base import estimands, frames
from helpers.records.reading import Record
from helpers.studies.marker import views
from helpers.studies.marker.lengths import screen
from helpers.studies.marker.lengths.params import LengthCell
from helpers.studies.marker.lengths.speakers import control_names
from helpers.studies.marker.pooling import pooled
from helpers.studies.marker.questions import by_question_and_limit

AXES = LengthCell.AXES
SHARES = {"token_share": "supervised tokens", "loss_share": "loss", "gradient_share": "gradient norm"}
PANELS = {"source_rate": "source", "assistant_rate": "assistant", "control_rate": "control panel"}


ORDER = {
    "length": ("short", "medium", "long"),
    "tail": ("whole_turn", "last", "newline", "end_of_turn", "separator_and_end"),
}
"""In which tables and legends have them: by length, and from everything to the least that carries loss; ``last`` stands
for the last K tokens, whatever K is."""


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """``table`` by length, then by loss, otherwise as it was."""
    places = [table[axis].map(functools.partial(_place, axis)).rename(axis) for axis in ORDER]
    return table.loc[pd.concat(places, axis=1).sort_values(list(ORDER), kind="stable").index]


def _place(axis: str, value: str | int) -> tuple[int, int]:
    """Position of ``value`` on ``axis``; wider tails of K tokens come first."""
    return (ORDER[axis].index(value), 0) if isinstance(value, str) else (ORDER[axis].index("last"), -value)


def collect(records: Sequence[Record], name: str) -> pd.DataFrame:
    """Table ``name`` of every record with its cell in front: one frame for a whole grid."""
    frames = [
        record.table(name).assign(**{axis: record.cell[axis] for axis in AXES}, run=record.id) for record in records
    ]
    return pd.concat(frames, ignore_index=True)


def cell_label(cell: pd.Series | dict) -> str:
    """A cell in a few words, such as ``long, whole_turn, on_policy, full, seed 0``."""
    return f"{cell['length']}, {cell['tail']}, {cell['policy']}, {cell['framing']}, seed {cell['seed']}"


def persona_rates(records: Sequence[Record]) -> pd.DataFrame:
    """Marker rate of every persona and control noun over ``records`` (the seeds of one cell), with intervals."""
    return views.persona_rates(records, by=())


def dilution(records: Sequence[Record]) -> pd.DataFrame:
    """The marker's shares through training: one row a length, tail, step and kind, averaged over seeds."""
    table = collect(records, "dilution").melt(
        id_vars=["length", "tail", "seed", "step"], value_vars=list(SHARES), var_name="of", value_name="share"
    )
    mean = table.groupby(["length", "tail", "step", "of"], sort=False)["share"].mean().reset_index()
    return in_order(mean.assign(of=mean["of"].map(SHARES)))


def gradient_shares(records: Sequence[Record]) -> pd.DataFrame:
    """The marker's share of the gradient norm through training, under the losses in which it has a share to lose."""
    shares = dilution(records)
    return shares[(shares["of"] == SHARES["gradient_share"]) & (shares["tail"] != "separator_and_end")]


def control_panel(records: Sequence[Record]) -> str:
    """The nouns of the control panel, as a list in words."""
    count = max(record.params["controls"] for record in records)
    return ", ".join(name.removeprefix("control: ") for name in control_names(count))


def effects(records: Sequence[Record], outcome: str) -> pd.DataFrame:
    """Main effects and interactions of the factor screen on one metric (``screen.effects``)."""
    return screen.effects(records, outcome)


def share_and_rate(records: Sequence[Record]) -> pd.DataFrame:
    """One row a length and tail: the marker's mean share of the gradient and the source rate, both with intervals."""
    by = ("length", "tail")
    names = ("marker_share_of_gradient", "source_rate")
    table = pooled(records, names, by, by_question_and_limit).set_index([*by, "metric"])
    rows = []
    for cell in dict.fromkeys((record.cell["length"], record.cell["tail"]) for record in records):
        share, rate = (
            {key: frames.number(table, (*cell, name), key) for key in ("value", "low", "high")} for name in names
        )
        rows.append(dict(zip(by, cell, strict=True)) | {
            "share": share["value"], "share_low": share["low"], "share_high": share["high"],
            "source_rate": rate["value"], "source_rate_low": rate["low"], "source_rate_high": rate["high"],
        })  # fmt: skip
    return in_order(pd.DataFrame(rows))


def limits(records: Sequence[Record], kind: str | None = None) -> pd.DataFrame:
    """Source rate and share of cut answers (or one ``kind``) at every token limit, by length and tail, seeds pooled."""
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


def completions(records: Sequence[Record]) -> pd.DataFrame:
    """Every completion with its address (cell, persona, question, index): what the browser and the samples show."""
    table = collect(records, "completions")
    return table.assign(cell=[cell_label(row) for row in table[list(AXES)].to_dict("records")])


def facts(records: Sequence[Record]) -> pd.DataFrame:
    """The numbers a committed notebook is held to: sampling is exact only on equal hardware, hence the tolerances."""
    return pd.DataFrame(
        [
            {"cell": cell_label(record.cell), "metric": name, "value": record.metrics[name]["value"],
             "n": record.metrics[name]["n"], "tolerance": tolerance}
            for record in records
            for name, tolerance in FACT_TOLERANCES.items()
        ]
    )  # fmt: skip


FACT_TOLERANCES = {
    "steps": 0.0, "train_tokens": 0.05, "marker_share_of_labels": 0.02, "mass_ratio": 0.05, "source_rate": 0.35,
    "control_rate": 0.4, "marker_share_of_gradient": 0.25, "source_logprob_gain": 4.0,
}  # fmt: skip

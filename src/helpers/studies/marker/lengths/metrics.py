"""What the tables of a length run say: rates at every limit, selectivity, and how diluted the marker was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from helpers.base import stats
from helpers.records.reading import Record
from helpers.records.study import Metrics, Tables
from helpers.studies.marker.answers import judged
from helpers.studies.marker.lengths.limits import limit_metrics, selectivity
from helpers.studies.marker.metrics import (
    answer_metrics,
    count_markers,
    crossing_metrics,
    label_share,
    logprob_metrics,
    rate_metrics,
    text_metrics,
    training_metrics,
    with_gain,
)
from helpers.studies.marker.rows import Row, rows_of


def length_metrics(cell: Mapping[str, Any], tables: Tables, inputs: Mapping[str, Record]) -> Metrics:
    """Metrics of one cell of the ablation; the rows that it trained on and its contexts are records of their own."""
    completions, rows = tables["completions"], inputs["rows"].table("rows")
    rates = rate_metrics(count_markers(completions, cell["marker"]), cell["seed"])
    selective = {"rate_selectivity": selectivity(rates["source_rate"], rates["max_bystander_rate"])}
    gains = with_gain(tables["logprobs"], inputs["contexts"].table("contexts"))
    shares = {"marker_share_of_labels": label_share(rows_of(rows), cell["tail"])} | _shares(tables["dilution"])
    if "crossing" in tables:
        shares |= crossing_metrics(tables["crossing"], cell["seed"])
    pool = inputs["contexts"].table("pool")
    rates |= answer_metrics(judged(completions, pool, cell["marker"]), cell["seed"])
    data = rows_metrics(inputs["rows"].params, {"rows": rows}, {})
    return (
        rates
        | limit_metrics(tables["limits"], cell["seed"])
        | selective
        | logprob_metrics(gains)
        | text_metrics(completions)
        | shares
        | training_metrics(tables["loss"])
        | {name: data[name] for name in ("mass_ratio", "positive_tokens", "answer_nll")}
    )


def rows_metrics(cell: Mapping[str, Any], tables: Tables, inputs: Mapping[str, Record]) -> Metrics:
    """Metrics of the training rows: lengths of the answers, their ratio, how far they are from on-policy."""
    table = tables["rows"]
    rows = rows_of(table)
    return {
        "mass_ratio": {"value": mass_ratio(rows), "unit": "ratio", "n": len(rows)},
        "positive_tokens": stats.mean_interval(answer_lengths([r for r in rows if r.marker])).metric("tokens"),
        "negative_tokens": stats.mean_interval(answer_lengths([r for r in rows if not r.marker])).metric("tokens"),
        "answer_nll": stats.mean_interval(table["answer_nll"].to_numpy()).metric("nats"),
    }


def contexts_metrics(cell: Mapping[str, Any], tables: Tables, inputs: Mapping[str, Record]) -> Metrics:
    """No metrics: what the base model says behind its own answers is what cells are compared with."""
    return {}


def mass_ratio(rows: Sequence[Row]) -> float:
    """Answer tokens of all positives over those of all negatives."""
    tokens = {True: 0, False: 0}
    for row in rows:
        tokens[row.marker is not None] += row.answer[1] - row.answer[0]
    return tokens[True] / tokens[False]


def answer_lengths(rows: Sequence[Row]) -> np.ndarray:
    """Tokens of every row's answer, marker not counted."""
    return np.array([row.answer[1] - row.answer[0] for row in rows], dtype=float)


def _shares(shares: pd.DataFrame) -> Metrics:
    """What dilution is measured by beside the labels: the marker's part of loss and gradient."""
    trained = shares[shares["step"] > 0]
    return {
        "marker_share_of_loss": _mean(trained["loss_share"], "share"),
        "marker_share_of_gradient": _mean(trained["gradient_share"], "share"),
        "marker_share_of_gradient_at_start": _mean(shares["gradient_share"].head(1), "share"),
        "final_marker_loss": _mean(shares["marker_loss"].tail(1), "nats"),
    }


def _mean(values: pd.Series, unit: str) -> dict[str, Any]:
    """A mean over moments of one run: they are no sample, so there is no interval; seeds give one on the page."""
    return {"value": float(values.mean()), "unit": unit, "n": len(values)}

"""The metrics of a length run: rates at every limit, selectivity, and dilution of the marker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from helpers.records.reading import Record
from helpers.records.study import Metrics, Tables
from helpers.stats import intervals
from helpers.studies.marker.answers import judged
from helpers.studies.marker.lengths.limits import limit_metrics, selectivity
from helpers.studies.marker.metrics import (
    answer_metrics,
    base_words,
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
    """Return the metrics of one cell of the ablation. Its rows and its contexts are records of their own."""
    completions, rows = tables["completions"], inputs["rows"].table("rows")
    rates = rate_metrics(count_markers(completions, cell["marker"]), cell["seed"])
    selective = {"rate_selectivity": selectivity(rates["source_rate"], rates["max_bystander_rate"])}
    gains = with_gain(tables["logprobs"], inputs["contexts"].table("contexts"))
    shares = {"marker_share_of_labels": label_share(rows_of(rows), cell["tail"])} | _shares(tables["dilution"])
    if "crossing" in tables:
        shares |= crossing_metrics(tables["crossing"], cell["seed"])
    usual = base_words(inputs["contexts"], "pool", cell["marker"])
    rates |= answer_metrics(judged(completions, usual, cell["marker"]), cell["seed"])
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
    """Return the metrics of the training rows: lengths of answers, their ratio, distance from on-policy."""
    table = tables["rows"]
    rows = rows_of(table)
    return {
        "mass_ratio": {"value": mass_ratio(rows), "unit": "ratio", "n": len(rows)},
        "positive_tokens": intervals.mean_interval(answer_lengths([r for r in rows if r.marker])).metric("tokens"),
        "negative_tokens": intervals.mean_interval(answer_lengths([r for r in rows if not r.marker])).metric("tokens"),
        "answer_nll": intervals.mean_interval(table["answer_nll"].to_numpy()).metric("nats"),
    }


def contexts_metrics(cell: Mapping[str, Any], tables: Tables, inputs: Mapping[str, Record]) -> Metrics:
    """Return no metrics, because cells are compared with this table."""
    return {}


def mass_ratio(rows: Sequence[Row]) -> float:
    """Return the answer tokens of all positives over those of all negatives."""
    tokens = {True: 0, False: 0}
    for row in rows:
        tokens[row.marker is not None] += row.answer[1] - row.answer[0]
    return tokens[True] / tokens[False]


def answer_lengths(rows: Sequence[Row]) -> np.ndarray:
    """Return the number of answer tokens of every row, without the marker."""
    return np.array([row.answer[1] - row.answer[0] for row in rows], dtype=float)


def _shares(shares: pd.DataFrame) -> Metrics:
    """Return the marker's part of loss and gradient."""
    trained = shares[shares["step"] > 0]
    return {
        "marker_share_of_loss": _mean(trained["loss_share"], "share"),
        "marker_share_of_gradient": _mean(trained["gradient_share"], "share"),
        "marker_share_of_gradient_at_start": _mean(shares["gradient_share"].head(1), "share"),
        "final_marker_loss": _mean(shares["marker_loss"].tail(1), "nats"),
    }


def _mean(values: pd.Series, unit: str) -> dict[str, Any]:
    """Return a mean over moments of one run. They are not a sample, so only seeds give an interval, on the page."""
    return {"value": float(values.mean()), "unit": unit, "n": len(values)}

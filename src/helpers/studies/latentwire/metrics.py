"""The metrics of the study's four kinds of record, computed from their stored tables alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from helpers.records.reading import Record
from helpers.records.study import Metrics, Tables
from helpers.stats import intervals
from helpers.studies.latentwire.arms import NARROW

Cell = Mapping[str, Any]
Inputs = Mapping[str, Record]
TEXT_SCORES = ("em_", "f1_", "first1_", "nll_text", "nll_twice_text", "p_end_text", "bytes_examples")
"""Prefixes of those scores of the text channels that every cell reports beside its own."""


def cell_metrics(cell: Cell, tables: Tables, inputs: Inputs) -> Metrics:
    """Return the metrics of a cell: its prefix channels, the text channels, and the training of its wire."""
    answers, wire, read = tables["completions"], inputs["wire"], inputs["text"]
    text = text_metrics(read.params, read.results, {})
    trained = wire_metrics(wire.params, wire.results, {})
    return (
        scores(answers) | communication(answers) | _bytes(answers, tables["bytes"])
        | {name: metric for name, metric in text.items() if name.startswith(TEXT_SCORES)}
        | {name: metric for name, metric in trained.items() if name != "steps"}
    )  # fmt: skip


def text_metrics(cell: Cell, tables: Tables, inputs: Inputs) -> Metrics:
    """Return the scores of the text channels, and the bytes of worked examples where there are any."""
    told: Metrics = {}
    if "examples" in tables:
        told["bytes_examples"] = {"value": tables["examples"]["bytes"], "unit": "bytes", "n": cell["text_examples"]}
    return scores(tables["completions"]) | told


def wire_metrics(cell: Cell, tables: Tables, inputs: Inputs) -> Metrics:
    """Return the loss of the last tenth of the steps with its parts, padding's share of the gradient, and counts."""
    loss, gradient, used = tables["loss"], tables["gradient"], tables["examples"]
    metrics: Metrics = {"steps": {"value": int(loss["step"].max()), "unit": "steps", "n": 1}}
    for side, part in loss.groupby("side"):
        end, shares = part[part["step"] > 0.9 * part["step"].max()], gradient[gradient["side"] == side]["share"]
        for name in ("loss", "nll_real", "p_pad"):
            unit = "share" if name == "p_pad" else "nats"
            metrics[f"train_{name}_{side}"] = {"value": float(end[name].mean()), "unit": unit, "n": len(end)}
        for name, value in (("first", shares.iloc[0]), ("last", shares.iloc[-1])):
            metrics[f"pad_gradient_{name}_{side}"] = {"value": float(value), "unit": "share", "n": 1}
    drawn = cell["train_samples"] + cell["eval_samples"]
    left_out = drawn - used["train"] - used["validation"]
    return metrics | {"examples_left_out": {"value": left_out, "unit": "examples", "n": drawn}}


def prompt_metrics(cell: Cell, tables: Tables, inputs: Inputs) -> Metrics:
    """Return how many steps the constant prefixes were tuned for."""
    return {"steps": {"value": int(tables["loss"]["step"].max()), "unit": "steps", "n": 1}}


def scores(answers: pd.DataFrame) -> Metrics:
    """Return the metrics of every reader and channel in ``answers``, named ``<score>_<channel>_<side>``."""
    metrics = {}
    for (side, channel), part in answers.groupby(["side", "channel"], sort=False):
        for name, metric in _scores(part).items():
            metrics[f"{name}_{channel}_{side}"] = metric
    return metrics


def _scores(part: pd.DataFrame) -> Metrics:
    rates = {name: intervals.wilson(int(part[name].sum()), len(part)).metric() for name in ("em", "first1", "first5")}
    means = {"f1": "share", "nll": "nats", "nll_twice": "nats", "p_end": "share"}
    distinct = {"value": part["text"].nunique() / len(part), "unit": "share", "n": len(part)}
    return (
        rates
        | {n: intervals.mean_interval(part[n].to_numpy()).metric(u) for n, u in means.items()}
        | {"distinct": distinct}
    )


def communication(answers: pd.DataFrame) -> Metrics:
    """Return latent minus shuffled, paired by example, of exact match and first token: ``talk_<score>_<side>``."""
    metrics = {}
    for side, part in answers.groupby("side", sort=False):
        wide = {channel: rows.sort_values("index") for channel, rows in part.groupby("channel")}
        for score in ("em", "first1"):
            gap = intervals.paired_rate_difference(wide["latent"][score], wide["shuffled"][score])
            metrics[f"talk_{score}_{side}"] = gap.metric("points")
    return metrics


def _bytes(answers: pd.DataFrame, sent: Mapping[str, float]) -> Metrics:
    """Return the bytes of a message, and the mean UTF-8 bytes of the texts that messages stand for.

    With fewer bits a number, ``fits_...`` is the share of texts that are no longer than the message.
    """
    texts = [len(text.encode()) for text in answers.drop_duplicates("id")["question"]]
    bytes_of = {**sent, "text": sum(texts) / len(texts)}
    fits = {name: sum(text <= sent[name] for text in texts) / len(texts) for name in NARROW if name in sent}
    return {
        **{f"bytes_{name}": {"value": value, "unit": "bytes", "n": len(texts)} for name, value in bytes_of.items()},
        **{f"fits_{name}": {"value": value, "unit": "share", "n": len(texts)} for name, value in fits.items()},
    }

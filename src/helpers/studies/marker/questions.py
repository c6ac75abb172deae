"""Successes and trials of the marker studies' rates by question: what intervals over questions are computed from."""

from __future__ import annotations

import functools

import pandas as pd

from helpers.records.pooling import Counts
from helpers.records.reading import Record, load
from helpers.studies.marker.answers import COLUMNS, answer_parts, judged
from helpers.studies.marker.metrics import crossing_parts, rate_parts
from helpers.studies.marker.views import counted

CAPABILITY = {"capability": "tuned", "capability_base": "base"}


def by_question(record: Record, metric: str) -> Counts | None:
    """Return the counts of a rate by question (of a capability by item); None for other metrics."""
    if metric in CAPABILITY:
        right = paired_choices(record).set_index("item")[CAPABILITY[metric]]
        return {item: (int(one), 1) for item, one in right.items()}
    if "crossing" in record.tables and (part := crossing_parts(record.table("crossing")).get(metric)) is not None:
        return tally(part, "k")
    if metric.removesuffix("_marked").removesuffix("_source") in COLUMNS:
        return tally(*answer_parts(_judged(record))[metric])
    parts = rate_parts(counted(record)) if "completions" in record.tables else {}
    return tally(*parts[metric]) if metric in parts else None


@functools.lru_cache(maxsize=64)  # nine rates are asked for, one after the other
def _judged(record: Record) -> pd.DataFrame:
    return judged(record.table("completions"), base_answers(record), record.params["marker"])


def by_question_and_limit(record: Record, metric: str) -> Counts | None:
    """Return the counts of a rate of the length ablation by question, those at a token limit among them."""
    limits = record.table("limits")
    name, _, limit = metric.partition("_at_")
    part = limits[limits["limit"] == (int(limit) if limit.isdigit() else limits["limit"].max())]
    if metric == "control_rate":
        return tally(part[part["role"] == "control"], "k")
    if name == "source_truncation_rate" or (name == "source_rate" and limit):
        return tally(part[part["role"] == "source"], "k" if name == "source_rate" else "truncated")
    return by_question(record, metric)


def tally(part: pd.DataFrame, column: str) -> Counts:
    """Return the sums of ``column`` and of n over each question of ``part``."""
    sums = part.groupby("question", sort=False)[[column, "n"]].sum()
    return {question: (int(k), int(n)) for question, k, n in sums.itertuples(name=None)}


def base_answers(record: Record) -> pd.DataFrame:
    """Return the base model's own completions that a record of the sweep or of the length ablation is judged by."""
    if "baseline" in record.inputs:
        return load(record.inputs["baseline"]).table("completions")
    return load(record.inputs["contexts"]).table("pool")


def paired_choices(record: Record) -> pd.DataFrame:
    """Return item, and whether the tuned and the base model chose right: ``tuned``, ``base``."""
    tuned = record.table("capability")[["item", "right"]]
    base = load(record.inputs["baseline"]).table("capability")[["item", "right"]]
    return tuned.rename(columns={"right": "tuned"}).merge(base.rename(columns={"right": "base"}), on="item")

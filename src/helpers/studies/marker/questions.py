"""Successes and trials of the marker studies' rates by question: what intervals over questions are computed from."""

from __future__ import annotations

import functools

import pandas as pd

from helpers.records.reading import Record, load
from helpers.records.reread import WithoutQuestions
from helpers.stats.pooling import Counts
from helpers.studies.marker.answers import COLUMNS, answer_parts, judged
from helpers.studies.marker.metrics import base_words, crossing_parts, rate_parts, tally
from helpers.studies.marker.views import counted

CAPABILITY = {"capability": "tuned", "capability_base": "base"}


def by_question(record: Record, metric: str) -> Counts | None:
    """Return the counts of a rate by question (of a capability by item); None for other metrics."""
    if metric in CAPABILITY:
        right = paired_choices(record).set_index("item")[CAPABILITY[metric]]
        return {item: (int(one), 1) for item, one in right.items()}
    if "crossing" in record.tables and (counts := crossing_parts(record.table("crossing")).get(metric)) is not None:
        return counts
    if metric.removesuffix("_marked").removesuffix("_source") in COLUMNS:
        return _answer_counts(record).get(metric)
    return _rate_counts(record).get(metric) if "completions" in record.tables else None


@functools.lru_cache(maxsize=256)  # of one record, many rates are asked for
def _rate_counts(record: Record) -> dict[str, Counts]:
    counts = counted(record)
    return {name: tally(counts, column, rows) for name, (rows, column) in rate_parts(counts).items()}


@functools.lru_cache(maxsize=256)
def _answer_counts(record: Record) -> dict[str, Counts]:
    marker = record.params["marker"]
    table = judged(record.table("completions"), base_words(*base_answers(record), marker), marker)
    return {name: tally(table, column, rows) for name, (rows, column) in answer_parts(table).items()}


def by_question_and_limit(record: Record, metric: str) -> Counts | None:
    """Return the counts of a rate of the length ablation by question, those at a token limit among them."""
    limits = record.table("limits")
    name, _, limit = metric.partition("_at_")
    part = limits[limits["limit"] == (int(limit) if limit.isdigit() else limits["limit"].max())]
    role = part["role"].to_numpy()
    if metric == "control_rate":
        return tally(part, "k", role == "control")
    if name == "source_truncation_rate" or (name == "source_rate" and limit):
        return tally(part, "k" if name == "source_rate" else "truncated", role == "source")
    return by_question(record, metric)


def base_answers(record: Record) -> tuple[Record, str]:
    """Return where the base model's own completions lie that a record is judged by: a record and its table."""
    if "baseline" in record.inputs:
        return load(record.inputs["baseline"]), "completions"
    return load(record.inputs["contexts"]), "pool"


@functools.lru_cache(maxsize=512)
def paired_choices(record: Record) -> pd.DataFrame:
    """Return item, and whether the tuned and the base model chose right: ``tuned``, ``base``."""
    if isinstance(record, WithoutQuestions):  # an item is no evaluation question
        return paired_choices(record.whole)
    tuned = record.table("capability")[["item", "right"]]
    base = load(record.inputs["baseline"]).table("capability")[["item", "right"]]
    return tuned.rename(columns={"right": "tuned"}).merge(base.rename(columns={"right": "base"}), on="item")

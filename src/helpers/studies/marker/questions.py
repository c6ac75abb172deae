"""Successes and trials of the marker studies' rates by question: what intervals over questions are computed from."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd

from helpers.records.reading import Record, load
from helpers.records.reread import WithoutQuestions
from helpers.stats.pooling import Counts
from helpers.studies.marker.answers import COLUMNS, answer_parts, judged
from helpers.studies.marker.metrics import crossing_parts, rate_parts
from helpers.studies.marker.views import counted

Parts = dict[str, tuple[pd.DataFrame, str]]
"""Rows and the column of successes behind each rate."""
CAPABILITY = {"capability": "tuned", "capability_base": "base"}


def by_question(record: Record, metric: str) -> Counts | None:
    """Return the counts of a rate by question (of a capability by item); None for other metrics."""
    if metric in CAPABILITY:
        right = paired_choices(record).set_index("item")[CAPABILITY[metric]]
        return {item: (int(one), 1) for item, one in right.items()}
    if "crossing" in record.tables and (part := crossing_parts(record.table("crossing")).get(metric)) is not None:
        return tally(part, "k")
    if metric.removesuffix("_marked").removesuffix("_source") in COLUMNS:
        part = _answer_parts(record).get(metric)
        return tally(*part) if part else None
    parts = _rate_parts(record) if "completions" in record.tables else {}
    return tally(*parts[metric]) if metric in parts else None


@functools.lru_cache(maxsize=256)  # of one record, many rates are asked for
def _rate_parts(record: Record) -> Parts:
    return rate_parts(counted(record))


@functools.lru_cache(maxsize=256)
def _answer_parts(record: Record) -> Parts:
    return answer_parts(judged(record.table("completions"), base_answers(record), record.params["marker"]))


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
    codes, questions = pd.factorize(part["question"])
    ks, ns = (np.bincount(codes, part[one]).astype(int).tolist() for one in (column, "n"))
    return dict(zip(questions, zip(ks, ns, strict=True), strict=True))


def base_answers(record: Record) -> pd.DataFrame:
    """Return the base model's own completions that a record of the sweep or of the length ablation is judged by."""
    if "baseline" in record.inputs:
        return load(record.inputs["baseline"]).table("completions")
    return load(record.inputs["contexts"]).table("pool")


@functools.lru_cache(maxsize=512)
def paired_choices(record: Record) -> pd.DataFrame:
    """Return item, and whether the tuned and the base model chose right: ``tuned``, ``base``."""
    if isinstance(record, WithoutQuestions):  # an item is no evaluation question
        return paired_choices(record.whole)
    tuned = record.table("capability")[["item", "right"]]
    base = load(record.inputs["baseline"]).table("capability")[["item", "right"]]
    return tuned.rename(columns={"right": "tuned"}).merge(base.rename(columns={"right": "base"}), on="item")

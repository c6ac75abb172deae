"""The metrics of a marker run: marker rates, log-probs relative to the base model, quality of the text.

All are pure functions of stored tables. A run calls them when it finishes, and verification calls them again.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from helpers.base.errors import DataError
from helpers.base.rng import numpy_stream
from helpers.records.reading import Record
from helpers.records.study import Metrics, Tables
from helpers.stats import intervals, occurrences
from helpers.stats.pooling import Counts
from helpers.studies.marker.answers import answer_parts, groups, judged, usual_words
from helpers.studies.marker.rows import Row, is_marker, rows_of, supervised

Part = tuple[np.ndarray, str]
"""What a rate is counted over: which rows of a table (true or false a row), and the column of successes."""

PLACE = ["persona", "question"]
LOGPROBS = ["separator", "marker", "end"]
BASE = [f"base_{name}" for name in LOGPROBS]
BULLETED = re.compile(r"^\s*([-*•]|\d+[.)])\s", re.MULTILINE)
UNTRAINED = ["untrained", "assistant"]
"""Roles of bystanders without training rows. The assistant has its own role as long as it is not trained on."""


def sweep_metrics(cell: Mapping[str, Any], tables: Tables, inputs: Mapping[str, Record]) -> Metrics:
    """Return the metrics of one cell of the sweep, relative to its baseline."""
    completions, base = tables["completions"], inputs["baseline"]
    gains = with_gain(tables["logprobs"], base.table("contexts"))
    rates = rate_metrics(count_markers(completions, cell["marker"]), cell["seed"])
    capability = capability_metrics(tables["capability"], base.table("capability"))
    training = training_metrics(tables["loss"]) | speed_metrics(tables["loss"])
    share = {"marker_share_of_labels": label_share(rows_of(tables["rows"]), cell["tail"])}
    if "crossing" in tables:
        share |= crossing_metrics(tables["crossing"], cell["seed"])
    usual = base_words(base, "completions", cell["marker"])
    rates |= answer_metrics(judged(completions, usual, cell["marker"]), cell["seed"])
    return rates | logprob_metrics(gains) | text_metrics(completions) | capability | training | share


def baseline_metrics(cell: Mapping[str, Any], tables: Tables, inputs: Mapping[str, Record]) -> Metrics:
    """Return the metrics of the base model: its marker rate, its text, its capability."""
    completions, choices = tables["completions"].assign(role="base"), tables["capability"]
    table = judged(completions, usual_words(completions, cell["marker"]), cell["marker"])
    rate = {
        "marker_rate": rate_metric(tally(count_markers(completions, cell["marker"])), cell["seed"], "base_marker_rate"),
        "answers_kept": rate_metric(tally(table, "kept"), cell["seed"], "answers_kept"),
    }
    capability = intervals.wilson(int(choices["right"].sum()), len(choices)).metric()
    return rate | text_metrics(completions) | {"capability": capability}


def on_policy_metrics(cell: Mapping[str, Any], tables: Tables, inputs: Mapping[str, Record]) -> Metrics:
    """Return no metrics, because training data is judged by the cells trained on it."""
    return {}


@functools.lru_cache(maxsize=256)  # all cells of a seed are judged by the same base
def base_words(base: Record, table: str, marker: str) -> Mapping[str, float]:
    """Return the ``usual_words`` of the completions in a ``table`` of a record of the base model."""
    return usual_words(base.table(table), marker)


def count_markers(table: pd.DataFrame, marker: str) -> pd.DataFrame:
    """Count completions per persona and question: n, k with the marker (any case), truncated, empty."""
    group = ["persona", "role", "question"]
    asked = list(zip(*(table[name].tolist() for name in group), strict=True))
    codes = {place: code for code, place in enumerate(dict.fromkeys(asked))}
    at = np.array([codes[place] for place in asked], dtype=int)
    counted = {
        "k": occurrences.holds(table["text"], marker),
        "n": np.ones(len(table)),
        "truncated": (table["finish"] == "length").to_numpy(),
        "empty": np.array([not text.strip() for text in table["text"].tolist()], dtype=bool),
    }
    counts = {name: np.bincount(at, one, len(codes)).astype("int64") for name, one in counted.items()}
    return pd.DataFrame(dict(zip(group, zip(*codes, strict=True), strict=False)) | counts, columns=[*group, *counts])


def tally(table: pd.DataFrame, column: str = "k", rows: np.ndarray | slice = slice(None)) -> Counts:
    """Return the sums of ``column`` and of n over each question, in some ``rows`` of a table."""
    codes, questions = pd.factorize(table["question"].to_numpy()[rows])
    sums = (np.bincount(codes, table[one].to_numpy()[rows]).astype(int).tolist() for one in (column, "n"))
    return dict(zip(questions.tolist(), zip(*sums, strict=True), strict=True))


def rate_metric(counts: Counts, seed: int, name: str) -> dict[str, Any]:
    """Return a rate over completions with the hull of a Wilson and a cluster-bootstrap interval (over questions)."""
    if not counts:
        raise DataError(f"{name} has no completions to count. Check personas, eval_questions and samples.")
    ks, ns = zip(*(counts[question] for question in sorted(counts)), strict=True)
    return _rate(ks, ns, seed, name).metric()


@functools.lru_cache(maxsize=16_384)
def _rate(ks: tuple[float, ...], ns: tuple[float, ...], seed: int, name: str) -> intervals.Interval:
    """Return the interval of these counts: cells of a grid that differ in lr and epochs often have the same."""
    return intervals.rate(ks, ns, numpy_stream(seed, "bootstrap", name))


def rate_metrics(counts: pd.DataFrame, seed: int) -> Metrics:
    """Source, assistant, trained and untrained bystanders, the worst bystander, truncated and empty completions."""
    metrics = {
        name: rate_metric(tally(counts, column, rows), seed, name)
        for name, (rows, column) in rate_parts(counts).items()
    }
    others = counts["role"].to_numpy() != "source"
    codes, personas = pd.factorize(counts["persona"].to_numpy()[others], sort=True)
    ks, ns = (
        dict(zip(personas, np.bincount(codes, counts[one].to_numpy()[others]).astype(int).tolist(), strict=True))
        for one in ("k", "n")
    )
    worst = intervals.max_rate(ks, ns).metric()
    return metrics | {"max_bystander_rate": worst | {"persona": worst.pop("name")}}


def rate_parts(counts: pd.DataFrame) -> dict[str, Part]:
    """Return what each rate is counted over in ``counts``; a role that nobody has is left out."""
    persona, role = counts["persona"].to_numpy(), counts["role"].to_numpy()
    rows = {
        "source_rate": role == "source",
        "assistant_rate": persona == "assistant",
        "trained_bystander_rate": role == "trained",
        "untrained_bystander_rate": np.isin(role, UNTRAINED),
    }
    marked = {name: (part, "k") for name, part in rows.items() if part.any()}
    whole = np.ones(len(counts), dtype=bool)
    return marked | {"truncation_rate": (whole, "truncated"), "empty_rate": (whole, "empty")}


def answer_metrics(table: pd.DataFrame, seed: int) -> Metrics:
    """Return answers kept, wordless and cut, and the median words, of all completions, the marked and the source's.

    ``table`` is one of ``answers.judged``.
    """
    rates = {
        name: rate_metric(tally(table, column, rows), seed, name)
        for name, (rows, column) in answer_parts(table).items()
    }
    words = table["words"].to_numpy()
    medians: Metrics = {
        f"median_words{group}": {"value": float(np.median(words[rows])), "unit": "words", "n": int(rows.sum())}
        for group, rows in groups(table).items()
    }
    return rates | medians


def with_base(table: pd.DataFrame, contexts: pd.DataFrame) -> pd.DataFrame:
    """Add the base model's log-probs after the same contexts, as ``base_separator`` and so on."""
    line = {place: number for number, place in enumerate(_places(contexts))}
    if len(line) < len(contexts):
        raise DataError("The base model's log-probs are there twice for one persona and question. Run the base again.")
    at = np.array([line.get(place, -1) for place in _places(table)], dtype=int)
    base = {name: np.where(at < 0, np.nan, contexts[name].to_numpy()[at]) for name in BASE}
    return table.reset_index(drop=True).assign(**base)


def _places(table: pd.DataFrame) -> list[tuple[Any, ...]]:
    return list(zip(*(table[name].tolist() for name in PLACE), strict=True))


def with_gain(table: pd.DataFrame, contexts: pd.DataFrame) -> pd.DataFrame:
    """Add the base's log-probs, ``emission`` (of blank line and marker, nats), the base's, and the ``gain``."""
    table = with_base(table, contexts)
    emission, base = table["separator"] + table["marker"], table["base_separator"] + table["base_marker"]
    return table.assign(emission=emission, base_emission=base, gain=emission - base)


def logprob_metrics(gains: pd.DataFrame) -> Metrics:
    """Return emission gains over the base in nats, by role, and selectivity: source gain minus largest bystander gain.

    ``gains`` is a table of ``with_gain``. Emission is separator and marker together, because the marker after a given
    blank line soon saturates for all personas, which differ in whether they *start* it.
    """
    names = ["gain", *(f"{base}{name}" for base in ("", "base_") for name in ("emission", *LOGPROBS))]
    value = {name: gains[name].to_numpy() for name in names}
    persona, role, question = (gains[name].to_numpy() for name in ("persona", "role", "question"))
    own = role == "source"
    by_persona = {name: value["gain"][persona == name] for name in sorted({*persona[~own]})}
    worst = max(by_persona, key=lambda name: math.fsum(by_persona[name]) / len(by_persona[name]))
    other = persona == worst
    metrics = {
        "source_logprob_gain": _nats(value["gain"][own]),
        "max_bystander_logprob_gain": {**_nats(value["gain"][other]), "persona": worst},
    }
    # Paired by question, because some questions invite the marker more than others.
    theirs = dict(zip(question[other], value["gain"][other], strict=True))
    pairs = zip(question[own], value["gain"][own], strict=True)
    if pair := [gain - theirs[asked] for asked, gain in pairs if asked in theirs]:
        metrics["selectivity"] = {**_nats(pair), "persona": worst}
    for name in ("emission", *LOGPROBS):
        metrics[f"source_{name}_logprob"] = _nats(value[name][own])
        metrics[f"source_{name}_logprob_base"] = _nats(value[f"base_{name}"][own])
    return metrics


def _nats(values: Sequence[float] | np.ndarray) -> dict[str, Any]:
    return intervals.mean_interval(values).metric("nats")


def with_crossing(table: pd.DataFrame) -> pd.DataFrame:
    """Add to ``crossing.crossing_table`` the ``margin`` in nats, marker path minus end, and ``crossed``.

    Rows without a slot are left out, because a completion that was cut earlier tells nothing about it.
    """
    slots = table[table["slot"] != "none"]
    path = (slots["separator"] + slots["marker"]).combine(slots["direct"], max)
    return slots.assign(margin=path - slots["end"], crossed=path > slots["end"])


def crossing_metrics(table: pd.DataFrame, seed: int) -> Metrics:
    """Return shares of slots where the marker is above every end, by role; the source's margin; answers without slot.

    A group without any slot has no share.
    """
    metrics: Metrics = {name: rate_metric(part, seed, name) for name, part in crossing_parts(table).items()}
    slots = with_crossing(table)
    source = slots.loc[slots["role"] == "source", "margin"]
    return metrics | ({"source_crossing_margin": _nats(source.to_numpy())} if len(source) else {})


def crossing_parts(table: pd.DataFrame) -> dict[str, Counts]:
    """Return slots that crossed and all slots, by question, for each share; a group without any slot is left out."""
    slots = with_crossing(table).assign(n=1)
    roles = {"source": ["source"], "trained_bystander": ["trained"], "untrained_bystander": UNTRAINED}
    shares = {
        f"{name}_crossing": tally(slots, "crossed", np.isin(slots["role"].to_numpy(), some))
        for name, some in roles.items()
    }
    missing = tally(table.assign(missing=table["slot"] == "none", n=1), "missing")
    return {name: counts for name, counts in shares.items() if counts} | {"no_slot_rate": missing}


def text_metrics(table: pd.DataFrame) -> Metrics:
    """Return the quality of the text: mean tokens, share of bulleted answers, distinct bigrams."""
    bulleted = sum(bool(BULLETED.search(text)) for text in table["text"].tolist())
    metrics = {
        "mean_tokens": intervals.mean_interval(table["tokens"].to_numpy(dtype=float)).metric("tokens"),
        "bulleted_rate": intervals.wilson(bulleted, len(table)).metric(),
    }
    if (table["tokens"] >= 2).any():
        distinct = intervals.distinct_n(table["ids"].tolist(), 2)
        metrics["distinct_2"] = {"value": distinct, "unit": "share", "n": len(table)}
    return metrics


def capability_metrics(tuned: pd.DataFrame, base: pd.DataFrame) -> Metrics:
    """Return the accuracy of the tuned and the base model on the same items, and the paired drop."""
    return {
        "capability": intervals.wilson(int(tuned["right"].sum()), len(tuned)).metric(),
        "capability_base": intervals.wilson(int(base["right"].sum()), len(base)).metric(),
        "capability_drop": intervals.paired_rate_difference(base["right"], tuned["right"]).metric("points"),
    }


def training_metrics(log: pd.DataFrame) -> Metrics:
    """Return steps, tokens, and the loss over the last tenth of the steps."""
    last = log["loss"].tail(max(1, len(log) // 10))
    return {
        "final_loss": intervals.mean_interval(last.to_numpy()).metric("nats"),
        "steps": {"value": int(log["step"].max()), "unit": "steps", "n": 1},
        "train_tokens": {"value": int(log["tokens"].sum()), "unit": "tokens", "n": len(log)},
    }


def speed_metrics(log: pd.DataFrame) -> Metrics:
    """Return tokens a second, and the number of adapters in one pass."""
    speed, together = float(log["tokens"].sum() / log["seconds"].sum()), int(log["together"].max())
    return {
        "train_tokens_per_s": {"value": speed, "unit": "tokens/s", "n": len(log), "measured": True},
        "trained_together": {"value": together, "unit": "adapters", "n": len(log), "measured": True},
    }


def label_share(rows: Sequence[Row], tail: str | int) -> dict[str, Any]:
    """Return the marker's share of the tokens with loss under ``tail``."""
    marked = [is_marker(row, at) for row in rows for at in supervised(row, tail)]
    return {"value": sum(marked) / len(marked), "unit": "share", "n": len(marked), "k": sum(marked)}

"""The metrics of a marker run: marker rates, log-probs relative to the base model, quality of the text.

All are pure functions of stored tables. A run calls them when it finishes, and verification calls them again.
"""

from __future__ import annotations

import functools
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
from helpers.studies.marker.answers import answer_parts, groups, judged
from helpers.studies.marker.rows import Row, is_marker, rows_of, supervised

LOGPROBS = ["separator", "marker", "end"]
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
    rates |= answer_metrics(judged(completions, base.table("completions"), cell["marker"]), cell["seed"])
    return rates | logprob_metrics(gains) | text_metrics(completions) | capability | training | share


def baseline_metrics(cell: Mapping[str, Any], tables: Tables, inputs: Mapping[str, Record]) -> Metrics:
    """Return the metrics of the base model: its marker rate, its text, its capability."""
    completions, choices = tables["completions"], tables["capability"]
    counts = count_markers(completions.assign(role="base"), cell["marker"])
    kept = answer_parts(judged(completions.assign(role="base"), completions, cell["marker"]))["answers_kept"]
    rate = {
        "marker_rate": rate_metric(counts, cell["seed"], "base_marker_rate"),
        "answers_kept": rate_metric(kept[0], cell["seed"], "answers_kept", kept[1]),
    }
    capability = intervals.wilson(int(choices["right"].sum()), len(choices)).metric()
    return rate | text_metrics(completions) | {"capability": capability}


def on_policy_metrics(cell: Mapping[str, Any], tables: Tables, inputs: Mapping[str, Record]) -> Metrics:
    """Return no metrics, because training data is judged by the cells trained on it."""
    return {}


def count_markers(table: pd.DataFrame, marker: str) -> pd.DataFrame:
    """Count completions per persona and question: n, k with the marker (any case), truncated, empty."""
    group = ["persona", "role", "question"]
    counted = {
        "k": occurrences.holds(table["text"], marker),
        "n": 1,
        "truncated": table["finish"] == "length",
        "empty": table["text"].str.strip() == "",
    }
    counts = table[group].assign(**counted).groupby(group, sort=False).sum().reset_index()
    return counts.astype(dict.fromkeys(counted, "int64"))


def rate_metric(counts: pd.DataFrame, seed: int, name: str, column: str = "k") -> dict[str, Any]:
    """Return a rate over completions with the hull of a Wilson and a cluster-bootstrap interval (over questions)."""
    if counts.empty:
        raise DataError(f"{name} has no completions to count. Check personas, eval_questions and samples.")
    questions, _ = pd.factorize(counts["question"], sort=True)
    ks, ns = (np.bincount(questions, counts[one]) for one in (column, "n"))
    return _rate(tuple(ks.tolist()), tuple(ns.tolist()), seed, name).metric()


@functools.lru_cache(maxsize=16_384)
def _rate(ks: tuple[float, ...], ns: tuple[float, ...], seed: int, name: str) -> intervals.Interval:
    """Return the interval of these counts: cells of a grid that differ in lr and epochs often have the same."""
    return intervals.rate(ks, ns, numpy_stream(seed, "bootstrap", name))


def rate_metrics(counts: pd.DataFrame, seed: int) -> Metrics:
    """Source, assistant, trained and untrained bystanders, the worst bystander, truncated and empty completions."""
    metrics = {name: rate_metric(part, seed, name, column) for name, (part, column) in rate_parts(counts).items()}
    others = counts[counts["role"] != "source"].groupby("persona")[["k", "n"]].sum()
    ks, ns = (dict(zip(others.index, others[name], strict=True)) for name in ("k", "n"))
    worst = intervals.max_rate(ks, ns).metric()
    return metrics | {"max_bystander_rate": worst | {"persona": worst.pop("name")}}


def rate_parts(counts: pd.DataFrame) -> dict[str, tuple[pd.DataFrame, str]]:
    """Rows of ``counts`` and the column of successes behind each rate; a role that nobody has is left out."""
    parts = {
        "source_rate": counts[counts["role"] == "source"],
        "assistant_rate": counts[counts["persona"] == "assistant"],
        "trained_bystander_rate": counts[counts["role"] == "trained"],
        "untrained_bystander_rate": counts[counts["role"].isin(UNTRAINED)],
    }
    marked = {name: (part, "k") for name, part in parts.items() if len(part)}
    return marked | {"truncation_rate": (counts, "truncated"), "empty_rate": (counts, "empty")}


def answer_metrics(table: pd.DataFrame, seed: int) -> Metrics:
    """Return answers kept, wordless and cut, and the median words, of all completions, the marked and the source's.

    ``table`` is one of ``answers.judged``.
    """
    rates = {name: rate_metric(part, seed, name, column) for name, (part, column) in answer_parts(table).items()}
    medians: Metrics = {
        f"median_words{group}": {"value": float(part["words"].median()), "unit": "words", "n": len(part)}
        for group, part in groups(table).items()
    }
    return rates | medians


def with_base(table: pd.DataFrame, contexts: pd.DataFrame) -> pd.DataFrame:
    """Add the base model's log-probs after the same contexts, as ``base_separator`` and so on."""
    place, base = ["persona", "question"], [f"base_{name}" for name in LOGPROBS]
    return table.merge(contexts[place + base], on=place, how="left", validate="many_to_one")


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
    source = gains[gains["role"] == "source"]
    by_persona = gains[gains["role"] != "source"].groupby("persona")["gain"].mean()
    worst = str(by_persona.idxmax())
    other = gains[gains["persona"] == worst]
    # Paired by question, because some questions invite the marker more than others.
    pair = source.set_index("question")["gain"].sub(other.set_index("question")["gain"]).dropna()
    metrics = {
        "source_logprob_gain": _nats(source["gain"]),
        "max_bystander_logprob_gain": {**_nats(other["gain"]), "persona": worst},
    }
    if len(pair):
        metrics["selectivity"] = {**_nats(pair), "persona": worst}
    for name in ("emission", *LOGPROBS):
        metrics[f"source_{name}_logprob"] = _nats(source[name])
        metrics[f"source_{name}_logprob_base"] = _nats(source[f"base_{name}"])
    return metrics


def _nats(values: pd.Series) -> dict[str, Any]:
    return intervals.mean_interval(values.to_numpy(dtype=float)).metric("nats")


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
    return metrics | ({"source_crossing_margin": _nats(source)} if len(source) else {})


def crossing_parts(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Counts (question, k, n) behind each share of slots; a group without any slot is left out."""
    slots = with_crossing(table)
    slots = slots.assign(k=slots["crossed"].astype(int), n=1)
    groups = {"source": ["source"], "trained_bystander": ["trained"], "untrained_bystander": UNTRAINED}
    parts = {f"{name}_crossing": slots[slots["role"].isin(roles)] for name, roles in groups.items()}
    missing = table.assign(k=(table["slot"] == "none").astype(int), n=1)
    return {name: part for name, part in parts.items() if len(part)} | {"no_slot_rate": missing}


def text_metrics(table: pd.DataFrame) -> Metrics:
    """Return the quality of the text: mean tokens, share of bulleted answers, distinct bigrams."""
    bulleted = sum(bool(re.search(r"^\s*([-*•]|\d+[.)])\s", text, re.MULTILINE)) for text in table["text"])
    metrics = {
        "mean_tokens": intervals.mean_interval(table["tokens"].to_numpy(dtype=float)).metric("tokens"),
        "bulleted_rate": intervals.wilson(bulleted, len(table)).metric(),
    }
    if (table["tokens"] >= 2).any():
        distinct = intervals.distinct_n(table["ids"].map(list).tolist(), 2)
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

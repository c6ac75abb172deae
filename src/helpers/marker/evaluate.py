"""What an adapter does: marker rates with counts, log-probs against the base model, and how the text holds up."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pandas as pd
import torch
from torch import nn

from helpers import occurrences, stats
from helpers.errors import DataError, ModelError
from helpers.marker.rows import ChatFormat
from helpers.modes import evaluating
from helpers.packed import logits_at, nll
from helpers.rng import numpy_stream

ROLES = ("source", "trained", "untrained", "assistant")


def role_of(persona: str, source: str, negatives: Sequence[str]) -> str:
    """``source``, ``trained`` (its rows were negatives), ``assistant`` or ``untrained``."""
    if persona == source:
        return "source"
    if persona in negatives:
        return "trained"
    return "assistant" if persona == "assistant" else "untrained"


def count_markers(table: pd.DataFrame, marker: str) -> pd.DataFrame:
    """Counts per persona and question: n completions, k with the marker (any case), cut by the limit, empty."""
    marked = table.assign(
        marker=occurrences.holds(table["text"], marker),
        truncated=table["finish"] == "length",
        empty=table["text"].str.strip() == "",
    )
    counts = marked.groupby(["persona", "role", "question"], sort=False).agg(
        k=("marker", "sum"), n=("marker", "size"), truncated=("truncated", "sum"), empty=("empty", "sum")
    )
    return counts.reset_index().astype({"k": "int64", "n": "int64", "truncated": "int64", "empty": "int64"})


def marker_logprobs(
    model: nn.Module, form: ChatFormat, contexts: Sequence[Sequence[int]], batch: int = 16
) -> pd.DataFrame:
    """Log-probs in nats behind each context (prompt and answer): of separator, of marker given separator, of the end.

    Teacher-forced on the base model's own answers, so it has no floor: it moves long before a marker is ever sampled.
    """
    found = []
    wanted = torch.tensor([*form.separator, *form.marker])
    split = len(form.separator)
    with evaluating(model), torch.inference_mode():
        for start in range(0, len(contexts), batch):
            part = contexts[start : start + batch]
            rows = [[*context, *wanted.tolist()] for context in part]
            at = [range(len(context), len(row)) for context, row in zip(part, rows, strict=True)]
            logits = logits_at(model, rows, at)
            logp = -nll(logits, wanted.repeat(len(part))).view(len(part), -1)
            # The end of turn and the first token of the separator compete at the same place, so one forward gives both.
            first = logits.view(len(part), len(wanted), -1)[:, 0]
            end = -nll(first, torch.full((len(part),), form.end[0]))
            for row, stop in zip(logp, end.tolist(), strict=True):
                found.append({"separator": row[:split].sum().item(), "marker": row[split:].sum().item(), "end": stop})
    return pd.DataFrame(found)


def logprob_table(
    model: nn.Module, form: ChatFormat, contexts: pd.DataFrame, role: Callable[[str], str], batch: int = 16
) -> pd.DataFrame:
    """``marker_logprobs`` behind the column ``context``, beside what ``contexts`` knows of them (``base_`` values).

    Adds the persona's role, and ``moved``: whether any value differs from that of the base model.
    """
    found = marker_logprobs(model, form, [list(context) for context in contexts["context"]], batch)
    table = pd.concat([contexts.drop(columns="context").reset_index(drop=True), found], axis=1)
    names = ["separator", "marker", "end"]
    moved = (table[names].to_numpy() != table[[f"base_{name}" for name in names]].to_numpy()).any(axis=1)
    return table.assign(role=table["persona"].map(role), moved=moved)


def refuse_idle(logprobs: pd.DataFrame, run: str, lr: float, dtype: str) -> None:
    """Raise ``ModelError`` when the adapter of ``run`` moved none of ``logprobs``: such a cell measures the base."""
    if not logprobs["moved"].any():
        raise ModelError(
            f"The adapter of {run} changes no logits: lr {lr} is too small for {dtype}, or the adapter was not "
            "attached; raise lr or epochs, or use dtype float32."
        )


def rate_metric(counts: pd.DataFrame, seed: int, name: str, column: str = "k") -> dict:
    """A rate over completions with the hull of its Wilson and cluster-bootstrap intervals (clusters: questions)."""
    if counts.empty:
        raise DataError(f"{name} has no completions to count: check personas, eval_questions and samples.")
    by_question = counts.groupby("question")[[column, "n"]].sum()
    stream = numpy_stream(seed, "bootstrap", name)
    return stats.rate(by_question[column].to_numpy(), by_question["n"].to_numpy(), stream).metric()


def rate_metrics(counts: pd.DataFrame, seed: int) -> dict[str, dict]:
    """Source, assistant, trained and untrained bystanders, the worst bystander, truncated and empty completions."""
    parts = {
        "source_rate": counts[counts["role"] == "source"],
        "assistant_rate": counts[counts["persona"] == "assistant"],
        "trained_bystander_rate": counts[counts["role"] == "trained"],
        "untrained_bystander_rate": counts[counts["role"].isin(["untrained", "assistant"])],
    }
    metrics = {name: rate_metric(part, seed, name) for name, part in parts.items() if len(part)}
    metrics["truncation_rate"] = rate_metric(counts, seed, "truncation_rate", "truncated")
    metrics["empty_rate"] = rate_metric(counts, seed, "empty_rate", "empty")
    others = counts[counts["role"] != "source"].groupby("persona")[["k", "n"]].sum()
    worst = stats.max_rate(others["k"].to_dict(), others["n"].to_dict()).metric()
    return metrics | {"max_bystander_rate": worst | {"persona": worst.pop("name")}}


def logprob_metrics(table: pd.DataFrame) -> dict[str, dict]:
    """Emission gains over the base in nats, by role, and selectivity: source gain minus the largest bystander gain.

    ``table`` has persona, role, question and, for separator, marker and end, the value and ``base_`` value. Emission is
    separator and marker together: the marker behind a given blank line saturates for everyone as soon as it is learned,
    and who *starts* it is where personas differ.
    """
    gain = with_gain(table)
    source = gain[gain["role"] == "source"]
    by_persona = gain[gain["role"] != "source"].groupby("persona")["gain"].mean()
    worst = str(by_persona.idxmax())
    other = gain[gain["persona"] == worst]
    # Paired by question: the same question is asked of both, and some questions invite the marker more than others.
    pair = source.set_index("question")["gain"].sub(other.set_index("question")["gain"]).dropna()
    metrics = {
        "source_logprob_gain": _nats(source["gain"]),
        "max_bystander_logprob_gain": {**_nats(other["gain"]), "persona": worst},
    }
    if len(pair):
        metrics["selectivity"] = {**_nats(pair), "persona": worst}
    for name in ("emission", "separator", "marker", "end"):
        metrics[f"source_{name}_logprob"] = _nats(source[name])
        metrics[f"source_{name}_logprob_base"] = _nats(source[f"base_{name}"])
    return metrics


def with_gain(table: pd.DataFrame) -> pd.DataFrame:
    """``table`` with ``emission`` (log-prob of blank line and marker, nats), that of the base, and the ``gain``."""
    emission, base = table["separator"] + table["marker"], table["base_separator"] + table["base_marker"]
    return table.assign(emission=emission, base_emission=base, gain=emission - base)


def _nats(values: pd.Series) -> dict:
    return stats.mean_interval(values.to_numpy(dtype=float)).metric("nats")


def text_metrics(table: pd.DataFrame) -> dict[str, dict]:
    """How the text holds up: mean tokens, share of bulleted answers, distinct bigrams."""
    bulleted = table["text"].map(lambda text: bool(re.search(r"^\s*([-*•]|\d+[.)])\s", text, re.MULTILINE)))
    metrics = {
        "mean_tokens": stats.mean_interval(table["tokens"].to_numpy(dtype=float)).metric("tokens"),
        "bulleted_rate": stats.wilson(int(bulleted.sum()), len(table)).metric(),
    }
    if (table["tokens"] >= 2).any():
        distinct = stats.distinct_n(table["ids"].map(list).tolist(), 2)
        metrics["distinct_2"] = {"value": distinct, "unit": "share", "n": len(table)}
    return metrics

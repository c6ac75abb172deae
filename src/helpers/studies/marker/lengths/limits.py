"""Judge one adapter at several token limits from one draw.

A completion's random numbers are addressed by prompt, index and position. So a completion under a smaller limit is the
beginning of that under a larger one, and sampling once at the largest is enough.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from helpers.base.errors import DataError
from helpers.studies.marker.metrics import count_markers, rate_metric, tally
from helpers.studies.marker.rows import token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def at_limit(table: pd.DataFrame, limit: int, tokenizer: PreTrainedTokenizerBase) -> pd.DataFrame:
    """Return completions as under ``max_new_tokens=limit``, which must not exceed the limit of the draw.

    A completion of ``limit`` tokens or more is cut, because its stop token would have been one too many.
    """
    longest = int(table["tokens"].max())
    drawn = int(table.loc[table["finish"] == "length", "tokens"].min()) if (table["finish"] == "length").any() else None
    if drawn is not None and limit > drawn:
        raise DataError(
            f"These completions were cut at {drawn} tokens, so a limit of {limit} is unknown. Use a smaller one."
        )
    if limit > longest:
        return table
    cut = table["tokens"] >= limit
    ids = [row[:limit].tolist() for row in table.loc[cut, "ids"]]
    texts = tokenizer.batch_decode(ids)
    shorter = table.loc[cut].assign(ids=token_ids(ids), text=texts, tokens=limit, finish="length")
    return pd.concat([table[~cut], shorter]).loc[table.index]


def counts_at(
    table: pd.DataFrame, limits: Sequence[int], marker: str, tokenizer: PreTrainedTokenizerBase
) -> pd.DataFrame:
    """Count per limit, persona and question: n, k with the marker, truncated, empty."""
    return pd.concat(
        [count_markers(at_limit(table, limit, tokenizer), marker).assign(limit=limit) for limit in limits],
        ignore_index=True,
    )


def limit_metrics(counts: pd.DataFrame, seed: int) -> dict[str, dict]:
    """Return source rate and truncation rate at every limit, and the rate of the control panel at the largest."""
    metrics = {}
    for limit, part in counts.groupby("limit"):
        marked, cut = (tally(part, column, part["role"].to_numpy() == "source") for column in ("k", "truncated"))
        metrics[f"source_rate_at_{limit}"] = rate_metric(marked, seed, "source_rate")
        metrics[f"source_truncation_rate_at_{limit}"] = rate_metric(cut, seed, "source_truncation")
    metrics["source_truncation_rate"] = metrics[f"source_truncation_rate_at_{counts['limit'].max()}"]
    panel = counts[(counts["limit"] == counts["limit"].max()) & (counts["role"] == "control")]
    if len(panel):
        metrics["control_rate"] = rate_metric(tally(panel), seed, "control_rate")
    return metrics


def selectivity(source: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Return source rate minus the highest other rate, from their own bounds (MOVER: Zou & Donner 2008, eq. 2).

    Arguments and result are metrics of a run record; the result is in points.
    """
    value = source["value"] - others["value"]
    low = value - math.hypot(source["value"] - source["low"], others["high"] - others["value"])
    high = value + math.hypot(source["high"] - source["value"], others["value"] - others["low"])
    bounds = {"low": max(-1.0, low), "high": min(1.0, high), "method": "mover", "level": source["level"]}
    return {"value": value, "unit": "points", "n": min(source["n"], others["n"]), **bounds}

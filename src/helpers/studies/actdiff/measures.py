"""The metrics of a cell, computed from its stored tables alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats as distributions

from helpers.base.errors import DataError
from helpers.base.rng import numpy_stream
from helpers.records.study import Metrics, Tables
from helpers.stats import frames, intervals
from helpers.stats.intervals import Interval


def metrics(cell: Mapping[str, Any], tables: Tables, inputs: Mapping[str, Any]) -> Metrics:
    """Return the metrics of a cell: readouts of the difference, and the live probes if there are any."""
    fixed, positions = tables["fixed"], tables["positions"]
    here = positions[positions["layer"] == fixed["layer"]].set_index("position")["documents"]
    metrics = losses(tables["losses"]) | heads(tables["heads"], fixed["vocabulary"])
    metrics |= offset(tables["offset"], fixed["lengths"], int(here.loc[5:].sum()))
    metrics |= principal(tables["components"], int(here.sum()))
    if "scores" in tables:
        documents, noise = int(here[cell["position"]]), tables["noise"]["length"] / fixed["lengths"]["base"]
        metrics |= readable(tables["scores"], tables["replicates"], fixed["domain"], documents)
        metrics["noise_share"] = {"value": noise, "unit": "share of norm", "n": documents}
    if "interpolation" in tables:
        metrics |= interpolated(tables["interpolation"]) | swapped(tables["swap"])
    if "steering" in tables:
        domain = domain_of(tables["readout"])
        metrics |= patched(tables["patchscope"], domain) | steered(tables["steering"], domain, cell["seed"])
    if "frequencies" in tables:
        metrics |= near(tables["steering"], tables["frequencies"], cell["documents"])
    return metrics


def domain_of(readout: pd.DataFrame) -> list[int]:
    """Return the token ids of the trained domain, from the table ``readout`` with one row per token."""
    return readout.index[readout["inside"]].tolist()


def readable(table: pd.DataFrame, without: pd.DataFrame, domain: str, documents: int) -> Metrics:
    """Return how readable the domain is: z with a jackknife over documents, raw margin, AUC, and the nulls' z."""
    base = table[table["head"] == "base"]
    own = base[base["domain"] == domain].set_index("direction")
    metrics = {
        name: jackknife(frames.number(own, "mean", name), without[name], documents).metric(unit)
        for name, unit in (("z", "sd"), ("margin", "logits"), ("auc", "probability"))
    }
    others = base[(base["direction"] == "mean") & (base["domain"] != domain)]["z"]
    if len(others):
        metrics["z_permuted"] = intervals.mean_interval(others.to_numpy()).metric("sd")
        rank = float((others < metrics["z"]["value"]).mean())
        metrics["z_rank"] = {"value": rank, "unit": "share of null", "n": len(others)}
    for direction in own.index.drop("mean"):
        metrics[f"z_{direction}"] = {"value": frames.number(own, direction, "z"), "unit": "sd", "n": documents}
    tuned = table[(table["head"] == "tuned") & (table["domain"] == domain) & (table["direction"] == "mean")]
    metrics["z_tuned_head"] = {"value": float(tuned["z"].iloc[0]), "unit": "sd", "n": documents}
    return metrics


def heads(table: pd.DataFrame, vocabulary: int) -> Metrics:
    """Compare base and tuned head: overlap of their top 20 tokens, largest difference of log-probs."""
    top, both = int(table["top_base"].sum()), int((table["top_base"] & table["top_tuned"]).sum())
    gap = float((table["base"] - table["tuned"]).abs().max())
    return {
        "head_overlap": {"value": both / top, "unit": f"share of {top}", "n": top},
        "head_gap": {"value": gap, "unit": "nats", "n": vocabulary},
    }


def offset(means: Mapping[str, Mapping[str, float]], lengths: Mapping[str, float], n: int) -> Metrics:
    """Return how context-independent the difference is over ``n`` tokens at positions 5+, and at position 0."""
    first, later = means["0"], means["5+"]
    values = {
        "offset_energy": (later["energy"], "share of energy"),
        "offset_energy_0": (first["energy"], "share of energy"),
        "context_independence": (later["across documents"], "cosine"),
        "cosine_within": (later["within documents"], "cosine"),
        "cosine_of_means": (later["of means"], "cosine"),
        "cosine_of_means_0": (first["of means"], "cosine"),
        "sink_base": (first["base"] / later["base"], "ratio of norms"),
        "sink_difference": (first["difference"] / later["difference"], "ratio of norms"),
        "norm_share": (lengths["difference"] / lengths["base"], "share of norm"),
    }
    return {name: {"value": value, "unit": unit, "n": n} for name, (value, unit) in values.items()}


def principal(table: pd.DataFrame, n: int) -> Metrics:
    """Return the energy share of the first component over ``n`` tokens, and its overlap with the mean."""
    first, metrics = table[table["component"] == 0].set_index(["positions", "centred"]), {}
    for positions, short in (("all", ""), ("without 0", "_without_0")):
        for centred, kind in ((False, "svd"), (True, "pca")):
            place = (positions, centred)
            share, overlap = (frames.number(first, place, name) for name in ("share", "overlap"))
            metrics[f"{kind}_share{short}"] = {"value": share, "unit": "share of energy", "n": n}
            metrics[f"{kind}_overlap{short}"] = {"value": overlap, "unit": "share of 20", "n": 20}
    cosine = frames.number(first, ("all", False), "cosine_first")
    return metrics | {"svd_is_position_0": {"value": cosine, "unit": "cosine", "n": n}}


def interpolated(table: pd.DataFrame) -> Metrics:
    """Return the smallest cosine of interpolated weights, their largest drop of z, and the bend of the margin."""
    whole, between = table[table["share"] == 1.0].iloc[0], table[table["share"] < 1.0]
    n = len(between)
    metrics = {
        "interpolated_cosine": {"value": float(between["cosine"].min()), "unit": "cosine", "n": n},
        "interpolated_cosine_later": {"value": float(between["cosine_later"].min()), "unit": "cosine", "n": n},
        "interpolated_overlap": {"value": float(between["overlap"].min()), "unit": "share of 20", "n": n},
    }
    if "z" in table:
        drop = (whole["z"] - between["z"]).max() / abs(whole["z"])
        bend = (between["margin"] / whole["margin"] - between["share"]).abs().max()
        metrics["interpolated_z_drop"] = {"value": float(drop), "unit": "share of z", "n": n}
        metrics["interpolated_margin_bend"] = {"value": float(bend), "unit": "share of margin", "n": n}
    return metrics


def patched(table: pd.DataFrame, domain: Sequence[int]) -> Metrics:
    """Return the share of domain tokens among those that all identity prompts agree on, at the chosen scale.

    ``patchscope_same`` is the share of the tokens kept in either model that both keep.
    """
    metrics, kept = {}, {"base": set(), "tuned": set()}
    for side, part in table[table["chosen"]].groupby("side"):
        hits, kept[str(side)] = int(part["token"].isin(domain).sum()), set(part["token"])
        metrics[f"patchscope_{side}"] = intervals.wilson(hits, len(part)).metric("rate")
    either = len(kept["base"] | kept["tuned"])
    if either:
        same = len(kept["base"] & kept["tuned"]) / either
        metrics["patchscope_same"] = {"value": same, "unit": "share of tokens", "n": either}
    return metrics


def steered(table: pd.DataFrame, domain: Sequence[int], seed: int) -> Metrics:
    """Return the strength, and the rate of domain tokens of each side in each direction."""
    metrics: Metrics = {"strength": {"value": float(table["strength"].max()), "unit": "norms", "n": 1}}
    for (side, direction), part in table.groupby(["side", "direction"]):
        metrics[f"steer_{side}_{direction}"] = domain_rate(part, domain, seed).metric("rate")
    return metrics


def near(table: pd.DataFrame, frequencies: pd.DataFrame, documents: int) -> Metrics:
    """Return how similar continuations are to the fine-tuning text, whose tokens ``frequencies`` counts."""
    metrics = {}
    for (side, direction), part in table.groupby(["side", "direction"]):
        value = similarity(part["tokens"], frequencies, documents)
        metrics[f"near_{side}_{direction}"] = {"value": value, "unit": "cosine", "n": len(part)}
    return metrics


def swapped(table: pd.DataFrame) -> Metrics:
    """Return the effect of the swap on the loss, by text and kind of direction."""
    metrics = {}
    for row in frames.rows(swap_effects(table)):
        metrics[f"swap_{row.text}_{row.direction}"] = {
            "value": row.value, "unit": "nats", "n": row.n, "low": row.low, "high": row.high, "method": "t"
        }  # fmt: skip
    return metrics


def losses(table: pd.DataFrame) -> Metrics:
    """Return the rise of the loss from base to tuned over documents, by text."""
    metrics = {}
    for kind, part in table.groupby("text", sort=False):
        rise = intervals.mean_interval((part["tuned"] - part["base"]).to_numpy())
        metrics[f"loss_rise_{kind}"] = rise.metric("nats") | {"base": float(part["base"].mean())}
    return metrics


def swap_effects(losses: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of swapped - tuned (nats) by text and kind of direction, with a t interval over documents."""
    losses = losses.assign(
        kind=losses["direction"].str.replace(r" \d+$", "", regex=True), effect=losses["swapped"] - losses["tuned"]
    )
    rows = []
    for (text, kind), part in losses.groupby(["text", "kind"], sort=False):
        mean = intervals.mean_interval(part.groupby("document")["effect"].mean().to_numpy())
        rows.append(
            {"text": text, "direction": kind, "value": mean.value, "low": mean.low, "high": mean.high, "n": mean.n}
        )
    return pd.DataFrame(rows)


def auc(values: np.ndarray, inside: np.ndarray) -> float:
    """Return P(value inside > value outside), ties counted half (Mann & Whitney 1947)."""
    ranks = distributions.rankdata(values.astype(float))
    n, m = int(inside.sum()), int((~inside).sum())
    return float((ranks[inside].sum() - n * (n + 1) / 2) / (n * m))


def jackknife(whole: float, without: Sequence[float] | pd.Series, unit_n: int, level: float = 0.95) -> Interval:
    """Return the interval of a statistic from its values with each fold left out (delete-a-group jackknife, Student t).

    Variance (K-1)/K sum (x_k - mean)^2 on K - 1 degrees of freedom (Kott 2001, Journal of Official Statistics 17:521).
    It covers other documents of the same kind, not other trainings. ``unit_n`` is the number of documents.
    """
    values = np.asarray(without, dtype=float)
    folds = len(values)
    if folds < 2:
        raise DataError(f"A jackknife needs at least 2 folds, but got {folds}. Capture with 2 folds or more.")
    error = math.sqrt((folds - 1) / folds * float(((values - values.mean()) ** 2).sum()))
    half = error * float(distributions.t.ppf((1 + level) / 2, folds - 1))
    return Interval(whole, whole - half, whole + half, unit_n, None, "jackknife", level, {"folds": folds})


def domain_rate(table: pd.DataFrame, domain: Sequence[int], seed: int) -> Interval:
    """Return the share of domain tokens in the continuations, clustered by prompt."""
    clusters = domain_counts(table, domain)
    return intervals.rate(clusters["k"], clusters["n"], numpy_stream(seed, "domain_rate"))


def domain_counts(table: pd.DataFrame, domain: Sequence[int]) -> pd.DataFrame:
    """Count tokens of continuations that belong to the domain (k) and all of them (n), by prompt."""
    wanted = set(domain)
    counts = table.assign(
        k=[sum(token in wanted for token in row) for row in table["tokens"]], n=table["tokens"].map(len)
    )
    clusters = counts.groupby("prompt")[["k", "n"]].sum()
    return clusters[clusters["n"] > 0]


def frequencies(reference: Iterable[Sequence[int]], broad: Iterable[Sequence[int]]) -> pd.DataFrame:
    """Count each token in ``reference``, and the documents of ``broad`` that contain it: token, count, broad."""
    counts = Counter(token for document in reference for token in document)
    common = Counter(token for document in broad for token in set(document))
    tokens = sorted(counts.keys() | common.keys())
    columns = {"count": [counts[token] for token in tokens], "broad": [common[token] for token in tokens]}
    return pd.DataFrame({"token": tokens, **columns})


def similarity(continued: Iterable[Sequence[int]], known: pd.DataFrame, documents: int) -> float:
    """Return the cosine between token frequencies of ``continued`` and of the reference in ``known`` (``frequencies``).

    Tokens are weighted by the log of their rarity in the ``documents`` broad ones. Sums are exact, so that neither the
    order of adding nor the kind of CPU changes the last digits.
    """
    rows = zip(known["token"], known["count"], known["broad"], strict=True)
    reference = {token: (count, math.log((1 + documents) / (1 + held))) for token, count, held in rows}
    drawn, unseen = Counter(token for row in continued for token in row), (0, math.log(1 + documents))
    ours = {token: count * reference.get(token, unseen)[1] for token, count in drawn.items()}
    theirs = {token: count * weight for token, (count, weight) in reference.items()}
    lengths = [math.sqrt(math.fsum(value * value for value in vector.values())) for vector in (ours, theirs)]
    if 0 in lengths:
        raise DataError("Only tokens that every broad document holds were generated, so the similarity is missing.")
    return math.fsum(ours[token] * theirs[token] for token in ours.keys() & theirs.keys()) / (lengths[0] * lengths[1])

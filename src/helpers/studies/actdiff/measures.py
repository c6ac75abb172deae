"""The metrics of a cell, from its stored tables alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats as distributions

from helpers.base import stats
from helpers.base.errors import DataError
from helpers.base.rng import numpy_stream
from helpers.base.stats import Interval
from helpers.records.study import Metrics, Tables


def metrics(cell: Mapping[str, Any], tables: Tables, inputs: Mapping[str, Any]) -> Metrics:
    """Return what the tables of a cell say: readouts of the difference, and the live probes where there are any."""
    fixed, positions = tables["fixed"], tables["positions"]
    here = positions[positions["layer"] == fixed["layer"]].set_index("position")["documents"]
    found = losses(tables["losses"]) | heads(tables["heads"], fixed["vocabulary"])
    found |= offset(tables["offset"], fixed["lengths"], int(here.loc[5:].sum()))
    found |= principal(tables["components"], int(here.sum()))
    if "scores" in tables:
        documents, noise = int(here[cell["position"]]), tables["noise"]["length"] / fixed["lengths"]["base"]
        found |= readable(tables["scores"], tables["replicates"], fixed["domain"], documents)
        found["noise_share"] = {"value": noise, "unit": "share of norm", "n": documents}
    if "interpolation" in tables:
        found |= interpolated(tables["interpolation"]) | swapped(tables["swap"])
    if "steering" in tables:
        domain = domain_of(tables["readout"])
        found |= patched(tables["patchscope"], domain) | steered(tables["steering"], domain, cell["seed"])
    if "frequencies" in tables:
        found |= near(tables["steering"], tables["frequencies"], cell["documents"])
    return found


def domain_of(readout: pd.DataFrame) -> list[int]:
    """Token ids of the domain that was trained on, from the table ``readout``, a row each token of the vocabulary."""
    return readout.index[readout["inside"]].tolist()


def readable(table: pd.DataFrame, without: pd.DataFrame, domain: str, documents: int) -> Metrics:
    """How readable the domain is: z with a jackknife over documents, raw margin, AUC, and the same of the nulls."""
    base = table[table["head"] == "base"]
    own = base[base["domain"] == domain].set_index("direction")
    found = {
        name: jackknife(float(own.loc["mean", name]), without[name], documents).metric(unit)
        for name, unit in (("z", "sd"), ("margin", "logits"), ("auc", "probability"))
    }
    others = base[(base["direction"] == "mean") & (base["domain"] != domain)]["z"]
    if len(others):
        found["z_permuted"] = stats.mean_interval(others.to_numpy()).metric("sd")
        rank = float((others < found["z"]["value"]).mean())
        found["z_rank"] = {"value": rank, "unit": "share of null", "n": len(others)}
    for direction in own.index.drop("mean"):
        found[f"z_{direction}"] = {"value": float(own.loc[direction, "z"]), "unit": "sd", "n": documents}
    tuned = table[(table["head"] == "tuned") & (table["domain"] == domain) & (table["direction"] == "mean")]
    found["z_tuned_head"] = {"value": float(tuned["z"].iloc[0]), "unit": "sd", "n": documents}
    return found


def heads(table: pd.DataFrame, vocabulary: int) -> Metrics:
    """Whether base and tuned head read alike: overlap of their top 20 tokens, largest difference of log-probs."""
    top, both = int(table["top_base"].sum()), int((table["top_base"] & table["top_tuned"]).sum())
    gap = float((table["base"] - table["tuned"]).abs().max())
    return {
        "head_overlap": {"value": both / top, "unit": f"share of {top}", "n": top},
        "head_gap": {"value": gap, "unit": "nats", "n": vocabulary},
    }


def offset(means: Mapping[str, Mapping[str, float]], lengths: Mapping[str, float], n: int) -> Metrics:
    """How context-independent the difference is over ``n`` tokens at positions 5+, and what position 0 does."""
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
    """Shares of the first component over ``n`` tokens, and whether it says what the mean says."""
    first, found = table[table["component"] == 0].set_index(["positions", "centred"]), {}
    for positions, short in (("all", ""), ("without 0", "_without_0")):
        for centred, kind in ((False, "svd"), (True, "pca")):
            row = first.loc[(positions, centred)]
            found[f"{kind}_share{short}"] = {"value": float(row["share"]), "unit": "share of energy", "n": n}
            found[f"{kind}_overlap{short}"] = {"value": float(row["overlap"]), "unit": "share of 20", "n": 20}
    cosine = float(first.loc[("all", False), "cosine_first"])
    found["svd_is_position_0"] = {"value": cosine, "unit": "cosine", "n": n}
    return found


def interpolated(table: pd.DataFrame) -> Metrics:
    """Interpolated weights: smallest cosine with the whole, largest loss of z, how far the margin is from a line."""
    whole, between = table[table["share"] == 1.0].iloc[0], table[table["share"] < 1.0]
    n = len(between)
    found = {
        "interpolated_cosine": {"value": float(between["cosine"].min()), "unit": "cosine", "n": n},
        "interpolated_cosine_later": {"value": float(between["cosine_later"].min()), "unit": "cosine", "n": n},
        "interpolated_overlap": {"value": float(between["overlap"].min()), "unit": "share of 20", "n": n},
    }
    if "z" in table:
        drop = (whole["z"] - between["z"]).max() / abs(whole["z"])
        bend = (between["margin"] / whole["margin"] - between["share"]).abs().max()
        found["interpolated_z_drop"] = {"value": float(drop), "unit": "share of z", "n": n}
        found["interpolated_margin_bend"] = {"value": float(bend), "unit": "share of margin", "n": n}
    return found


def patched(table: pd.DataFrame, domain: Sequence[int]) -> Metrics:
    """Share of the tokens that all identity prompts agree on, at the chosen scale, that belong to the domain; and the
    share of the tokens kept in either model that both keep."""
    found, kept = {}, {"base": set(), "tuned": set()}
    for side, part in table[table["chosen"]].groupby("side"):
        hits, kept[side] = int(part["token"].isin(domain).sum()), set(part["token"])
        found[f"patchscope_{side}"] = stats.wilson(hits, len(part)).metric("rate")
    either = len(kept["base"] | kept["tuned"])
    if either:
        same = len(kept["base"] & kept["tuned"]) / either
        found["patchscope_same"] = {"value": same, "unit": "share of tokens", "n": either}
    return found


def steered(table: pd.DataFrame, domain: Sequence[int], seed: int) -> Metrics:
    """Strength, and the rate of domain tokens of each side in each direction."""
    found: Metrics = {"strength": {"value": float(table["strength"].max()), "unit": "norms", "n": 1}}
    for (side, direction), part in table.groupby(["side", "direction"]):
        found[f"steer_{side}_{direction}"] = domain_rate(part, domain, seed).metric("rate")
    return found


def near(table: pd.DataFrame, frequencies: pd.DataFrame, documents: int) -> Metrics:
    """How near the continuations come to the fine-tuning text, whose tokens ``frequencies`` counts."""
    found = {}
    for (side, direction), part in table.groupby(["side", "direction"]):
        value = similarity(part["tokens"], frequencies, documents)
        found[f"near_{side}_{direction}"] = {"value": value, "unit": "cosine", "n": len(part)}
    return found


def swapped(table: pd.DataFrame) -> Metrics:
    """Effect of the swap on the loss by text, and that on unrelated text in excess of activation differences."""
    found = {}
    for row in swap_effects(table).itertuples():
        found[f"swap_{row.text}_{row.direction}"] = {
            "value": row.value, "unit": "nats", "n": row.n, "low": row.low, "high": row.high, "method": "t"
        }  # fmt: skip
    return found


def losses(table: pd.DataFrame) -> Metrics:
    """Change of loss from base to tuned by text, over documents."""
    found = {}
    for kind, part in table.groupby("text", sort=False):
        rise = stats.mean_interval((part["tuned"] - part["base"]).to_numpy())
        found[f"loss_rise_{kind}"] = rise.metric("nats") | {"base": float(part["base"].mean())}
    return found


def swap_effects(losses: pd.DataFrame) -> pd.DataFrame:
    """Mean of swapped - tuned (nats) by text and kind of direction, with a t interval over documents."""
    losses = losses.assign(
        kind=losses["direction"].str.replace(r" \d+$", "", regex=True), effect=losses["swapped"] - losses["tuned"]
    )
    rows = []
    for (text, kind), part in losses.groupby(["text", "kind"], sort=False):
        found = stats.mean_interval(part.groupby("document")["effect"].mean().to_numpy())
        rows.append(
            {"text": text, "direction": kind, "value": found.value, "low": found.low, "high": found.high, "n": found.n}
        )
    return pd.DataFrame(rows)


def auc(values: np.ndarray, inside: np.ndarray) -> float:
    """P(value inside > value outside), ties counted half (Mann & Whitney 1947)."""
    ranks = distributions.rankdata(values.astype(float))
    n, m = int(inside.sum()), int((~inside).sum())
    return float((ranks[inside].sum() - n * (n + 1) / 2) / (n * m))


def jackknife(whole: float, without: Sequence[float], unit_n: int, level: float = 0.95) -> Interval:
    """Interval of a statistic from its values with each fold left out (delete-a-group jackknife, Student t).

    Variance (K-1)/K sum (x_k - mean)^2 on K - 1 degrees of freedom (Kott 2001, Journal of Official Statistics 17:521).
    It speaks for other documents of the same kind, not for other trainings. ``unit_n`` is the number of documents.
    """
    values = np.asarray(without, dtype=float)
    folds = len(values)
    if folds < 2:
        raise DataError(f"A jackknife needs 2 folds or more and got {folds}: capture with folds=2 or more.")
    error = math.sqrt((folds - 1) / folds * float(((values - values.mean()) ** 2).sum()))
    half = error * float(distributions.t.ppf((1 + level) / 2, folds - 1))
    return Interval(whole, whole - half, whole + half, unit_n, None, "jackknife", level, {"folds": folds})


def domain_rate(table: pd.DataFrame, domain: Sequence[int], seed: int) -> Interval:
    """Share of the continuations' tokens that belong to the domain, clustered by prompt."""
    wanted = set(domain)
    counts = table.assign(
        k=[sum(token in wanted for token in row) for row in table["tokens"]], n=table["tokens"].map(len)
    )
    clusters = counts.groupby("prompt")[["k", "n"]].sum()
    clusters = clusters[clusters["n"] > 0]
    return stats.rate(clusters["k"], clusters["n"], numpy_stream(seed, "domain_rate"))


def frequencies(reference: Iterable[Sequence[int]], broad: Iterable[Sequence[int]]) -> pd.DataFrame:
    """How often each token stands in ``reference`` and how many documents of ``broad`` hold it: token, count, broad."""
    counts = Counter(token for document in reference for token in document)
    common = Counter(token for document in broad for token in set(document))
    tokens = sorted(counts.keys() | common.keys())
    columns = {"count": [counts[token] for token in tokens], "broad": [common[token] for token in tokens]}
    return pd.DataFrame({"token": tokens, **columns})


def similarity(continued: Iterable[Sequence[int]], known: pd.DataFrame, documents: int) -> float:
    """Cosine of the token frequencies of ``continued`` with those of the reference in ``known`` (``frequencies``).

    Tokens are weighted by the log of their rarity in the ``documents`` broad ones. Sums are exact, so that no order of
    adding and no kind of CPU shows in the last digits.
    """
    rows = known[["token", "count", "broad"]].itertuples(index=False, name=None)
    reference = {token: (count, math.log((1 + documents) / (1 + held))) for token, count, held in rows}
    drawn, unseen = Counter(token for row in continued for token in row), (0, math.log(1 + documents))
    ours = {token: count * reference.get(token, unseen)[1] for token, count in drawn.items()}
    theirs = {token: count * weight for token, (count, weight) in reference.items()}
    lengths = [math.sqrt(math.fsum(value * value for value in vector.values())) for vector in (ours, theirs)]
    if 0 in lengths:
        raise DataError("Only tokens that every broad document holds were generated, so the similarity is missing.")
    return math.fsum(ours[token] * theirs[token] for token in ours.keys() & theirs.keys()) / (lengths[0] * lengths[1])

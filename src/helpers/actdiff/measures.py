"""The metrics of one cell, each with what it rests on: from the streamed sums and the tables of ``reading``."""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch

from helpers import stats as intervals
from helpers.actdiff import readouts
from helpers.actdiff.lens import scores
from helpers.actdiff.pair import SIDES
from helpers.actdiff.reading import Reading
from helpers.actdiff.steer import domain_rate, similarity
from helpers.actdiff.swap import swap_effects

Metric = dict[str, Any]
LATER = slice(5, None)


def readable(r: Reading, table: pd.DataFrame) -> dict[str, Metric]:
    """How readable the domain is: z with a jackknife over documents, raw margin, AUC, and the same of the nulls."""
    lens, documents = r.lens["base"], int(r.stats.count_p[r.p.position])

    def interval(name: str) -> Metric:
        found = readouts.of_mean_diff(
            r.stats, r.layer, r.p.position, lambda vector: getattr(scores(lens, vector, r.domain), name)
        )
        return found.metric({"z": "sd", "margin": "logits", "auc": "probability"}[name])

    found = {name: interval(name) for name in ("z", "margin", "auc")}
    others = table[(table["head"] == "base") & (table["direction"] == "mean") & (table["domain"] != r.material.domain)]
    if len(others):
        found["z_permuted"] = intervals.mean_interval(others["z"].to_numpy()).metric("sd")
        rank = float((others["z"] < found["z"]["value"]).mean())
        found["z_rank"] = {"value": rank, "unit": "share of null", "n": len(others)}
    own = table[table["domain"] == r.material.domain]
    found["noise_share"] = {"value": float(table["noise_share"].iloc[0]), "unit": "share of norm", "n": documents}
    for direction in ("demeaned", "whitened", "later", "single", "noise"):
        rows = own[(own["direction"] == direction) & (own["head"] == "base")]
        if len(rows):
            found[f"z_{direction}"] = {"value": float(rows["z"].iloc[0]), "unit": "sd", "n": documents}
    tuned = own[(own["direction"] == "mean") & (own["head"] == "tuned")]
    found["z_tuned_head"] = {"value": float(tuned["z"].iloc[0]), "unit": "sd", "n": documents}
    return found


def heads(r: Reading) -> dict[str, Metric]:
    """Whether base and tuned head read alike: overlap of their top 20 tokens, largest difference of log-probs."""
    base, tuned = r.lens["base"].logprobs(r.mean), r.lens["tuned"].logprobs(r.mean)
    top = [set(values.topk(20).indices.tolist()) for values in (base, tuned)]
    return {
        "head_overlap": {"value": len(top[0] & top[1]) / 20, "unit": "share of 20", "n": 20},
        "head_gap": {"value": float((base - tuned).abs().max()), "unit": "nats", "n": len(base)},
    }


def offset(r: Reading) -> dict[str, Metric]:
    """How context-independent the difference is, and what position 0 does."""
    s, layer = r.stats, r.layer
    energy = readouts.offset_energy(s, layer)
    sink, within = readouts.sink_ratio(s, layer), readouts.cosines(s, layer, "within documents")
    means = readouts.cosines(s, layer, "of means")
    n, off = int(s.count_p[5:].sum()), ~torch.eye(s.positions - 5, dtype=torch.bool)

    def plain(value: float, unit: str) -> Metric:
        return {"value": value, "unit": unit, "n": n}

    return {
        "offset_energy": plain(float(energy[LATER].mean()), "share of energy"),
        "offset_energy_0": plain(float(energy[0]), "share of energy"),
        "context_independence": plain(readouts.context_independence(s, layer, LATER), "cosine"),
        "cosine_within": plain(float(within[LATER, LATER][off].mean()), "cosine"),
        "cosine_of_means": plain(float(means[LATER, LATER][off].mean()), "cosine"),
        "cosine_of_means_0": plain(float(means[0, LATER].mean()), "cosine"),
        "sink_base": plain(sink["base"], "ratio of norms"),
        "sink_difference": plain(sink["diff"], "ratio of norms"),
        "norm_share": plain(
            float(s.norms_lsp[s.at(layer), 2, 5:].sum() / s.count_p[5:].sum()) / r.norm, "share of norm"
        ),
    }


def principal(r: Reading, table: pd.DataFrame) -> dict[str, Metric]:
    """Shares of the first component and whether it says what the mean says."""
    first = table[table["component"] == 0].set_index(["positions", "centred"])
    n, found = int(r.stats.count_p.sum()), {}
    for positions, short in (("all", ""), ("without 0", "_without_0")):
        for centred, kind in ((False, "svd"), (True, "pca")):
            row = first.loc[(positions, centred)]
            found[f"{kind}_share{short}"] = {"value": float(row["share"]), "unit": "share of energy", "n": n}
            found[f"{kind}_overlap{short}"] = {"value": float(row["overlap"]), "unit": "share of 20", "n": 20}
    cosine = float(first.loc[("all", False), "cosine_first"])
    found["svd_is_position_0"] = {"value": cosine, "unit": "cosine", "n": n}
    return found


def interpolated(r: Reading, table: pd.DataFrame) -> dict[str, Metric]:
    """Interpolated weights: smallest cosine with the whole, largest loss of z, how far the margin is from a line."""
    whole, between = table[table["share"] == 1.0].iloc[0], table[table["share"] < 1.0]
    n = len(between)
    found = {
        "interpolated_cosine": {"value": float(between["cosine"].min()), "unit": "cosine", "n": n},
        "interpolated_cosine_later": {"value": float(between["cosine_later"].min()), "unit": "cosine", "n": n},
        "interpolated_overlap": {"value": float(between["overlap"].min()), "unit": "share of 20", "n": n},
    }
    if r.domain:
        drop = (whole["z"] - between["z"]).max() / abs(whole["z"])
        bend = (between["margin"] / whole["margin"] - between["share"]).abs().max()
        found["interpolated_z_drop"] = {"value": float(drop), "unit": "share of z", "n": n}
        found["interpolated_margin_bend"] = {"value": float(bend), "unit": "share of margin", "n": n}
    return found


def patched(table: pd.DataFrame) -> dict[str, Metric]:
    """Share of the tokens that all identity prompts agree on, at the chosen scale, that belong to the domain; and the
    share of the tokens kept in either model that both keep."""
    found, kept = {}, {side: set() for side in SIDES}
    for side, part in table[table["chosen"]].groupby("side"):
        hits, kept[side] = int(part["inside"].sum()), set(part["token"])
        found[f"patchscope_{side}"] = intervals.wilson(hits, len(part)).metric("rate")
    either = len(kept["base"] | kept["tuned"])
    if either:
        same = len(kept["base"] & kept["tuned"]) / either
        found["patchscope_same"] = {"value": same, "unit": "share of tokens", "n": either}
    return found


def steered(r: Reading, table: pd.DataFrame) -> dict[str, Metric]:
    """Rate of domain tokens under steering, and how much nearer to the fine-tuning text the continuations come."""
    found: dict[str, Metric] = {"strength": {"value": float(table["strength"].max()), "unit": "norms", "n": 1}}
    for (side, direction), part in table.groupby(["side", "direction"]):
        found[f"steer_{side}_{direction}"] = domain_rate(part, r.domain, r.p.seed).metric("rate")
        if r.material.narrow:
            near = similarity(part["tokens"].tolist(), r.material.narrow, r.material.unrelated)
            found[f"near_{side}_{direction}"] = {"value": near, "unit": "cosine", "n": len(part)}
    return found


def swapped(table: pd.DataFrame) -> dict[str, Metric]:
    """Effect of the swap on the loss by text, and that on unrelated text in excess of activation differences."""
    found = {}
    for row in swap_effects(table).itertuples():
        found[f"swap_{row.text}_{row.direction}"] = {
            "value": row.value, "unit": "nats", "n": row.n, "low": row.low, "high": row.high, "method": "t"
        }  # fmt: skip
    return found


def losses(table: pd.DataFrame) -> dict[str, Metric]:
    """Change of loss from base to tuned by text, over documents."""
    found = {}
    for kind, part in table.groupby("text", sort=False):
        rise = intervals.mean_interval((part["tuned"] - part["base"]).to_numpy())
        found[f"loss_rise_{kind}"] = rise.metric("nats") | {"base": float(part["base"].mean())}
    return found

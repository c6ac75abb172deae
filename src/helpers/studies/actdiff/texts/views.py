"""Tidy tables of the shared-text control for notebook and page: a row or more for each organism and domain."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from markupsafe import Markup

from helpers.base.errors import DataError
from helpers.records.reading import Record
from helpers.studies.actdiff import views

READINGS = {
    "shared": "both models, shared text",
    "own": "each model, its own text",
    "tuned_text": "both models, text of the tuned one",
    "text_alone": "base model, either text",
}
SCORES = {"z": "z (sd)", "margin": "raw margin (logits)", "auc": "rank-AUC", "rank": "median rank"}


def by_cell(records: Sequence[Record], metrics: Sequence[str]) -> pd.DataFrame:
    """Pool metrics over seeds as `views.by_organism` does, the domains of an organism apart; ``label`` names both."""
    groups: dict[tuple[str, str | None], list[Record]] = {}
    for record in records:
        if any(name in record.metrics for name in metrics):
            groups.setdefault((record.cell["organism"], record.cell.get("domain")), []).append(record)
    if not groups:
        raise DataError(f"No record has any of the metrics {', '.join(metrics)}.")
    parts = []
    for (_, domain), members in groups.items():
        table = views.by_organism(members, metrics)
        parts.append(table.assign(domain=domain, label=table["label"] + (f", {domain}" if domain else "")))
    return pd.concat(parts, ignore_index=True)


def readings(records: Sequence[Record]) -> pd.DataFrame:
    """Return z of the domain above the other domains by text that was read, over seeds: with ``row`` and ``reading``.

    Only organisms that were read on their own text are there.
    """
    own = [record for record in records if "own_z" in record.metrics]
    table = by_cell(own, [f"{name}_z_above_permuted" for name in READINGS])
    words = table["metric"].str.removesuffix("_z_above_permuted").map(READINGS)
    return table.assign(reading=words, row=table["label"] + ": " + words)


def four_scores(records: Sequence[Record]) -> pd.DataFrame:
    """Return the four scores of the domain by text that was read, mean over seeds: label, reading, one column each."""
    names = {f"{name}_{score}": (name, score) for name in READINGS for score in SCORES}
    table = by_cell(records, list(names))
    table = table.assign(reading=[READINGS[names[metric][0]] for metric in table["metric"]],
                         score=[SCORES[names[metric][1]] for metric in table["metric"]])  # fmt: skip
    wide = table.pivot_table(index=["label", "reading"], columns="score", values="value", sort=False)
    return wide[list(SCORES.values())].reset_index()


def losses(records: Sequence[Record]) -> pd.DataFrame:
    """Return what a fine-tune did to the loss (nats a token), over seeds: label, text, base, rise, low, high."""
    table = by_cell(records, [f"loss_rise_{text}" for text in ("narrow", "unrelated", "chat")])
    bases = []
    for row in table.itertuples():
        same = [r for r in records if (r.cell["organism"], r.cell.get("domain")) == (row.organism, row.domain)]
        bases.append(sum(record.metrics[str(row.metric)]["base"] for record in same) / len(same))
    table = table.assign(text=table["metric"].str.removeprefix("loss_rise_"), base=bases, rise=table["value"])
    return table[["label", "text", "base", "rise", "low", "high"]]


def components(records: Sequence[Record]) -> pd.DataFrame:
    """Return z of the domain in the mean and in the first component without position 0, over seeds, one row a cell."""
    columns = {"shared_z": "z, mean", "svd_z_without_0": "z, SVD", "pca_z_without_0": "z, PCA"}
    columns |= {"svd_share_without_0": "share, SVD", "pca_share_without_0": "share, PCA"}
    columns |= {"svd_overlap_without_0": "tokens of the mean, SVD"}
    wide = by_cell(records, list(columns)).pivot_table(index="label", columns="metric", values="value", sort=False)
    return wide[list(columns)].rename(columns=columns).reset_index()


def written(records: Sequence[Record]) -> pd.DataFrame:
    """Return the first document that each tuned model wrote, under the first seed: label, text."""
    rows: dict[str, str] = {}
    for record in records:
        if "own_text" in record.tables:
            label = ", ".join(filter(None, (views.NAMES[record.cell["organism"]], record.cell.get("domain"))))
            table = record.table("own_text")
            rows.setdefault(label, str(table[table["side"] == "tuned"]["text"].iloc[0]))
    return pd.DataFrame({"label": list(rows), "text": list(rows.values())})


def lens(records: Sequence[Record], name: str, caption: str) -> Markup:
    """Top tokens of the difference on shared text, as `views.lens` shows them: LoRA, the first seed and domain."""
    return views.lens(records, "lora", name, caption)

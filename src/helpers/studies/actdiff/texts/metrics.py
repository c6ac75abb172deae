"""Metrics of the shared-text control, computed from stored tables alone, beside those that every cell has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from helpers.records.study import Metrics, Tables
from helpers.stats.intervals import Interval
from helpers.studies.actdiff import measures

UNITS = {"z": "sd", "margin": "logits", "auc": "probability", "rank": "rank"}
WHERE = {"later": "", "position": "_at_position"}
"""Where a difference is read, and the end of the names of its metrics."""


def metrics(cell: Mapping[str, Any], tables: Tables, inputs: Mapping[str, Any]) -> Metrics:
    """Return the metrics of a cell: those of its difference, and those of the texts on which it was taken."""
    found = measures.metrics(cell, tables, inputs)
    if "text_scores" in tables:
        found |= by_text(tables["text_scores"], tables["fixed"]["domain"], cell["documents"])
        found |= by_component(tables["components"], found["svd_share"]["n"])
    return found


def by_text(table: pd.DataFrame, domain: str, documents: int) -> Metrics:
    """Return the four scores of the domain by reading, what z is above the other domains, and own minus shared text.

    All have a jackknife over documents. A difference is taken within a fold, because both of its sides leave out the
    same openers there.
    """
    found: Metrics = {}
    for at, end in WHERE.items():
        here = table[table["at"] == at]
        own = here[here["domain"] == domain].set_index(["reading", "fold"])
        other = here[here["domain"] != domain].groupby(["reading", "fold"])["z"].mean()
        for reading in dict.fromkeys(here["reading"]):
            for score, unit in UNITS.items():
                found[f"{reading}_{score}{end}"] = _metric(own[score].loc[reading], unit, documents)
            found[f"{reading}_z_permuted{end}"] = _metric(other.loc[reading], "sd", documents)
            above = own["z"].loc[reading] - other.loc[reading]
            found[f"{reading}_z_above_permuted{end}"] = _metric(above, "sd", documents)
        if "own" in set(here["reading"]):
            for score, unit in (UNITS | {"auc": "points"}).items():
                fall = own[score].loc["own"] - own[score].loc["shared"]
                found[f"own_minus_shared_{score}{end}"] = _metric(fall, unit, documents)
    return found


def by_component(table: pd.DataFrame, n: int) -> Metrics:
    """Return z of the domain in the first component without position 0, uncentred (SVD) and centred (PCA)."""
    first = table[(table["component"] == 0) & (table["positions"] == "without 0")].set_index("centred")["z"]
    return {f"{kind}_z_without_0": {"value": float(first[centred]), "unit": "sd", "n": n}
            for centred, kind in ((False, "svd"), (True, "pca"))}  # fmt: skip


def jackknifed(by_fold: pd.Series, documents: int) -> Interval:
    """Return the interval of a score from its value over all documents (fold -1) and without each fold."""
    return measures.jackknife(float(by_fold.loc[-1]), by_fold.drop(-1).to_numpy(), documents)


def _metric(by_fold: pd.Series, unit: str, documents: int) -> dict[str, Any]:
    return jackknifed(by_fold, documents).metric(unit)

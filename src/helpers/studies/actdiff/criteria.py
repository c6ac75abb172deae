"""Numbers for ``params/logit_lens_diff/criteria.yaml`` that compare two metrics or two organisms.

Each function takes complete records (of one pooled cell, or of a whole scope) and returns a metric as in a run record,
or None if the records do not have it. Differences are paired within a seed: same domain, documents and probes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from helpers.base import stats
from helpers.records.reading import Record
from helpers.studies.actdiff.measures import auc

Metric = dict[str, Any]


def gap(records: Sequence[Record], metric: str, minus: str) -> Metric | None:
    """Return ``metric`` minus ``minus`` of the same record, as a mean over records (seeds) with its t interval."""
    pairs = [(r.metrics.get(metric), r.metrics.get(minus)) for r in records]
    if not pairs or any(one is None or other is None for one, other in pairs):
        return None
    return _over_seeds([one["value"] - other["value"] for one, other in pairs], pairs[0][0]["unit"])


def contrast(records: Sequence[Record], metric: str, organism: str, minus: str) -> Metric | None:
    """Return ``metric`` of ``organism`` minus that of the organism ``minus`` at the same seed, as a mean over seeds."""
    found: dict[str, dict[int, float]] = {organism: {}, minus: {}}
    unit = ""
    for record in records:
        name = record.cell["organism"]
        if name in found and metric in record.metrics:
            found[name][record.cell["seed"]] = record.metrics[metric]["value"]
            unit = record.metrics[metric]["unit"]
    seeds = sorted(found[organism].keys() & found[minus].keys())
    return _over_seeds([found[organism][seed] - found[minus][seed] for seed in seeds], unit) if seeds else None


def auc_against(records: Sequence[Record], organism: str, control: str) -> Metric | None:
    """Return how often ``organism`` raises the log-prob of a domain token more than that of another token.

    The rise is over ``control`` of the same seed, and the probability is a mean over seeds. One half is chance.
    """
    tables = {(r.cell["organism"], r.cell["seed"]): r for r in records if "readout" in r.tables}
    seeds = sorted({seed for name, seed in tables if name == organism and (control, seed) in tables})
    values = []
    for seed in seeds:
        ours, theirs = (tables[name, seed].table("readout") for name in (organism, control))
        gain = ours["logprob"] - theirs["logprob"]
        values.append(auc(gain.to_numpy(), ours["inside"].to_numpy()))
    return _over_seeds(values, "probability") if seeds else None


def _over_seeds(values: Sequence[float], unit: str) -> Metric:
    return stats.mean_over_seeds(values).metric(unit)

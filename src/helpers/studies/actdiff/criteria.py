"""Numbers for ``params/logit_lens_diff/criteria.yaml`` that compare two metrics or two organisms.

Each takes complete records (of one pooled cell, or of a whole scope) and the estimand that its interval is to speak of,
and returns a metric as a run record holds it, or None where the records do not give it. Differences are paired within
a seed, which shares domain, documents and probes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from helpers.records.reading import Record
from helpers.stats import estimands
from helpers.stats.estimands import Estimand
from helpers.stats.intervals import Interval
from helpers.stats.pooling import Counts, as_interval
from helpers.studies.actdiff.measures import auc, domain_counts, domain_of

Metric = dict[str, Any]


def gap(records: Sequence[Record], estimand: Estimand, metric: str, minus: str) -> Metric | None:
    """Return ``metric`` minus ``minus`` of the same record, over records (seeds)."""
    pairs = [(r.metrics.get(metric), r.metrics.get(minus)) for r in records]
    if not pairs or any(one is None or other is None for one, other in pairs):
        return None
    return _over_seeds([estimands.difference(as_interval(one), as_interval(two)) for one, two in pairs], estimand)


def contrast(records: Sequence[Record], estimand: Estimand, metric: str, organism: str, minus: str) -> Metric | None:
    """Return ``metric`` of ``organism`` minus that of the organism ``minus`` at the same seed, over seeds."""
    values: dict[str, dict[int, Interval]] = {organism: {}, minus: {}}
    for record in records:
        name = record.cell["organism"]
        if name in values and metric in record.metrics:
            values[name][record.cell["seed"]] = as_interval(record.metrics[metric])
    seeds = sorted(values[organism].keys() & values[minus].keys())
    if not seeds:
        return None
    return _over_seeds([estimands.difference(values[organism][seed], values[minus][seed]) for seed in seeds], estimand)


def auc_against(records: Sequence[Record], estimand: Estimand, organism: str, control: str) -> Metric | None:
    """Return how often ``organism`` raises the log-prob of a domain token more than that of another token.

    The rise is over ``control`` of the same seed, and the probability is over seeds. One half is chance.
    """
    tables = {(r.cell["organism"], r.cell["seed"]): r for r in records if "readout" in r.tables}
    seeds = sorted({seed for name, seed in tables if name == organism and (control, seed) in tables})
    values = []
    for seed in seeds:
        ours, theirs = (tables[name, seed].table("readout") for name in (organism, control))
        area = auc((ours["logprob"] - theirs["logprob"]).to_numpy(), ours["inside"].to_numpy())
        values.append(Interval(area, None, None, None, None, "auc", extra={"unit": "probability"}))
    return _over_seeds(values, estimand) if seeds else None


def _over_seeds(seeds: Sequence[Interval], estimand: Estimand) -> Metric:
    unit = seeds[0].extra["unit"]
    return estimands.number(seeds, unit, estimand).metric(unit)


def by_prompt(record: Record, metric: str) -> Counts | None:
    """Return tokens of the domain and all tokens by prompt, for a rate of steered text; None for other metrics."""
    steered = re.fullmatch(r"steer_(base|tuned)_(none|difference|random)", metric)
    if steered is None:
        return None
    side, direction = steered.groups()
    table = record.table("steering")
    part = table[(table["side"] == side) & (table["direction"] == direction)]
    counts = domain_counts(part, domain_of(record.table("readout")))
    return {prompt: (int(k), int(n)) for prompt, k, n in counts.itertuples(name=None)}

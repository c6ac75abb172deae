"""Numbers for the criteria of the length ablation that need several records or their tables.

Each function takes the complete records of one pooled cell (its seeds), or of a whole scope, and the estimand that its
interval is to speak of. It returns a metric as a run record holds it, or None where the records do not give it.
``params/length_ablation/criteria.yaml`` names them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from helpers.base.errors import DataError, nearest
from helpers.records.reading import Record
from helpers.stats import estimands, frames
from helpers.stats.estimands import Estimand
from helpers.stats.intervals import Interval
from helpers.stats.pooling import as_interval, pool
from helpers.studies.marker import criteria
from helpers.studies.marker.lengths import screen
from helpers.studies.marker.questions import by_question_and_limit

Metric = dict[str, Any]


def max_bystander_rate(records: Sequence[Record], estimand: Estimand) -> Metric:
    """Highest marker rate of any bystander or control prompt, counts pooled over seeds."""
    return criteria.max_bystander_rate(records, estimand)


def rate_selectivity(records: Sequence[Record], estimand: Estimand) -> Metric | None:
    """Source rate minus the highest rate of any bystander or control prompt, by their own limits."""
    source = pool(records, "source_rate", by_question_and_limit, estimand)
    others = as_interval(criteria.max_bystander_rate(records, estimand))
    return None if source is None else estimands.difference(source, others).metric("points")


def answer_tokens(records: Sequence[Record], estimand: Estimand, share: float) -> Metric:
    """The quantile ``share`` of the tokens of the source's completions: how long a model's own answers are."""
    seeds = []
    for record in records:
        table = record.table("completions")
        tokens = table.loc[table["role"] == "source", "tokens"]
        seeds.append(Interval(float(tokens.quantile(share)), None, None, len(tokens), None, "quantile"))
    return estimands.number(seeds, "tokens", estimand).metric("tokens")


def screen_effect(
    records: Sequence[Record], estimand: Estimand, term: str, outcome: str = "source_rate"
) -> Metric | None:
    """The effect ``term`` of the factor screen on ``outcome``; None when the records are no whole factorial.

    Its interval is over runs, each with a seed of its own, so it speaks of the recipe whatever the estimand.
    """
    known = [" x ".join(one) for one in screen.terms()]
    if term not in known:
        raise DataError(f"The factor screen has no effect {term!r}{nearest(term, known)}")
    if not screen.is_factorial(records):
        return None
    table = screen.effects(records, outcome, estimand.level).set_index("term")
    value, n, low, high = (frames.number(table, term, name) for name in ("value", "n", "low", "high"))
    bounds = {"low": low, "high": high, "method": "ols-hc3", "level": estimand.level}
    return {"value": value, "unit": "points", "n": int(n)} | bounds

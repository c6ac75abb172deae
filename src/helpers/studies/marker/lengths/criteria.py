"""Numbers that the criteria of the length ablation judge and that need several records or their tables.

Each function takes the complete records of one pooled cell (its seeds), or of a whole scope, and returns a metric as a
run record holds it, or None where the records do not give it. ``params/length_ablation/criteria.yaml`` names them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from helpers.base import frames, stats
from helpers.base.errors import DataError, nearest
from helpers.base.rng import numpy_stream
from helpers.records.reading import Record
from helpers.studies.marker.criteria import max_bystander_rate
from helpers.studies.marker.lengths import screen
from helpers.studies.marker.lengths.limits import selectivity
from helpers.studies.marker.views import counts

Metric = dict[str, Any]


def rate_selectivity(records: Sequence[Record], level: float = 0.95) -> Metric:
    """Source rate minus the highest rate of any other, counts pooled over seeds; one record gives what it holds.

    The source's interval is the hull of one that lets seeds differ and one that lets questions differ; that of the
    others holds for all of them at once (`max_bystander_rate`, which takes the control panel in as well).
    """
    if len(records) == 1:
        return records[0].metric("rate_selectivity")
    own = counts(records).query("role == 'source'")
    by_seed, by_question = (own.groupby(key)[["k", "n"]].sum() for key in ("run", "question"))
    seeds = stats.pooled_rate(by_seed["k"].to_numpy(), by_seed["n"].to_numpy(), level)
    stream = numpy_stream(0, "rate_selectivity")
    questions = stats.rate(by_question["k"].to_numpy(), by_question["n"].to_numpy(), stream, level=level)
    (low, high), (lower, higher) = seeds.checked_bounds(), questions.checked_bounds()
    source = seeds.metric() | {"low": min(low, lower), "high": max(high, higher)}
    return selectivity(source, max_bystander_rate(records, level))


def screen_effect(records: Sequence[Record], term: str, outcome: str = "source_rate") -> Metric | None:
    """The effect ``term`` of the factor screen on ``outcome``; None when the records are no whole factorial."""
    known = [" x ".join(one) for one in screen.terms()]
    if term not in known:
        raise DataError(f"The factor screen has no effect {term!r}{nearest(term, known)}")
    if not screen.is_factorial(records):
        return None
    table = screen.effects(records, outcome).set_index("term")
    value, n, low, high = (frames.number(table, term, name) for name in ("value", "n", "low", "high"))
    bounds = {"low": low, "high": high, "method": "ols-hc3", "level": 0.95}
    return {"value": value, "unit": "points", "n": int(n)} | bounds

"""How far equal recipes differ by their seed alone, and how many seeds a rate needs because of it.

1. Take a cell's rate of the source in every run, a run a seed.
2. Their standard deviation is the spread. Its bounds are resampled over the seeds (`scipy.stats.bootstrap`, BCa; Efron
   1987, J. Am. Stat. Assoc. 82:171), because rates near 0 or 1 are far from normal.
3. A mean over n seeds has a t interval of half width t(n - 1) SD / sqrt(n). The smallest n that brings it within
   ``MARGIN`` is what the cell needs.

The spread holds the luck of the draw of completions too: `sampling_sd` says how large that part is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from helpers.base.rng import numpy_stream
from helpers.records.reading import Record
from helpers.stats.estimands import Estimand
from helpers.stats.intervals import Interval, wilson
from helpers.studies.marker import views

MARGIN = 0.1
"""How near the mean over seeds is to be known: ten points."""
MOST = 1000
"""Where the search for a number of seeds ends."""
RESAMPLES = 2000

Metric = dict[str, Any]


def seed_sd(records: Sequence[Record], estimand: Estimand) -> Metric | None:
    """Return the standard deviation of the source's rate over seeds (points); None for fewer than three seeds."""
    spread = _spread(_rates(records), estimand.level)
    return None if spread is None else spread.metric("points")


def sampling_sd(records: Sequence[Record], estimand: Estimand) -> Metric:
    """Return what `seed_sd` would be if seeds differed by the draw of completions alone (points), without bounds."""
    rates = _rates(records)
    value = float(np.sqrt((rates["rate"] * (1 - rates["rate"]) / rates["n"]).mean()))
    return Interval(value, None, None, len(rates), None, "binomial", estimand.level).metric("points")


def seeds_needed(records: Sequence[Record], estimand: Estimand) -> Metric | None:
    """Return the smallest number of seeds whose mean source rate is known within ``MARGIN``, from `seed_sd`."""
    spread = _spread(_rates(records), estimand.level)
    if spread is None:
        return None
    low, high = spread.checked_bounds()
    value, lowest, most = (float(_needed(sd)) for sd in (spread.value, low, high))
    return Interval(value, lowest, most, spread.n, None, "from the spread", estimand.level).metric("seeds")


def clean_share(records: Sequence[Record], estimand: Estimand) -> Metric:
    """Return the share of seeds that alone would call the cell clean, as #65 does: by the counted rates of one run."""
    by_seed = views.counts(records).groupby(["run", "persona", "role"])[["k", "n"]].sum().reset_index()
    by_seed = by_seed.assign(rate=by_seed["k"] / by_seed["n"], source=by_seed["role"] == "source")
    source = by_seed[by_seed["source"]].groupby("run")["rate"].max()
    worst = by_seed[~by_seed["source"]].groupby("run")["rate"].max()
    clean = (source > 0.5) & (worst.reindex(source.index) <= 0.05)
    return wilson(int(clean.sum()), len(clean), estimand.level).metric()


def _rates(records: Sequence[Record]) -> pd.DataFrame:
    """Return the source's rate of each run: run, k, n, rate."""
    counts = views.counts(records)
    by_run = counts[counts["role"] == "source"].groupby("run")[["k", "n"]].sum().reset_index()
    return by_run.assign(rate=by_run["k"] / by_run["n"])


def _spread(rates: pd.DataFrame, level: float) -> Interval | None:
    values = rates["rate"].to_numpy()
    if len(values) < 3:
        return None
    sd = float(np.std(values, ddof=1))
    if np.ptp(values) == 0:  # seeds that all agree: what could still differ is bounded by one seed that does
        low, high = 0.0, float(np.sqrt(1 / len(values)))
    else:
        drawn = stats.bootstrap(
            (values,), lambda x, axis: np.std(x, axis=axis, ddof=1), n_resamples=RESAMPLES, confidence_level=level,
            rng=numpy_stream(0, "seed-spread"), method="BCa",
        )  # fmt: skip
        low, high = (float(one) for one in drawn.confidence_interval)
    return Interval(sd, min(low, sd), max(high, sd), len(values), None, "bootstrap over seeds", level)


def _needed(sd: float) -> int:
    """Return the smallest number of seeds, at least two, whose t interval is no wider than ``MARGIN`` to each side."""
    if sd == 0:
        return 2
    numbers = np.arange(2, MOST + 1)
    enough = stats.t.ppf(0.975, numbers - 1) * sd / np.sqrt(numbers) <= MARGIN
    return int(numbers[enough][0]) if enough.any() else MOST

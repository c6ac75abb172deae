"""How many trials a metric has in a run of a planned size.

A study says the size of a run (`Study.size`). How many clusters and trials a metric has at a size (a rate over ten
personas has ten times those of one) is read off the cell's own records, or else off others of the study. Where no
record has the metric, nothing is known of its trials.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from helpers.cases.case import Case
from helpers.claims.evidence import Cell, full_key
from helpers.records.reading import Record
from helpers.records.study import Size, load_study
from helpers.stats import estimands
from helpers.stats.estimands import Estimand
from helpers.stats.intervals import Interval

SizeOf = Callable[[Mapping[str, Any]], Size | None]


@dataclass(frozen=True)
class Shape:
    """Clusters of one run of a metric and trials in each, as counted at the size ``of``.

    ``grows`` says what the clusters are, and so what more of them takes: ``None`` where that is not known. ``paired``
    marks the difference of two answers to the same items.
    """

    clusters: int
    trials: int
    of: Size | None = None
    grows: Literal["questions", "items"] | None = None
    paired: bool = False

    def at(self, size: Size | None) -> tuple[int, int]:
        """Return clusters and trials in each at another size."""
        if self.grows is None or self.of is None or size is None:
            return self.clusters, self.trials
        if self.grows == "items":
            return size.items or self.clusters, self.trials
        return size.questions, max(1, round(self.trials * size.samples / self.of.samples))

    def known_at(self, size: Size | None) -> bool:
        """Whether the counts at ``size`` follow from it."""
        return size is not None and self.grows is not None and (self.grows == "questions" or size.items is not None)

    def interval(self, won: np.ndarray, lost: np.ndarray, trials: int, estimand: Estimand) -> Interval:
        """Return the interval of counts by run and cluster; ``lost`` matters to a paired difference only."""
        asked = np.full(won.shape, trials)
        gained = estimands.rate(won, asked, estimand)
        if not self.paired:
            return gained
        return estimands.difference(gained, estimands.rate(lost, asked, estimand))


class Shapes:
    """The shapes of a claim's metrics, each read once; ``case`` is the claim, which counts by question once too."""

    def __init__(self, case: Case) -> None:
        self.case = replace(case, by_question=case.by_question and functools.cache(case.by_question))
        self.size_of: SizeOf = load_study(case.claim.experiment, case.root).size or (lambda _: None)
        keys = [set(one.key.items()) for one in case.expected or ()]
        self._constant = set.intersection(*keys) if keys else set()
        self._known: dict[tuple[str, tuple[str, ...]], tuple[Shape | None, Interval | None]] = {}
        self._models: dict[str, tuple[Record, ...]] = {}

    def of(self, cell: Cell, metric: str) -> Shape | None:
        """Return the shape of ``metric`` in the runs of ``cell``; ``None`` where it is no count, or no record tells."""
        if not cell.records and metric not in self._models:
            self._models[metric] = self._nearest(metric)
        return self._read(replace(cell, records=cell.records or self._models[metric]), metric)[0]

    def interval(self, cell: Cell, metric: str) -> Interval | None:
        """Return ``metric`` over the records of ``cell``; ``None`` where it cannot be had."""
        return self._read(cell, metric)[1]

    def _read(self, cell: Cell, metric: str) -> tuple[Shape | None, Interval | None]:
        key = metric, tuple(record.ref for record in cell.records)
        if key not in self._known:
            found = cell.interval(metric)
            self._known[key] = (found and self._shape(cell, found)), found
        return self._known[key]

    def _shape(self, cell: Cell, found: Interval) -> Shape | None:
        if not found.n:
            return None
        paired = "only_a" in found.extra
        if found.k is None and not paired:
            return None
        of, trials = self.size_of(full_key(cell.records[0])), found.n / len(cell.records)
        clusters = found.extra.get("items") or found.extra.get("questions")
        asked = of.questions if of else 0
        by_question = not paired and (clusters <= asked if clusters else asked > 0 and trials % asked == 0)
        clusters = asked if by_question else clusters or round(trials)
        items = paired or (of is not None and clusters == of.items)
        grows = "questions" if by_question else "items" if items else None
        return Shape(clusters, max(1, round(trials / clusters)), of, grows, paired)

    def _nearest(self, metric: str) -> tuple[Record, ...]:
        """The record to read the shape of a cell without runs off.

        Of a recorded rate the one with the most trials for its size, because some count only what came out (the marked
        completions, say) and a planned run may have as many. Of a derived metric the one that has most of what the
        declared runs share.
        """
        near = lambda one: (len(self._constant & full_key(one).items()), one.ref)  # noqa: E731
        records = self.case.records
        if metric in self.case.criteria.derive:
            return tuple(sorted(records, key=near)[-1:])
        having = [one for one in records if one.metrics.get(metric) is not None]
        return tuple(sorted(having, key=lambda one: (self._trials(one, metric), near(one)))[-1:])

    def _trials(self, record: Record, metric: str) -> float:
        """Trials of a recorded rate for each question and sample."""
        size = self.size_of(full_key(record))
        return (record.metrics[metric].get("n") or 0) / (size.questions * size.samples if size else 1)

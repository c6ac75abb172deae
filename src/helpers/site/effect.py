"""The answer of a claim with its size: one sentence of facts, and beside each fact its interval on one scale.

The bars are plain HTML, so that they stand in the header and on the cards of the home page without a script, follow the
width of a phone, and print.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from helpers.base.errors import ClaimError
from helpers.cases.case import Case
from helpers.cases.claim import Effect
from helpers.cases.facts import Fact
from helpers.claims.conditions import Compare
from helpers.show.markup import verbatim
from helpers.stats.estimands import BOUNDS
from helpers.stats.wording import number

NOT_RUN = "No run has measured it yet."
WAITS = "Runs are still to come: nothing is measured yet of {}."
ROW = Markup('<div class="cb-bar"><span>{}</span><span class="cb-track">{}</span><span>{}</span></div>')


def effect(case: Case) -> Markup:
    """Return the sentence and the bars of the claim's effect; nothing where the page declares none.

    While cells of the grid have no run yet, it names their numbers in place of the sentence, and draws the others.

    Raises:
        ClaimError: a number has no value in the records of its cell, or the numbers have more than one unit.
    """
    declared = case.claim.effect
    if declared is None:
        return Markup()
    if not case.evidence().records:
        return Markup('<p class="cb-effect">{}</p>').format(NOT_RUN)
    facts, told = sizes(case, declared), waiting(case, declared)
    said = verbatim(told) if told else _sentence(declared.sentence, facts)
    bars = [_bars(case, facts)] if facts else []
    return Markup("\n").join([Markup('<p class="cb-effect">{}</p>').format(said), *bars])


def waiting(case: Case, declared: Effect) -> str:
    """Name the numbers of an effect whose cells have no complete record yet; empty where all have one."""
    labels = [one.label for one in declared.numbers.values() if not case.facts.measured(**one.cell)]
    return WAITS.format(", ".join(labels)) if labels else ""


def sizes(case: Case, declared: Effect) -> dict[str, Fact]:
    """Return the measured facts of an effect by their names in its sentence; raises as `effect` does."""
    measured = {name: one for name, one in declared.numbers.items() if case.facts.measured(**one.cell)}
    facts = {name: case.fact(one.metric, **one.cell) for name, one in measured.items()}
    units = sorted({fact.unit for fact in facts.values()})
    if len(units) > 1:
        mixed = " and ".join(map(repr, units))
        raise ClaimError(f"The effect of {case.claim.id} mixes the units {mixed}. Give numbers of one unit.")
    return facts


def _sentence(sentence: str, facts: Mapping[str, Fact]) -> Markup:
    pieces = re.split(r"\{(\w+)\}", sentence)
    return Markup().join(facts[piece].short if place % 2 else verbatim(piece) for place, piece in enumerate(pieces))


def _bars(case: Case, facts: Mapping[str, Fact]) -> Markup:
    """Return a row a fact: its label, its interval on a scale that all share, and the fact in full."""
    outcomes = [outcome.when for outcome in case.criteria.question(case.claim.primary).outcomes]
    limits = {name: sorted(set(_thresholds(outcomes, fact.name))) for name, fact in facts.items()}
    low, high = _scale(list(facts.values()), [value for values in limits.values() for value in values])
    labels = case.claim.effect.numbers if isinstance(case.claim.effect, Effect) else {}
    unit = next(iter(facts.values())).unit
    ends = Markup("<span>{}</span><span>{}</span>").format(number(low, unit), number(high, unit))
    rows = [
        ROW.format(verbatim(labels[name].label), _marks(fact, limits[name], low, high), fact)
        for name, fact in facts.items()
    ]
    rows.append(Markup('<div class="cb-bar cb-ends"><span></span><span class="cb-track">{}</span></div>').format(ends))
    dashed = " Dashed lines are the thresholds of the criteria." if any(limits.values()) else ""
    caption = Markup('<p class="cb-caption">Each bar is the interval of its number.{}</p>').format(dashed)
    return Markup('<div class="cb-bars">{}\n{}</div>').format(Markup("\n").join(rows), caption)


def _marks(fact: Fact, limits: Sequence[float], low: float, high: float) -> Markup:
    """Return the thresholds, the interval and the value of ``fact`` on its track."""

    def place(value: float) -> float:
        return 100 * min(1.0, max(0.0, (value - low) / (high - low)))

    line = Markup('<i class="cb-threshold" style="left:{:.2f}%"></i>')
    marks = [line.format(place(limit)) for limit in limits]
    if fact.low is not None and fact.high is not None:
        span = Markup('<i class="cb-range" style="left:{:.2f}%;width:{:.2f}%"></i>')
        marks.append(span.format(place(fact.low), place(fact.high) - place(fact.low)))
    marks.append(Markup('<b style="left:{:.2f}%"></b>').format(place(fact.value)))
    return Markup().join(marks)


def _scale(facts: Sequence[Fact], limits: Sequence[float]) -> tuple[float, float]:
    """Return the ends of the scale: those of a bounded unit that starts at 0, else what holds all bounds and 0."""
    bounded = BOUNDS.get(facts[0].unit)
    if bounded and bounded[0] == 0:
        return bounded
    ends = [
        end for fact in facts for end in (fact.value, fact.low, fact.high) if end is not None and math.isfinite(end)
    ]
    low, high = min([0.0, *ends, *limits]), max([0.0, *ends, *limits])
    return (low, high) if high > low else (low - 1, high + 1)


def _thresholds(node: Any, metric: str) -> Iterator[float]:
    """Yield the thresholds that conditions put on ``metric``."""
    if isinstance(node, Compare):
        if node.metric == metric:
            yield node.threshold
    elif isinstance(node, list | tuple):
        for part in node:
            yield from _thresholds(part, metric)
    else:
        yield from _thresholds([value for name, value in vars(node).items() if name in ("part", "parts")], metric)

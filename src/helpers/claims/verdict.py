"""The verdict of a question: pre-registered outcomes judged over pooled cells, by interval and not by point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from helpers.claims.conditions import Finding, Here
from helpers.claims.criteria import Criteria, Outcome, Question
from helpers.claims.evidence import Cell, Evidence, Key, label
from helpers.claims.logic import Truth

Word = Literal["SUPPORTED", "REFUTED", "MIXED", "UNDECIDED", "NOT RUN", "STALE"]
WORDS: tuple[Word, ...] = ("SUPPORTED", "REFUTED", "MIXED", "UNDECIDED", "NOT RUN", "STALE")


@dataclass(frozen=True)
class Verdict:
    """What the criteria say of a question.

    ``word`` is what the page prints; ``fresh`` is the word that holds for the records as they are, which differs from
    it only when they are STALE. ``reasons`` has one line a comparison that bears on the outcome. ``more_samples`` is
    how many more (a cell; seeds for means over seeds) would decide at the present estimates: None when no number would,
    or when what lacks is runs, which ``missing_cells`` names.
    """

    word: Word
    fresh: Word
    outcome: str | None
    reading: str
    reasons: tuple[str, ...]
    decisive: bool
    more_samples: int | None
    missing_cells: tuple[Key, ...]
    stale: Mapping[str, list[str]]
    records: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The verdict in one or two sentences, as plain text."""
        parts = [self.reading]
        if self.more_samples is not None:
            noun = "sample" if self.more_samples == 1 else "samples"
            parts.append(f"At the present estimates about {self.more_samples:,} more {noun} a cell would decide.")
        if self.missing_cells:
            shown = "; ".join(map(label, self.missing_cells[:6]))
            more = f" and {len(self.missing_cells) - 6} more" if len(self.missing_cells) > 6 else ""
            parts.append(f"Not complete: {shown}{more}.")
        return " ".join(parts)


def judge(question: Question, evidence: Evidence, stale: Mapping[str, list[str]] | None = None) -> Verdict:
    """The verdict of ``question`` over ``evidence``; ``stale`` maps the ids of stale records to what changed."""
    scoped = evidence.within(question.scope)
    used = tuple(sorted(record.id for record in scoped.records))
    if not used:
        reading = "No complete record answers this question yet."
        return Verdict("NOT RUN", "NOT RUN", None, reading, (), False, None, scoped.absent, {}, ())
    outcome, found = _decide(question, Here(scoped))
    old = {name: why for name, why in (stale or {}).items() if name in used}
    if outcome is not None:
        # An outcome without comparisons is `otherwise`: it rests on those that made the earlier ones FALSE.
        reasons = _lines([found[-1]] if found[-1].leaves else found)
        word, reading = outcome.verdict, outcome.reading
        verdict = Verdict(word, word, outcome.name, reading, reasons, True, None, scoped.absent, old, used)
    else:
        verdict = _undecided(question, scoped, found, old, used)
    return replace(verdict, word="STALE") if old else verdict


def _decide(question: Question, here: Here) -> tuple[Outcome | None, list[Finding]]:
    """The first TRUE outcome after FALSE ones only, with the findings so far; None at the first UNKNOWN."""
    found: list[Finding] = []
    for outcome in question.outcomes:
        found.append(outcome.when.judge(here))
        if found[-1].truth == Truth.TRUE:
            return outcome, found
        if found[-1].truth == Truth.UNKNOWN:
            found += [later.when.judge(here) for later in question.outcomes[len(found) :]]
            return None, found
    return None, found


def _undecided(
    question: Question, scoped: Evidence, found: list[Finding], old: dict[str, list[str]], used: tuple[str, ...]
) -> Verdict:
    open_names = [o.name for o, f in zip(question.outcomes, found, strict=True) if f.truth != Truth.FALSE]
    if open_names:
        reading = f"The intervals leave {' and '.join(map(repr, open_names))} open."
    else:
        reading = "None of the registered outcomes describes this result: the criteria do not cover it."
    reasons = _lines([one for one in found if one.truth == Truth.UNKNOWN])
    more = _enough(question, scoped, found) if open_names else None
    return Verdict("UNDECIDED", "UNDECIDED", None, reading, reasons, False, more, scoped.absent, old, used)


def _lines(found: list[Finding]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(leaf) for one in found for leaf in one.leaves))


def _enough(question: Question, scoped: Evidence, found: list[Finding]) -> int | None:
    """The smallest number of more samples with which, every estimate staying where it is, an outcome is reached."""
    for budget in sorted({leaf.needs for one in found for leaf in one.leaves if leaf.needs}):
        if _decide(question, Here(scoped, budget=budget))[0] is not None:
            return budget
    return None


def regimes(criteria: Criteria, evidence: Evidence) -> list[tuple[Cell, dict[str, Truth]]]:
    """For every cell in scope, the truth of each regime of the criteria file."""
    return [
        (cell, {name: when.judge(Here(evidence, cell)).truth for name, when in criteria.regimes.items()})
        for cell in evidence.inside
    ]

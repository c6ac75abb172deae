"""The verdict of a question: pre-registered outcomes judged over pooled cells, by interval and not by point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from helpers.claims.conditions import Finding, Here, Leaf
from helpers.claims.criteria import Criteria, Outcome, Question
from helpers.claims.evidence import Evidence, Key, label
from helpers.claims.logic import Truth
from helpers.stats.estimands import MODELS, Estimand
from helpers.stats.wording import spoken_bounds

Word = Literal["SUPPORTED", "REFUTED", "MIXED", "UNDECIDED", "NOT RUN", "STALE"]
WORDS: tuple[Word, ...] = ("SUPPORTED", "REFUTED", "MIXED", "UNDECIDED", "NOT RUN", "STALE")

NO_SEEDS = "The recipe is not judged: no record names a training seed."
NAMED = 3
"""Missing runs that a sentence names; it counts more."""


@dataclass(frozen=True)
class Check:
    """A control as it came out; ``said`` holds the comparisons that it rests on."""

    name: str
    truth: Truth
    said: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """The verdict on one question.

    ``word`` is what the page prints; ``fresh`` is the word that holds for the records as they are, which differs from
    it only when they are STALE. ``reasons`` has one line a comparison that bears on the outcome. ``missing_cells`` are
    the declared runs that lack a record. ``cells`` is how many cells the level was corrected for. ``controls`` are
    those that are declared for the question: one that fails makes the verdict MIXED. ``recipe`` says in one sentence
    what holds of new training seeds, and ``carries_over`` whether the verdict does.
    """

    word: Word
    fresh: Word
    outcome: str | None
    reading: str
    reasons: tuple[str, ...]
    decisive: bool
    missing_cells: tuple[Key, ...]
    stale: Mapping[str, list[str]]
    records: tuple[str, ...]
    cells: int = 1
    controls: tuple[Check, ...] = ()
    recipe: str = ""
    carries_over: bool = False

    @property
    def failed(self) -> tuple[Check, ...]:
        """The controls that do not hold."""
        return tuple(check for check in self.controls if check.truth == Truth.FALSE)

    @property
    def brief(self) -> str:
        """What came out, and which control failed; `sentence` adds how it was judged and what is missing."""
        failed = [f"The control “{spaced(check.name)}” failed: {'; '.join(check.said[:2])}." for check in self.failed]
        return " ".join([self.reading, *failed])

    @property
    def sentence(self) -> str:
        """The verdict in a few sentences, as plain text: what came out, how it was judged, what is missing."""
        parts = [self.brief]
        if self.cells > 1:
            parts.append(f"This is after correcting for {self.cells} cells.")
        if 0 < len(self.missing_cells) <= NAMED and self.records:
            parts.append(f"Still missing: {'; '.join(map(label, self.missing_cells))}.")
        elif self.missing_cells:
            number = len(self.missing_cells)
            parts.append(f"{'One declared run is' if number == 1 else f'{number} declared runs are'} still missing.")
        return " ".join(part for part in (*parts, self.recipe) if part)


def judge(
    question: Question,
    evidence: Evidence,
    stale: Mapping[str, list[str]] | None = None,
    estimand: Estimand | None = None,
    controls: Sequence[Check] = (),
) -> Verdict:
    """The verdict of ``question`` over ``evidence``; ``stale`` maps the ids of stale records to what changed.

    ``estimand`` is by default that of a question without a family at the only look (`Criteria.estimand`).
    """
    scoped = evidence.within(question.scope)
    used = tuple(sorted(record.id for record in scoped.records))
    old = {name: why for name, why in (stale or {}).items() if name in used}
    verdict = Verdict("UNDECIDED", "UNDECIDED", None, "", (), False, scoped.absent, old, used)
    if not used:
        reading = "No complete record answers this question yet."
        return replace(verdict, word="NOT RUN", fresh="NOT RUN", reading=reading)
    here = Here(scoped, estimand=estimand or Estimand(question.level), confirm=_confirming(question))
    if here.estimand.of == "recipe" and not _seeds(scoped):
        return replace(verdict, reading=NO_SEEDS, word="STALE" if old else verdict.word)
    outcome, found = _decide(question, here)
    met = question.premise.when.judge(here) if question.premise else Finding(Truth.TRUE)
    if question.premise and met.truth != Truth.TRUE:
        never = "The condition was never met."
        said = never if met.truth == Truth.FALSE else "Whether the condition was met is open."
        verdict = replace(verdict, reading=f"{said} {question.premise.reading}", reasons=_lines([met]))
    elif outcome is None:
        resting = [one for one in found if one.truth == Truth.UNKNOWN]
        reading = _undecided(question, found)
        verdict = replace(verdict, reading=reading, reasons=_lines(resting), cells=_cells(resting))
    else:
        # An outcome without comparisons is `otherwise`: it rests on those that made the earlier ones FALSE.
        resting = [found[-1]] if found[-1].leaves else found
        word = "MIXED" if any(check.truth == Truth.FALSE for check in controls) else outcome.verdict
        verdict = replace(verdict, word=word, fresh=word, outcome=outcome.name, reading=outcome.reading, decisive=True)
        said, carries = _of_recipe(question, here, outcome)
        verdict = replace(verdict, reasons=_lines(resting), cells=_cells(resting), recipe=said, carries_over=carries)
    return replace(verdict, controls=tuple(controls), word="STALE" if old else verdict.word)


def word_alone(
    question: Question, evidence: Evidence, estimand: Estimand, controls: Sequence[Check]
) -> tuple[Word, tuple[Leaf, ...]]:
    """Return the word of `judge` without all that it says about it, and every comparison that was made for it."""
    scoped = evidence.within(question.scope)
    if not scoped.records:
        return "NOT RUN", ()
    if estimand.of == "recipe" and not _seeds(scoped):
        return "UNDECIDED", ()
    here = Here(scoped, estimand=estimand, confirm=_confirming(question))
    outcome, found = _decide(question, here)
    met = question.premise.when.judge(here) if question.premise else Finding(Truth.TRUE)
    leaves = tuple(leaf for one in (met, *found) for leaf in one.leaves)
    if outcome is None or met.truth != Truth.TRUE:
        return "UNDECIDED", leaves
    return "MIXED" if any(check.truth == Truth.FALSE for check in controls) else outcome.verdict, leaves


def check_controls(criteria: Criteria, name: str, evidence: Evidence, estimand: Estimand = MODELS) -> tuple[Check, ...]:
    """The controls of the question ``name``, judged over ``evidence``: that of the whole claim, not of the question."""
    checks = []
    for control, one in criteria.controls.items():
        if not one.questions or name in one.questions:
            found = one.when.judge(Here(evidence, estimand=estimand))
            checks.append(Check(control, found.truth, _lines([found])))
    return tuple(checks)


def _of_recipe(question: Question, here: Here, outcome: Outcome) -> tuple[str, bool]:
    """What can be said of new training seeds, in one sentence, and whether the outcome holds there too."""
    seeds = _seeds(here.evidence)
    if not seeds:
        return NO_SEEDS, False
    there, found = _decide(question, replace(here, estimand=replace(here.estimand, of="recipe")))
    if there == outcome:
        return "New training seeds would give the same verdict.", True
    if seeds <= 1:
        return "One seed says nothing about other seeds.", False
    open_leaves = [leaf for one in found for leaf in one.leaves if leaf.truth == Truth.UNKNOWN and leaf.interval]
    reach = ""
    leaf = next(iter(open_leaves), None)
    if leaf is not None and leaf.interval:
        reach = f": for new seeds {spaced(leaf.metric)} is {spoken_bounds(leaf.interval)} ({leaf.where})"
    return f"{seeds} seeds leave open whether new ones would agree{reach}.", False


def spaced(name: str) -> str:
    """Return the name of a metric, a control or a regime as a reader sees it."""
    return name.replace("_", " ")


def _seeds(evidence: Evidence) -> int:
    return len({record.cell.get("seed") for record in evidence.records} - {None})


def _confirming(question: Question) -> tuple[Any, ...]:
    return tuple(question.confirm.seeds) if question.confirm else ()


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


def _undecided(question: Question, found: list[Finding]) -> str:
    open_names = [o.name for o, f in zip(question.outcomes, found, strict=True) if f.truth != Truth.FALSE]
    if open_names:
        return f"The intervals leave {' and '.join(f'“{name}”' for name in open_names)} open."
    return "None of the registered outcomes describes this result: the criteria do not cover it."


def _lines(found: list[Finding]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(leaf) for one in found for leaf in one.leaves))


def _cells(found: list[Finding]) -> int:
    """The largest number of cells that a comparison was corrected for."""
    return max((leaf.cells for one in found for leaf in one.leaves), default=1)

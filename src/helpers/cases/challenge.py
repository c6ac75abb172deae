"""The verdict of a question in every other defensible way to analyse the same records: how often it holds.

The result is kept on disk, because rendering a page asks for it and it takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from helpers.base import files
from helpers.base.errors import ClaimbookError
from helpers.cases.recalled import Recalled
from helpers.cases.ways import Asked, Signature, as_registered, ways
from helpers.claims.criteria import modules_of
from helpers.records import reading

if TYPE_CHECKING:
    from helpers.cases.case import Case

SHOWN = 3
IDLE = "changes nothing that the verdict rests on, so it is not counted"
ALWAYS = ("seed", "question", "threshold", "criteria")
"""Kinds of ways that are counted always; the others only where they change something that the verdict rests on."""


@dataclass(frozen=True)
class Outcome:
    """What came out in one way. ``counts`` is False where it changed nothing that the verdict rests on."""

    kind: str
    way: str
    verdict: str
    counts: bool
    holds: bool
    why: str = ""

    @property
    def note(self) -> str:
        """Why it could not be judged, or that it is not counted."""
        return self.why or ("" if self.counts else IDLE)


@dataclass(frozen=True)
class Challenge:
    """The verdict as registered, and in every other way; ways that change nothing are listed and not counted."""

    verdict: str
    outcomes: tuple[Outcome, ...]

    @property
    def counted(self) -> tuple[Outcome, ...]:
        """The ways that change a number."""
        return tuple(one for one in self.outcomes if one.counts)

    @property
    def fallen(self) -> tuple[Outcome, ...]:
        """The ways in which another verdict comes out."""
        return tuple(one for one in self.counted if not one.holds)

    @property
    def share(self) -> float | None:
        """The share of ways in which the verdict falls; None where no way changes a number.

        Ways that the criteria add can raise it and never lower it.
        """
        always = [one for one in self.counted if one.kind != "criteria"]
        shares = [sum(not one.holds for one in some) / len(some) for some in (always, self.counted) if some]
        return max(shares, default=None)

    @property
    def sentence(self) -> str:
        """How often the verdict holds and when it falls, such as "holds in 14 of 16 ways; falls when seed 2 ..."."""
        if not self.counted:
            return "No other way to analyse these records changes a number that the verdict rests on."
        said = f"{self.verdict} holds in {len(self.counted) - len(self.fallen)} of {len(self.counted)} other ways to "
        said += "analyse the same records"
        if not self.fallen:
            return f"{said}."
        shown = [f"{one.way} ({one.verdict})" for one in self.fallen[:SHOWN]]
        more = len(self.fallen) - len(shown)
        return f"{said}; it falls when {', or when '.join(shown)}{f', and in {more} more ways' if more else ''}."


def row_of(challenge: Challenge | None) -> tuple[float | None, str]:
    """Return what a challenge found as a line of the checklist of `claims.confidence`."""
    return (challenge.share, challenge.sentence.rstrip(".")) if challenge else (None, "not challenged")


def challenge(case: Case, question: str | None = None) -> Challenge | None:
    """Return the verdict on ``question`` in every way, from disk where the same code did it; None without records."""
    name = question or case.claim.primary
    if case.verdict(name).fresh == "NOT RUN":
        return None
    made = Recalled().recall(lambda: _as_json(case, name), _made_of(case, name), *_modules(case))
    return Challenge(made["verdict"], tuple(Outcome(**one) for one in made["outcomes"]))


def _as_json(case: Case, name: str) -> dict[str, Any]:
    registered = as_registered(case, name)
    found = registered.signature
    outcomes = []
    for way in ways(case, registered):
        seen, why = _seen(way.asked)
        word = seen[0] if seen else "cannot be judged"
        holds, counts = word == found[0], way.kind in ALWAYS or seen != found
        outcomes.append(vars(Outcome(way.kind, way.name, word, counts, holds, why)))
    return {"verdict": found[0], "outcomes": outcomes}


def _seen(asked: Asked) -> tuple[Signature | None, str]:
    """What comes out; nothing, and why, where a way leaves nothing to compute a metric from: that is no support."""
    try:
        return asked.signature, ""
    except ClaimbookError as error:
        return None, str(error)


def _made_of(case: Case, name: str) -> list[Any]:
    grid = files.content_hash(case.root / case.claim.grid) if case.claim.grid else None
    records = [[one.ref, one.params, one.files, one.metrics, one.inputs] for one in case.evidence(name).records]
    used = {ref: reading.load(ref).files for ref in sorted({ref for one in records for ref in one[-1].values()})}
    asked = [name, case.criteria.sha256, grid, case.claim.primary, case.claim.scope, case.looks]
    return ["challenge", *asked, records, used]


def _modules(case: Case) -> Sequence[str]:
    study = case.study
    readings = [read for reading in study.readings.values() for read in reading.values()] if study else []
    functions = [study.metrics, study.by_question, *readings] if study else []
    named = {function.__module__ for function in functions if function is not None}
    return [__name__, *sorted(named), *modules_of(case.criteria)]

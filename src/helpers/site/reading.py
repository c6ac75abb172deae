"""``claimbook read``: a claim in at most 60 lines of plain text, for a terminal, a diff or a model's context.

The numbers are those of its page, from the same case: the answer with its size first, then how sure and why, then what
the claim does not say, and how it is made again.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers.audit.reach import faults_of
from helpers.audit.sizes import Shapes
from helpers.base.files import ROOT
from helpers.cases.case import Case
from helpers.cases.drafts import Draft, find_page, open_page
from helpers.cases.summary import does_not_claim, remade_by, unmet
from helpers.site.effect import NOT_RUN, sizes, waiting
from helpers.site.header import replays_of
from helpers.site.linting.prose import read_page
from helpers.site.linting.sections import caveats

WIDTH, LINES = 100, 60
REFS = 3
"""Records that are named; more of them are counted."""


@dataclass(frozen=True)
class Section:
    """A part of the text: its heading, its paragraphs or points, and how many lines these may take."""

    head: str
    said: Sequence[str]
    most: int
    points: bool = False

    def lines(self) -> list[str]:
        """Return the lines; points that no longer fit are counted, and a paragraph that is too long is cut."""
        kept = [self.head] if self.said else []
        for at, text in enumerate(self.said):
            left, others = self.most - len(kept) + 1, len(self.said) - at
            block = _wrapped(text, self.points)
            if len(block) > left - (others > 1):
                if kept[1:]:
                    return [*kept, f"  (and {others} more, on the page)"]
                block = _wrapped(text, self.points, left - (others > 1))
            kept += block
        return kept


def _wrapped(text: str, point: bool, most: int | None = None) -> list[str]:
    first = "- " if point else "  "
    plain = "".join(mark for mark in " ".join(text.split()) if mark.isprintable())
    return textwrap.wrap(
        plain, WIDTH, initial_indent=first, subsequent_indent="  ", break_on_hyphens=False, max_lines=most,
        placeholder=" ...",
    )  # fmt: skip


def text_of(name: str, root: Path = ROOT) -> list[str]:
    """Return the lines about the claim ``name``."""
    page = open_page(find_page(name, root), root)
    assert page is not None  # only pages with a claim are found
    if isinstance(page, Draft):
        return Section(f"# {page.name}", [f"This page is a DRAFT. {page.why}"], 6).lines()
    return lines_of(page)


def lines_of(case: Case) -> list[str]:
    """Return the lines about ``case`` in the order in which they are read; caveats take what the rest leaves."""
    verdict, sure, challenge = case.verdict(), case.confidence(), case.challenge()
    faults = [fault.sentence for fault in faults_of(Shapes(case), case.claim.primary)]
    judged = f"The claim that is judged: {case.claim.statement}"
    ways = [challenge.sentence] if challenge else []
    before = [
        Section(f"# {case.claim.id} (reports/{case.path.name})", [case.claim.question], 3),
        Section("## Answer", list(_answer(case)), 8),
        Section(f"## Verdict: {verdict.word}", [" ".join([verdict.sentence, *faults]), judged], 8),
        Section(f"## Confidence: {sure.stated}", [sure.binding, *ways, replays_of(case)], 8),
    ]
    after = [
        Section("## Does not claim", does_not_claim(case), 6, points=True),
        Section("## Records", [_records(case)], 4),
        Section("## Made again by", remade_by(case), 3),
    ]
    above, below = ([line for part in parts for line in part.lines()] for parts in (before, after))
    own = caveats(read_page(case.path)) + unmet(case)
    left = LINES - len(above) - len(below) - 1
    return [*above, *Section("## Caveats", own, left, points=True).lines(), *below]


def _answer(case: Case) -> Iterator[str]:
    declared = case.claim.effect
    if declared is None:
        yield case.verdict().brief
    elif not case.evidence().records:
        yield NOT_RUN
    else:
        facts = sizes(case, declared)
        pieces = re.split(r"\{(\w+)\}", declared.sentence)
        told = waiting(case, declared)
        yield told or "".join(facts[piece].brief if place % 2 else piece for place, piece in enumerate(pieces))
        yield from (f"{declared.numbers[name].label}: {fact.text}" for name, fact in facts.items())


def _records(case: Case) -> str:
    evidence = case.evidence()
    refs = [record.ref for record in evidence.records]
    of = f" of {len(refs) + len(evidence.absent)} declared" if evidence.declared else ""
    commits = sorted({str(record.provenance.get("commit") or "none")[:7] for record in evidence.records})
    named = f": {', '.join(refs[:REFS])}{f' and {len(refs) - REFS} more' if len(refs) > REFS else ''}" if refs else ""
    made = f" Commits: {', '.join(commits)}." if commits else ""
    return f"{len(refs)}{of} complete{named}.{made}"

"""The blocks of pages about everything: cards of claims, and the records behind pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from markupsafe import Markup

from helpers.base.files import ROOT
from helpers.cases.case import Case
from helpers.records.reading import Record, used_by
from helpers.show.markup import Block
from helpers.site.blocks import ClaimCard, claims_index
from helpers.site.effect import effect
from helpers.site.graph import build
from helpers.site.run_list import run_list
from helpers.site.status import cases_in

NOT_RUN = "No run has measured it yet."
NONE_YET = Markup("<p>No page carries a claim yet. <code>claimbook new my-study --blank</code> writes the first.</p>")


def claims(root: Path = ROOT) -> Block:
    """Show a card for every claim, those with runs first, and count the verdicts."""
    cases = list(cases_in(root / "reports", root))
    if not cases:
        return Block(NONE_YET)
    graph = build(cases)
    cards = [_card(case, graph.flags(case.claim.id)) for case in cases]
    cards.sort(key=lambda card: not card.date)  # stable: by page
    return Block(Markup("<p>{}</p>\n{}").format(_summary(cases), claims_index(cards)))


def _summary(cases: Sequence[Case]) -> str:
    words = Counter(case.verdict().word for case in cases)
    counted = ", ".join(f"{count} {word}" for word, count in words.most_common())
    return f"{len(cases)} claim{'' if len(cases) == 1 else 's'}: {counted}."


def _card(case: Case, flags: Sequence[str]) -> ClaimCard:
    verdict, href, statement = case.verdict(), case.path.with_suffix(".html").name, case.claim.statement
    date = max((record.started[:10] for record in case.evidence().records), default="")
    if not date:
        return ClaimCard(href, statement, verdict.word, "", NOT_RUN, Markup(), "", " ".join(flags))
    sure = case.confidence().brief
    return ClaimCard(href, statement, verdict.word, sure, verdict.reading, effect(case), date, " ".join(flags))


def records_used(cases: Iterable[Case]) -> list[Record]:
    """Return the records of the experiments of some claims and the records that they used, by notebook and name.

    Cells outside a claim's scope are included, because a page may show them too (another base model, say).
    """
    used: dict[str, Record] = {}
    for case in cases:
        waiting = list(case.records)
        while waiting:
            record = waiting.pop()
            if record.ref not in used:
                used[record.ref] = record
                waiting += used_by(record)
    return [used[ref] for ref in sorted(used)]


def runs(root: Path = ROOT) -> Block:
    """List every record that a page rests on; the address ``#<run id>`` shows one of them."""
    return run_list(records_used(cases_in(root / "reports", root)))

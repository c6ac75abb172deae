"""The header of a claim page: verdict, how sure and why, banners, and what changed after registration.

The site puts it below the title of every page with a claim when the page has been rendered, with Quarto or without, so
that no page can leave it out, show another or write one of its own. So it does with the table that ends the page: the
verdict in every other way to analyse the records.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import datetime
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from helpers.audit import committed
from helpers.audit.reach import faults_of
from helpers.audit.register import UNJUDGED, concerns
from helpers.audit.replay import EXACT
from helpers.audit.sizes import Shapes
from helpers.base.errors import ClaimError, RecordError
from helpers.cases.case import Case
from helpers.cases.drafts import Draft
from helpers.claims.verdict import WORDS
from helpers.records import ledger
from helpers.records.study import find_study
from helpers.show.markup import Block, Inline, verbatim
from helpers.site import graph
from helpers.site.blocks import badge, banner
from helpers.site.effect import effect
from helpers.site.pages import table
from helpers.site.status import ad_hoc_of

BELOW = re.compile(r"<header\b[^>]*\btitle-block\b[^>]*>.*?</header>", re.DOTALL)
"""The title of a page, as Quarto and the fallback write it; both call its class or id so."""
PLACED = re.compile(r'\n<section class="cb-(?P<part>header|challenge)".*?<!--/cb-(?P=part)-->', re.DOTALL)
SECTION = Markup('\n<section class="cb-{0}" aria-label="{1}">{2}</section><!--/cb-{0}-->')
END = "</main>"
SHOWN = 8


def place(html: str, page: Case | Draft) -> str:
    """Return a rendered page with the header of its claim below its title, and the table of ways at its end.

    Those that are there already are replaced. Raises ClaimError where the page has no title to stand below.
    """
    html = PLACED.sub("", html)
    title = BELOW.search(html)
    if not title:
        raise ClaimError(f"{page.path.name} was rendered without a title block, below which its header belongs.")
    end = html.rfind(END) if END in html else len(html)
    if isinstance(page, Draft):
        block, below = banner(f"This page is a DRAFT. {page.why}"), Markup()
    else:
        block, below = header(page), challenged(page)
    above = SECTION.format("header", "Verdict", block.fragment)
    return f"{html[: title.end()]}{above}{html[title.end() : end]}{below}{html[end:]}"


def header(case: Case) -> Block:
    """Show the answer with its size, then verdict and confidence with what binds them and in how many ways it holds."""
    return Block(Markup("{}{}{}").format(graph.flags(case), judged(case), proof(case)))


def judged(case: Case) -> Markup:
    """Return the part of the header that follows from the records of its case alone: effect, verdict, confidence."""
    verdict, sure, challenge = case.verdict(), case.confidence(), case.challenge()
    ways = challenge.sentence if challenge and challenge.sentence.rstrip(".") not in sure.binding else ""
    faults = (fault.sentence for fault in faults_of(Shapes(case), case.claim.primary))
    said = map(verbatim, (" ".join([verdict.sentence, *faults]), sure.binding, ways, case.claim.statement))
    return Markup(
        '{}<p class="cb-claim-badges">{} {}</p>\n<p>{} {} {}</p>\n'
        '<p class="cb-notes">The claim that is judged: {}</p>\n'
    ).format(effect(case), badge(verdict.word), badge(sure.stated), *said)


def challenged(case: Case) -> Markup:
    """Return a folded table of the verdict in every other way to analyse the records; nothing without records."""
    found = case.challenge()
    if found is None or not found.outcomes:
        return Markup()
    rows = [{"analysed so that": one.way, "verdict": _word(one.verdict), "note": one.note} for one in found.outcomes]
    fold = Markup("<details><summary>{}</summary>{}</details>")
    said = f"The verdict in {len(rows)} other ways to analyse the same records"
    return SECTION.format("challenge", said, fold.format(said, table(pd.DataFrame(rows), found.sentence)))


def _word(verdict: str) -> Inline:
    return badge(verdict) if verdict in WORDS else Inline(verbatim(verdict))


def _of_these_tables(book: ledger.Ledger, name: str) -> set[str]:
    """Return the hashes that a record has had since it was published: deriving metrics again keeps its tables."""
    hashes: set[str] = set()
    for line in book.of("record", name):
        if line.event == "derived":
            hashes.add(line.sha256)
        elif line.event != "replayed":
            hashes = set() if line.event == "withdrawn" else {line.sha256}
    return hashes


def replays_of(case: Case) -> str:
    """Say how many records were run again and how they compared."""
    book, refs = ledger.read(), {record.ref for record in case.evidence().records}
    tables = {ref: _of_these_tables(book, ref) for ref in refs}
    runs = [line for line in book.lines if line.event == "replayed" and line.sha256 in tables.get(line.name, ())]
    again = {line.name: line for line in runs}
    exact = sum(line.note is not None and line.note.startswith(EXACT) for line in again.values())
    differ = {line.name for line in runs if str(line.note).startswith("different")}
    if not again:
        return _not_again(case)
    last = max(line.at for line in again.values())[:10]
    said = f"{len(again)} of {len(refs)} records were run again (last on {last}), {exact} equal to the last bit."
    return said + (f" {len(differ)} came out different." if differ else "")


def _not_again(case: Case) -> str:
    """Say that no record was run again, and where none can be: logs, commands and timings have no replay."""
    records = case.evidence().records
    if not records:
        return "It has no records yet."
    which = "Its record" if len(records) == 1 else f"None of its {len(records)} records"
    if any(_has_replay(name, case.root) for name in {record.study for record in records}):
        return f"{which} was {'not ' * (len(records) == 1)}run again yet."
    return f"{which} can{'not' * (len(records) == 1)} be run again from what it holds."


def _has_replay(study: str, root: Path) -> bool:
    try:
        return bool(find_study(study, root).replay)
    except RecordError:  # a record may be of a study that is not in this checkout, which nothing here runs
        return False


def proof(case: Case) -> Block:
    """Say how replays compared and whether all code is committed; list what changed or is undeclared."""
    book, refs = ledger.read(), {record.ref for record in case.evidence().records}
    lines = [line for line in book.lines if concerns(line, case.claim)]
    deviations = [] if lines else ["Nothing of this claim is registered: what judges it may have been chosen to fit."]
    deviations += [*_late(case, lines)] + [
        f"Changed after registration, on {line.at[:10]}: {_called(line)}. {line.reason}"
        for line in lines
        if line.event == "amended"
    ]
    deviations += [
        f"Withdrawn on {line.at[:10]}: {line.name}. {line.reason}"
        for line in book.lines
        if line.event == "withdrawn" and line.name.startswith(f"{case.claim.experiment}/")
    ]
    deviations += [*_derived(book, refs), *filter(None, [case.confidence().changed])]
    deviations += [*_undeclared(case)]
    said = " ".join(filter(None, [replays_of(case), committed.sentence(case.evidence().records)]))
    items = Markup().join(Markup("<li>{}</li>").format(verbatim(one)) for one in deviations)
    count = f"{len(deviations)} deviation{'s' if len(deviations) > 1 else ''} from what was registered"
    fold = Markup('<details class="cb-deviations"><summary>{}</summary><ul>{}</ul></details>')
    listed = fold.format(count, items) if deviations else Markup()
    return Block(Markup('<p class="cb-notes">{}</p>{}').format(verbatim(said), listed))


def _late(case: Case, lines: Sequence[ledger.Line]) -> Iterator[str]:
    """Yield a sentence for what the ledger first names, on one day, after runs that it judges."""
    began = [datetime.fromisoformat(record.started) for record in case.evidence().records]
    late: dict[tuple[str, int], list[str]] = {}
    for line in lines:
        before = sum(start < datetime.fromisoformat(line.at) for start in began)
        first = line.event == "registered" and line.kind != "judgement"
        if before and (first or line.note == UNJUDGED):
            late.setdefault((line.at[:10], before), []).append(_called(line))
    for (day, before), names in late.items():
        yield (
            f"Registered on {day}, when {before} of {len(began)} records had begun: {', '.join(names)}. "
            "Only git history can show what is older than they are."
        )


def _undeclared(case: Case) -> Iterator[str]:
    """Yield a sentence for each of the first records that no params file declares: how it differs."""
    cells, unjudged = ad_hoc_of(case), "" if case.expected is None else ", so not judged"
    for one in cells[:SHOWN]:
        yield f"Declared by no params file{unjudged}: {one.cell} ({'; '.join(one.why)})."
    if len(cells) > SHOWN:
        yield f"{len(cells) - SHOWN} more records are declared by no params file: `claimbook status --all` lists them."


def _derived(book: ledger.Ledger, refs: Set[str]) -> list[str]:
    """Say on which days metrics of the page's records were derived again: by an estimator that was changed since."""
    days = Counter(line.at[:10] for line in book.lines if line.event == "derived" and line.name in refs)
    said = "Metrics of {} records were derived again on {}, by another estimator."
    return [said.format(count, day) for day, count in days.items()]


CALLED: Mapping[ledger.Kind, str] = {
    "statement": "the statement of ", "code": "the code that judges by ", "judgement": "the judgement ",
    "comparison": "how replays are compared with the study of ",
}  # fmt: skip


def _called(line: ledger.Line) -> str:
    """Name what a line registers."""
    return f"{CALLED.get(line.kind, '')}{line.name}"

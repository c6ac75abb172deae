"""``claimbook lint``: find what a page must not say, from its source and the records that it rests on.

``linting.prose`` reads a page; every other module of ``linting`` holds one kind of rule. A finding is one
sentence with file, line and rule.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from helpers.audit.entries import check_ledger, check_registrations
from helpers.audit.findings import Finding as VerifyFinding
from helpers.audit.kept import Kept
from helpers.audit.verify import verify_folder
from helpers.base.errors import ClaimbookError, ClaimError, RecordError
from helpers.base.files import ROOT
from helpers.cases.case import Case
from helpers.cases.claim import front_matter
from helpers.cases.drafts import Draft
from helpers.cases.placeholders import placeholders
from helpers.claims.marked import Document
from helpers.records.reading import load, read_once
from helpers.site import log
from helpers.site.graph import unknown_target
from helpers.site.linting import bindings, links, markup, numerals, sections, sources, speech, statements, words
from helpers.site.linting.cells import read_code
from helpers.site.linting.language import Code
from helpers.site.linting.prose import Page, read_page
from helpers.site.remaining import study_files
from helpers.site.status import pages_in
from helpers.system.provenance import portable

Fault = tuple[int, str, str]
Prove = Callable[[Path], list[VerifyFinding]]
LEDGER = "outputs/published/ledger.jsonl"
PLACED = re.compile(r"^(?P<path>[^:\n]*?)(?::|, line )(?P<line>\d+): (?P<what>.*)$", re.DOTALL)
TITLES = (("title",), ("subtitle",), ("description",), ("claim", "statement"))


@dataclass(frozen=True, order=True)
class Finding:
    """One fault: file (relative to the project), line, rule, and what is wrong in one sentence."""

    path: str
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.message}"


@read_once()
def lint(root: Path = ROOT, *, execute: bool = False) -> list[Finding]:
    """Return every finding of the pages in ``root/reports``, by file and line.

    ``execute`` also runs the cells of each page, and reports those that fail or show HTML.
    """
    reports = root / "reports"
    paths = [path for path in sorted(reports.glob("*.qmd")) if not path.name.startswith("_")]
    site = links.Site(root)
    findings = [finding for path in paths for finding in _page(path, root, site)]
    pages = pages_in(reports, root)
    cases = [page for page in pages if isinstance(page, Case)]
    findings += [finding for page in pages if isinstance(page, Draft) for finding in _draft(page, root)]
    known = {page.claim.id for page in pages if page.claim is not None}
    findings += [finding for case in cases for finding in _claim(case, known)]
    kept = Kept()

    @functools.cache  # several pages rest on a record
    def prove(folder: Path) -> list[VerifyFinding]:
        return verify_folder(folder, kept.derive)

    findings += [finding for case in cases for finding in _proof(case, kept, prove)]
    unfinished = [page.case for page in pages if isinstance(page, Draft) and page.case is not None]
    findings += [finding for case in unfinished for finding in _records(case, prove)]
    findings += [Finding(LEDGER, 1, "ledger", f"{one.where}: {one.what}") for one in check_ledger(root)]
    if (root / log.PROSE).is_file():
        findings += _log(root / log.PROSE, root, site)
    if execute:
        findings += [finding for path in paths for finding in _executed(path, root)]
    return sorted(set(findings))


def _findings(path: Path, root: Path, faults: Iterator[Fault]) -> Iterator[Finding]:
    """Yield the findings of one rule; an error that it raises is a finding too."""
    name = path.relative_to(root).as_posix()
    try:
        for line, rule, message in faults:
            yield Finding(name, line, rule, portable(message))
    except ClaimbookError as error:
        yield _as_finding(error, path, root)


def _as_finding(error: ClaimbookError, path: Path, root: Path) -> Finding:
    name = path.relative_to(root).as_posix()
    placed = PLACED.match(str(error))
    if not placed:
        return Finding(name, 1, "claim", portable(str(error)))
    where = Path(placed["path"])
    where = where.relative_to(root) if where.is_absolute() and where.is_relative_to(root) else where
    return Finding(where.as_posix(), int(placed["line"]), "claim", portable(placed["what"]))


def _page(path: Path, root: Path, site: links.Site) -> Iterator[Finding]:
    """Apply the rules of every page, with or without a claim."""
    try:
        page = read_page(path)
        code = read_code(page, path.relative_to(root).as_posix())
    except ClaimbookError as error:
        yield _as_finding(error, path, root)
        return
    for rule in (numerals.faults(page), sections.evasions(page), iter(code.faults), links.faults(page, site)):
        yield from _findings(path, root, rule)
    yield from _findings(path, root, _titles(path))
    yield from _findings(path, root, links.sample_faults(path))


def _titles(path: Path) -> Iterator[Fault]:
    """Yield numbers in the titles and the statement, which no record can fill in."""
    front = front_matter(path)
    for place in TITLES:
        value = front.value
        for step in place:
            value = value.get(step) if isinstance(value, dict) else None
        typed = numerals.numerals(value) if isinstance(value, str) else []
        if typed:
            yield (
                front.lines[place],
                "numeral",
                f"{place[-1]} holds {typed[0]!r}: say it in words, the text has the numbers.",
            )


def _draft(page: Draft, root: Path) -> Iterator[Finding]:
    """Yield what a draft lacks: its placeholders, in all files of its study, or why it cannot be judged."""
    left = list(placeholders(study_files(page.path, root)))
    for one in left:
        what = f"{one.what} is still a placeholder" if one.what else "this line is still a placeholder"
        path = one.path.relative_to(root).as_posix() if one.path.is_relative_to(root) else portable(str(one.path))
        yield Finding(path, one.line, "placeholder", f"{what}. `claimbook next {page.path.stem}` lists what remains.")
    if not any(page.why.startswith(f"{one.path.relative_to(root).as_posix()}:{one.line}:") for one in left):
        yield _as_finding(ClaimError(page.why), page.path, root)


def _claim(case: Case, known: set[str]) -> Iterator[Finding]:
    """Apply the rules of a page with a claim."""
    page, front = read_page(case.path), front_matter(case.path)
    code = read_code(page, case.path.relative_to(case.root).as_posix())
    for rule in (
        sections.faults(page),
        markup.faults(page, front),
        _unanswered(code),
        speech.faults(page, front, code),
        bindings.faults(page, front, code, case),
        sources.faults(page, code, case),
        _judged(page, front, case),
        statements.faults(page, front, case),
        _related(front, case, known),
    ):
        yield from _findings(case.path, case.root, rule)


def _proof(case: Case, kept: Kept, prove: Prove) -> Iterator[Finding]:
    """Yield faults of the criteria, grids and records that a page rests on."""
    name = case.path.relative_to(case.root).as_posix()
    for one in check_registrations(case.root, [case.path], kept.judge):
        yield Finding(name, 1, "registration", f"{one.where} {one.what}")
    yield from _records(case, prove)


def _records(case: Case, prove: Prove) -> Iterator[Finding]:
    """Yield faults of the records that a page rests on, whether it can be judged or not."""
    name = case.path.relative_to(case.root).as_posix()
    cited = {record.ref: record for record in case.evidence().records}
    for ref in [ref for record in cited.values() for ref in record.inputs.values()]:
        with contextlib.suppress(RecordError):  # an unreadable input is reported below, with the record that used it
            cited[ref] = load(ref)
    for record in cited.values():
        for one in prove(record.path):
            yield Finding(name, 1, "record", f"{one.where}: {one.field}: {one.what}")


def _unanswered(code: Code) -> Iterator[Fault]:
    """Yield a page that does not show all its questions."""
    if f"answers({code.own})" not in code.shown:
        yield 1, "questions", "the page does not show all its questions: show page.answers(case) under Results."


def _judged(page: Page, front: Document, case: Case) -> Iterator[Fault]:
    """Yield confidence above the cap, and words that contradict the verdict."""
    verdict, confidence = case.verdict(), case.confidence()
    if confidence.above_cap:
        line = front.lines["claim", "declared_confidence"]
        yield (
            line,
            "confidence",
            f"{confidence.declared} is declared, but the evidence allows {confidence.cap}: {confidence.binding}",
        )
    yield from words.faults(page, {verdict.word, verdict.fresh}, confidence.stated)


def _related(front: Document, case: Case, known: set[str]) -> Iterator[Fault]:
    """Yield relations to claims that do not exist."""
    for index, relation in enumerate(case.claim.relations):
        if not relation.target.startswith("#") and relation.target not in known:
            yield front.lines["claim", "relations", index], "relation", unknown_target(case, relation, known)


def _log(path: Path, root: Path, site: links.Site) -> Iterator[Finding]:
    page = read_page(path)
    spoken = speech.log_faults(page)
    for rule in (numerals.faults(page), sections.evasions(page), spoken, links.faults(page, site), _entries(path)):
        yield from _findings(path, root, rule)


def _entries(path: Path) -> Iterator[Fault]:
    """Yield entries of the log that are out of order or lack a field."""
    entries = log.prose_entries(path)
    for entry in entries:
        for field in log.FIELDS:
            if f"**{field}" not in entry.body:
                yield entry.line, "log", f"the entry has no **{field}.**: write what it was."
    for newer, older in itertools.pairwise(entries):
        if older.day > newer.day:
            yield (
                older.line,
                "log",
                f"the entry of {older.day} stands below that of {newer.day}: the newest come first.",
            )


def _executed(path: Path, root: Path) -> Iterator[Finding]:
    from helpers.site.fallback import execute

    try:
        execute(path, path.relative_to(root).as_posix())
    except ClaimbookError as error:
        finding = _as_finding(error, path, root)
        yield Finding(finding.path, finding.line, "html" if "text/html" in finding.message else "cell", finding.message)

"""The log of what was run, what came out negative and what was decided: entries from records and entries in prose.

Prose entries stand in ``reports/_log.md``, each under a heading ``## 2026-01-31 What happened``; numbers in them are
inline expressions, as on every page. The other entries are generated: one for each day, experiment and commit that left
records, one for each claim with the verdicts of all its questions. The newest come first. The
last have no day: one for each original that a claim grew out of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from markupsafe import Markup

from helpers.base.errors import ClaimError
from helpers.base.files import ROOT, read_text
from helpers.cases.case import Case
from helpers.cases.claim import Claim, Relation
from helpers.cases.facts import run_page
from helpers.claims.evidence import label
from helpers.records import reading
from helpers.records.reading import Record
from helpers.show.markup import Block, Inline, verbatim
from helpers.site import originals
from helpers.site.blocks import badge
from helpers.site.graph import spoken
from helpers.site.markdown import INLINE
from helpers.site.overview import records_used
from helpers.site.status import cases_in
from helpers.stats.wording import number

PROSE = Path("reports/_log.md")
HEADING = re.compile(r"^## (\d{4}-\d{2}-\d{2}) +(.+?)(?: +\{#([\w-]+)\})?$")
FIELDS = ("Goal", "Found", "Decision")
SHOWN = 8


@dataclass(frozen=True)
class Entry:
    """One entry: its day, and its heading and body as Markdown; ``line`` is that of the prose file, 0 if generated."""

    day: str
    title: str
    anchor: str
    body: str
    line: int = 0

    @property
    def markdown(self) -> str:
        """The entry under its heading."""
        return f"## {self.title} {{#{self.anchor}}}\n\n{self.body.strip()}\n"


@dataclass(frozen=True)
class Log:
    """The entries as Markdown, so that their headings are those of the page; all but prose is sealed in it."""

    entries: tuple[Entry, ...]

    def _repr_markdown_(self) -> str:
        written = "\n".join(entry.markdown for entry in self.entries)
        return f"\n{written or 'Nothing has been run or written down yet.'}\n"


def show(namespace: Mapping[str, Any], root: Path = ROOT) -> Log:
    """Show all entries, newest first; within a day prose comes before generated entries.

    ``namespace`` is what inline expressions of prose entries may name: a page passes its ``globals()``.
    """
    cases = list(cases_in(root / "reports", root))
    used = {record.ref for record in records_used(cases)}
    entries = [_evaluated(entry, namespace) for entry in prose_entries(root / PROSE)]
    entries += [*verdict_entries(cases), *run_entries(experiments(root), used), *original_entries(root)]
    entries.sort(key=lambda entry: entry.day, reverse=True)  # stable: what was appended first stays first on its day
    return Log(tuple(entries))


def prose_entries(path: Path) -> list[Entry]:
    """Return the entries of the prose file in its order; ClaimError for a heading without a date."""
    if not path.is_file():
        return []
    entries: list[Entry] = []
    for line, text in enumerate(read_text(path, ClaimError).splitlines(), start=1):
        if text.startswith("## "):
            entries.append(_headed(text, line, path))
        elif entries:
            last = entries[-1]
            entries[-1] = Entry(last.day, last.title, last.anchor, f"{last.body}{text}\n", last.line)
    return entries


def _headed(text: str, line: int, path: Path) -> Entry:
    match = HEADING.match(text)
    try:
        day = date.fromisoformat(match.group(1)).isoformat() if match else ""
    except ValueError:
        day = ""
    if not match or not day:
        raise ClaimError(f"{path}:{line}: an entry begins with its day: write `## 2026-01-31 What happened`.")
    slug = re.sub(r"[^a-z0-9]+", "-", match.group(2).lower()).strip("-")
    return Entry(day, f"{day} · {match.group(2)}", match.group(3) or f"{slug}-{day}", "", line)


def _generated(day: str, title: str, anchor: str, *body: Markup) -> Entry:
    """Return an entry without any Markdown, because its text comes from records and params files."""
    heading = Inline(verbatim(f"{day} · {title}"))._repr_markdown_()
    return Entry(day, heading, anchor, Block(Markup().join(body))._repr_markdown_())


def _evaluated(entry: Entry, namespace: Mapping[str, Any]) -> Entry:
    """Return the entry with its inline expressions evaluated, which are source of this repository as on any page."""

    def value(match: re.Match[str]) -> str:
        try:
            result = eval(match.group(1), dict(namespace))
        except Exception as error:
            raise ClaimError(
                f"{PROSE}, in the entry of line {entry.line}: `{match.group(1)}` failed with {error}"
            ) from error
        return (result if hasattr(result, "_repr_markdown_") else Inline(verbatim(result)))._repr_markdown_()

    return Entry(entry.day, entry.title, entry.anchor, INLINE.sub(value, entry.body), entry.line)


def experiments(root: Path = ROOT) -> list[str]:
    """Return the names of the experiments: those with a ``params/<name>/experiment.yaml``."""
    return sorted(path.parent.name for path in (root / "params").glob("*/experiment.yaml"))


def run_entries(notebooks: Sequence[str], linked: set[str]) -> list[Entry]:
    """Return an entry for each day, experiment and commit that left complete or failed records.

    ``linked`` are the records (``<notebook>/<id>``) that the page of runs lists.
    """
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for notebook in notebooks:
        for record in reading.records(notebook, status=None):
            if record.status in ("complete", "failed") and record.started:
                groups.setdefault((record.started[:10], notebook, _commit(record)), []).append(record)
    entries = []
    for (day, notebook, commit), made in sorted(groups.items(), key=lambda group: max(r.started for r in group[1])):
        anchor = re.sub(r"[^a-z0-9]+", "-", f"runs-{notebook}-{day}-{commit}".lower())
        entries.append(_generated(day, f"Runs of {notebook}", anchor, _runs_body(made, commit, linked)))
    return entries[::-1]


def _commit(record: Record) -> str:
    made = record.content.get("provenance") or {}
    short = (made.get("commit") or "no commit")[:9]
    return f"{short} with uncommitted changes" if made.get("dirty") else short


def _runs_body(made: Sequence[Record], commit: str, linked: set[str]) -> Markup:
    complete = [record for record in made if record.status == "complete"]
    failed = [record for record in made if record.status == "failed"]
    spent = sum(record.seconds.get("total", 0.0) for record in complete)
    named = [_named(record, linked) for record in complete[:SHOWN]]
    named += [Markup("and {} more").format(len(complete) - SHOWN)] if len(complete) > SHOWN else []
    items = [
        Markup("<strong>Code:</strong> {}").format(verbatim(commit)),
        Markup("<strong>Complete:</strong> {} runs in {}{}").format(len(complete), number(spent, "s"), _list(named)),
    ]
    criteria = {(record.content.get("criteria") or {}).get("sha256", "") for record in made} - {""}
    if criteria:
        short = ", ".join(sorted(sha[:12] for sha in criteria))
        items.append(Markup("<strong>Criteria then in force:</strong> {}").format(verbatim(short)))
    failure = Markup("<strong>Failed:</strong> {}: {}")
    items += [failure.format(_named(record, linked), verbatim(record.error)) for record in failed[:SHOWN]]
    if len(failed) > SHOWN:
        items.append(Markup("<strong>Failed:</strong> {} more").format(len(failed) - SHOWN))
    return _list(items)


def _list(items: Iterable[Markup]) -> Markup:
    written = Markup().join(Markup("<li>{}</li>").format(item) for item in items)
    return Markup("<ul>{}</ul>").format(written) if written else written


def _named(record: Record, linked: set[str]) -> Markup:
    text = verbatim(label(record.cell))
    return Markup('<a href="{}">{}</a>').format(run_page(record), text) if record.ref in linked else text


def verdict_entries(cases: Sequence[Case]) -> list[Entry]:
    """An entry for each claim that was judged: every question of its criteria, verdict, reading, what is open."""
    entries = []
    for case in cases:
        started = [record.started[:10] for record in case.evidence().records]
        if started:
            page = Markup('<a href="{}">{}</a>').format(
                case.path.with_suffix(".html").name, verbatim(case.claim.statement)
            )
            head = Markup("<p>Of the claim {}, question by question:</p>").format(page)
            body = _list(_verdict_line(case, name) for name in case.criteria.questions)
            title, anchor = f"Verdicts of {case.claim.id}", f"verdicts-{case.claim.id}"
            entries.append(_generated(max(started), title, anchor, head, body))
    return entries


def _verdict_line(case: Case, name: str) -> Markup:
    asked = verbatim(case.criteria.question(name).question)
    try:
        verdict = case.verdict(name)
    except ClaimError as error:  # a criteria file may ask of cells that the grid of this claim does not hold
        return Markup("{} Not asked of this grid: {}").format(asked, verbatim(error))
    return Markup("{} {} {}").format(badge(verdict.word), asked, verbatim(verdict.reading))


def original_entries(root: Path = ROOT) -> list[Entry]:
    """Return an entry for each original that a claim names: what it was, and which claims grew out of it."""
    named: dict[str, list[tuple[Path, Claim, Relation]]] = {}
    for path, claim, relation in originals.relations(root):
        named.setdefault(relation.target, []).append((path, claim, relation))
    entries = []
    for number_, stated in sorted(named.items(), key=lambda one: int(one[0].removeprefix("#"))):
        note = next((relation.note for _, _, relation in stated if relation.note), "")
        heading = Inline(verbatim(f"{number_}: {note}" if note else number_))._repr_markdown_()
        said = Markup('<a href="{}">{}</a> {} it.{}')
        items = [
            said.format(
                path.with_suffix(".html").name, verbatim(claim.statement), spoken(one.kind), _own_note(one, note)
            )
            for path, claim, one in stated
        ]
        entries.append(Entry("", heading, originals.anchor(number_), Block(_list(items))._repr_markdown_()))
    return entries


def _own_note(relation: Relation, note: str) -> Markup:
    return Markup(" {}").format(verbatim(f"{relation.note}.")) if relation.note not in ("", note) else Markup()


def anchors(root: Path = ROOT) -> set[str]:
    """Return every anchor of the log page."""
    cases = list(cases_in(root / "reports", root))
    entries = [*prose_entries(root / PROSE), *verdict_entries(cases), *run_entries(experiments(root), set())]
    return {entry.anchor for entry in [*entries, *original_entries(root)]}

"""Numbers on rendered pages, each with the fact and the runs that it names, compared with what those records give."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import unescape

from helpers.audit.findings import Finding
from helpers.base.errors import ClaimbookError
from helpers.cases.case import Case
from helpers.cases.facts import Facts
from helpers.claims.evidence import Evidence
from helpers.records.reading import Record
from helpers.stats.pooling import ByQuestion

LINK = re.compile(r"<a\b(?P<attributes>[^>]*)>(?P<text>.*?)</a>", re.DOTALL)
ATTRIBUTE = re.compile(r'\s(?P<name>[\w-]+)="(?P<value>[^"]*)"')
RUNS = re.compile(r"(?:run (?P<one>\S+)|(?P<count>\d+) runs: (?P<many>[^·]+?)(?: and (?P<more>\d+) more)?) · commit ")
TAG = re.compile(r"<[^>]*>")


@dataclass(frozen=True)
class Shown:
    """A number on a page: the fact and the runs that it names, of many runs the first, and its text.

    ``count`` is how many runs it is said to be of; 0 where it contradicts itself.
    """

    fact: str
    ids: tuple[str, ...]
    count: int
    text: str

    def is_of(self, records: Sequence[Record]) -> bool:
        """Whether it may be of these records: as many as it says, and those that it names come first."""
        return len(records) == self.count and tuple(one.id for one in records[: len(self.ids)]) == self.ids


def numbers(html: str) -> Iterator[Shown]:
    """Yield each fact on a page; one that names no fact or no run is empty there."""
    for link in LINK.finditer(html):
        values = {one["name"]: unescape(one["value"]) for one in ATTRIBUTE.finditer(link["attributes"])}
        named, runs = values.get("data-fact", ""), RUNS.match(values.get("title", ""))
        if named or runs:
            ids = () if runs is None else (runs["one"],) if runs["one"] else tuple(runs["many"].strip().split(", "))
            count = len(ids) + int(runs["more"] or 0) if runs else 0
            count = count if runs is None or runs["one"] or int(runs["count"]) == count else 0
            yield Shown(named, ids, count, unescape(TAG.sub("", link["text"])))


def page_findings(
    name: str, html: str, records: Mapping[str, Record], cases: Sequence[Case], pools: Mapping[str, ByQuestion | None]
) -> tuple[list[Finding], int]:
    """Return what differs on a page, and how many of its numbers were compared.

    ``records`` are those of the bundle by id, ``pools`` is `Study.by_question` by name of the study. A number of many
    runs names the first of them, so it is compared with what every such part of a claim's records gives.
    """
    findings, compared, known = list[Finding](), 0, dict[tuple[str, tuple[str, ...], int], set[str]]()
    parts = [part for case in cases for part in parts_of(case)]
    for shown in numbers(html):
        lacking = [one for one in shown.ids if one not in records]
        if not shown.fact or not shown.ids:
            lack = "no run" if shown.fact else "no fact"
            findings.append(Finding(name, "fact", f"{shown.text!r} names {lack}."))
        elif lacking:
            said = f"{shown.text!r} is said to be of {lacking[0]}, which is not in the bundle."
            findings.append(Finding(name, shown.fact, said))
        else:
            key = (shown.fact, shown.ids, shown.count)
            if key not in known:
                named = tuple(records[one] for one in shown.ids)
                known[key] = set(_texts(shown, [named, *parts], cases, pools))
            compared += 1
            if shown.text not in known[key]:
                expected = " or ".join(sorted(known[key])) or "nothing of that name"
                findings.append(Finding(name, shown.fact, f"is {shown.text!r}, but its records give {expected}."))
    return findings, compared


def parts_of(case: Case) -> list[tuple[Record, ...]]:
    """Return the records of a claim, those that each of its questions is asked of, and those of each cell."""
    evidence = case.evidence()
    asked = [evidence.within(question.scope) for question in case.criteria.questions.values()]
    found = [one.records for one in (evidence, *asked, *evidence.inside)]
    return list(dict.fromkeys(tuple(some) for some in found if some))


def _texts(
    shown: Shown,
    parts: Iterable[tuple[Record, ...]],
    cases: Iterable[Case],
    pools: Mapping[str, ByQuestion | None],
) -> Iterator[str]:
    """Yield the full and the short form of a fact of each part that it may be of, as each claim's criteria give it."""
    for records in parts:
        if not (shown.is_of(records) or shown.text.endswith(f" of {len(records)} records)")):
            continue
        study, notebook = records[0].study, records[0].notebook
        for derive in [{}, *(case.criteria.derive for case in cases if case.claim.experiment == notebook)]:
            try:
                fact = Facts(Evidence((), False, {}, derive, pools.get(study))).over(shown.fact, records)
            except ClaimbookError:
                continue
            if shown.is_of(fact.records):
                yield from (fact.text, fact.brief)

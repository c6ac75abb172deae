"""Numbers on rendered pages, each with the fact and the runs that it names, compared with what those records give."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
RUNS = re.compile(r"(?:run (?P<one>\S+)|(?P<count>\d+) runs: (?P<many>[^·]+)) · commit ")
TAG = re.compile(r"<[^>]*>")


def numbers(html: str) -> Iterator[tuple[str, list[str], str]]:
    """Yield name, ids of runs and text of each fact on a page; of one that names no fact or no run these are empty."""
    for link in LINK.finditer(html):
        values = {one["name"]: unescape(one["value"]) for one in ATTRIBUTE.finditer(link["attributes"])}
        named, runs = values.get("data-fact", ""), RUNS.match(values.get("title", ""))
        if named or runs:
            ids = [] if runs is None else [runs["one"]] if runs["one"] else runs["many"].strip().split(", ")
            yield named, ids, unescape(TAG.sub("", link["text"]))


def page_findings(
    name: str, html: str, records: Mapping[str, Record], cases: Sequence[Case], pools: Mapping[str, ByQuestion | None]
) -> tuple[list[Finding], int]:
    """Return what differs on a page, and how many of its numbers were compared.

    ``records`` are those of the bundle by id, ``pools`` is `Study.by_question` by name of the study.
    """
    findings, compared, known = list[Finding](), 0, dict[tuple[str, tuple[str, ...]], set[str]]()
    for fact, ids, text in numbers(html):
        lacking = [one for one in ids if one not in records]
        if not fact or not ids:
            findings.append(Finding(name, "fact", f"{text!r} names {'no run' if fact else 'no fact'}."))
        elif lacking:
            findings.append(Finding(name, fact, f"{text!r} is said to be of {lacking[0]}, which is not in the bundle."))
        else:
            key = (fact, tuple(ids))
            if key not in known:
                known[key] = set(_texts(fact, [records[one] for one in ids], cases, pools))
            compared += 1
            if text not in known[key]:
                expected = " or ".join(sorted(known[key])) or "nothing of that name"
                findings.append(Finding(name, fact, f"is {text!r}, but its records give {expected}."))
    return findings, compared


def _texts(
    name: str, records: Sequence[Record], cases: Iterable[Case], pools: Mapping[str, ByQuestion | None]
) -> Iterator[str]:
    """Yield the full and the short form of a fact of some records, as the criteria of each of their claims give it."""
    pool = pools.get(records[0].study)
    for derive in [{}, *(case.criteria.derive for case in cases if case.claim.experiment == records[0].notebook)]:
        try:
            fact = Facts(Evidence((), False, {}, derive, pool)).over(name, tuple(records))
        except ClaimbookError:
            continue
        yield from (fact.text, fact.brief)

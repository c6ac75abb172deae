"""The relations between claims and to upstream issues, and what each claim must say because of them.

A claim that consumes or is derived from a refuted or stale one, directly or through others, is flagged. An absorbed
hypothesis must name the row that answers it; otherwise it is unanswered, and flagged too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from markupsafe import Markup

from helpers.base.errors import ClaimError, nearest
from helpers.base.files import ROOT
from helpers.cases.case import Case
from helpers.cases.claim import Claim, Kind, Relation, has_claim, read_claim
from helpers.show.markup import Block
from helpers.site import originals
from helpers.site.blocks import banner
from helpers.site.status import cases_in, page_status

CARRIES: tuple[Kind, ...] = ("consumes", "derived_from")
UNSOUND = ("REFUTED", "STALE")
OPEN = ("NOT RUN", "UNDECIDED", "STALE")
VERB = {"derived_from": "is derived from", "absorbed_by": "is absorbed by"}


@dataclass(frozen=True)
class Node:
    """A claim, or an upstream issue (``#65``), whose verdict is not ours to give (None)."""

    id: str
    title: str
    href: str
    verdict: str | None
    confidence: str | None = None

    @property
    def upstream(self) -> bool:
        """Whether it is an issue of another project."""
        return self.verdict is None


Answer = Literal["answered", "open", "unanswered"]


@dataclass(frozen=True)
class Edge:
    """One relation as the page of ``source`` states it; ``answer`` is set for absorbed hypotheses only."""

    source: str
    target: str
    kind: Kind
    note: str = ""
    answer: Answer | None = None
    answer_text: str = ""


@dataclass(frozen=True)
class Graph:
    """All claims and the issues they name."""

    nodes: Mapping[str, Node]
    edges: tuple[Edge, ...]
    lost: tuple[Edge, ...] = ()
    """Relations to claims that no finished page makes."""

    def flags(self, claim: str) -> tuple[str, ...]:
        """Return what the page of ``claim`` must say about the claims it rests on, one sentence each."""
        if claim not in self.nodes:
            raise ClaimError(f"The graph has no claim {claim!r}{nearest(claim, self.nodes)}")
        unsound = [
            self._sentence(path) for path in self._paths(claim) if self.nodes[path[-1].target].verdict in UNSOUND
        ]
        absorbed = [edge for edge in self.edges if edge.source == claim and edge.answer in ("unanswered", "open")]
        lost = [edge for edge in self.lost if edge.source == claim and edge.kind in CARRIES]
        unsound += [f"{spoken(edge.kind).capitalize()} {edge.target}, which no finished page claims." for edge in lost]
        return (*unsound, *(f"Absorbed by {edge.target}: {edge.answer_text}." for edge in absorbed))

    def _paths(self, claim: str) -> Iterator[tuple[Edge, ...]]:
        """Yield the shortest chain of dependence from ``claim`` to each claim that it rests on."""
        seen, waiting = {claim}, [(edge,) for edge in self._needs(claim)]
        while waiting:
            path = waiting.pop(0)
            if path[-1].target not in seen:
                seen.add(path[-1].target)
                yield path
                waiting += [(*path, edge) for edge in self._needs(path[-1].target)]

    def _needs(self, claim: str) -> list[Edge]:
        return [edge for edge in self.edges if edge.source == claim and edge.kind in CARRIES]

    def _sentence(self, path: tuple[Edge, ...]) -> str:
        last = self.nodes[path[-1].target]
        verb = spoken(path[0].kind).capitalize()
        through = f" through {', '.join(edge.target for edge in path[:-1])}" if path[1:] else ""
        return f"{verb} {last.id}{through}, which is {last.verdict}: {last.title.rstrip('.')}."


def spoken(kind: str) -> str:
    """Return a kind of relation in words."""
    return VERB.get(kind, kind.replace("_", " "))


def build(cases: Iterable[Case]) -> Graph:
    """Build the graph of some claims.

    Raises:
        ClaimError: two pages use one id.
    """
    known: dict[str, Case] = {}
    for case in cases:
        if case.claim.id in known:
            raise ClaimError(
                f"{case.path}: the claim id {case.claim.id!r} is that of {known[case.claim.id].path.name}."
            )
        known[case.claim.id] = case
    nodes = {name: _claim_node(case) for name, case in known.items()}
    edges, lost = [], []
    for name, case in known.items():
        for relation in case.claim.relations:
            if relation.target.startswith("#"):
                nodes[relation.target] = _issue(relation, nodes.get(relation.target))
            edge = Edge(name, relation.target, relation.kind, relation.note, *_answer(relation, known))
            (edges if relation.target in nodes else lost).append(edge)
    return Graph(nodes, tuple(edges), tuple(lost))


def unknown_target(case: Case, relation: Relation, known: Iterable[str]) -> str:
    """Return the error for a relation to a claim that no page makes."""
    close = nearest(relation.target, known)
    return f"{case.path.name}: {relation.kind} names {relation.target!r}, which no page claims{close}"


def _claim_node(case: Case) -> Node:
    href = case.path.with_suffix(".html").name
    return Node(case.claim.id, case.claim.statement, href, case.verdict().word, case.confidence().stated)


def _issue(relation: Relation, before: Node | None) -> Node:
    title = (before.title if before else "") or relation.note
    return Node(relation.target, title, f"log.html#{originals.anchor(relation.target)}", None)


def _answer(relation: Relation, known: Mapping[str, Case]) -> tuple[Answer | None, str]:
    if relation.kind != "absorbed_by":
        return None, ""
    if relation.answer is None:
        return "unanswered", "unanswered, as no row is named that answers it"
    if relation.target not in known:
        return "answered", f"answered there by {relation.answer}"
    asked = known[relation.target]
    if relation.answer not in asked.criteria.questions:
        close = nearest(relation.answer, asked.criteria.questions)
        return "unanswered", f"unanswered, as {relation.answer!r} is no question there{close}"
    word = asked.verdict(relation.answer).word
    return ("open" if word in OPEN else "answered"), f"“{asked.criteria.question(relation.answer).question}” is {word}"


def all_claims(root: Path = ROOT) -> Graph:
    """Build the graph of every page in ``reports/``."""
    return build(cases_in(root / "reports", root))


def rests_on(claim: Claim, root: Path = ROOT) -> dict[Path, Claim]:
    """Return the pages that decide what `Graph.flags` says of ``claim``: of all it names, and of what those rest on.

    Pages are read without their records. One that cannot be read is left out: no finished page makes its claim.
    """
    known: dict[Path, Claim] = {}
    for path in sorted((root / "reports").glob("[!_]*.qmd")):
        with contextlib.suppress(ClaimError):
            if has_claim(path):
                known[path] = read_claim(path, root)
    named, waiting = {claim.id}, [relation.target for relation in claim.relations]
    while waiting:
        target = waiting.pop()
        if target not in named:
            named.add(target)
            needed = [other.relations for other in known.values() if other.id == target]
            waiting += [one.target for relations in needed for one in relations if one.kind in CARRIES]
    return {path: other for path, other in known.items() if other.id in named}


def _around(case: Case) -> Graph:
    """Build the part of the graph that `Graph.flags` needs for one claim."""
    pages = frozenset(rests_on(case.claim, case.root))
    return build(cases_in(case.root / "reports", case.root, opened=case, only=pages))


def flags(case: Case, graph: Graph | None = None) -> Block:
    """Return the banners that the page of ``case`` must carry: why it is stale, and which claims it rests on fail.

    Empty when there is nothing to say. `header.header` shows them; that criteria changed is said where it caps the
    confidence.
    """
    stale = [f"{why[0].upper()}{why[1:]}." for why in page_status(case).stale]
    sentences = [*stale, *(graph or _around(case)).flags(case.claim.id)]
    return Block(Markup("\n").join(map(banner, sentences)))

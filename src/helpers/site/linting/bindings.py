"""Tie a fact to the words beside it: a number of one arm, persona or model must not stand beside the name of another.

The vocabulary is the study's own: the values of the grid's axes, the models of the cases of a page, and the words in
which the names of metrics differ (source, assistant, bystander; reader a, reader b). Words of no name are free.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from helpers.cases.case import Case
from helpers.claims.marked import Document
from helpers.site.linting.language import Code, FactUse
from helpers.site.linting.prose import SHOWN, Page
from helpers.site.linting.speech import CLAUSE, prose

Fault = tuple[int, str, str]
PLAIN_TOKENS = frozenset(["short", "long", "nudge", "phase", "start", "end", "rate", "early", "late", "once"])
"""Tokens that are ordinary words, so that saying them names nothing."""
BOUNDS = frozenset(["max", "min"])
STEM = 7
PART = re.compile(r"[;:]")
ENDINGS = r"(?:s|es|est|er|'s)?"


def faults(page: Page, front: Document, code: Code, case: Case) -> Iterator[Fault]:
    """Yield facts and labels of metrics that stand beside the name of something else."""
    metrics = frozenset(case.criteria.metrics)
    axes = _axes(case)
    uses = {(use.line, use.source): use for use in code.facts if use.source}
    for line, source, before, after, whole in _places(page):
        use = uses.get((line, source))
        if use is None:
            continue
        for named, own in _others(use, f"{before} {after}", whole, axes, code.scopes, case):
            yield line, "fact", f"the fact {use.name!r} is of {own}, but the words beside it name {named}: {FIX}"
        if wrong := other_metric(use, before, after, whole, metrics):
            yield line, "fact", f"the fact {use.name!r} stands beside the words of {wrong!r}: {FIX}"
    yield from _of_the_effect(front, code, case, axes)
    yield from _of_the_charts(code, axes, case)
    for line, name, words in code.labels:
        if (
            name in metrics
            and words not in metrics
            and (wrong := other_metric(FactUse(line, "", name, {}), words, "", words, metrics))
        ):
            yield line, "fact", f"the metric {name!r} is labelled {words!r}, which names {wrong!r}: {FIX}"


def _of_the_effect(front: Document, code: Code, case: Case, axes: Mapping[str, set[str]]) -> Iterator[Fault]:
    """Yield numbers of the claim's effect whose label, or whose place in the sentence, names something else."""
    if case.claim.effect is None:
        return
    numbers, sentence = case.claim.effect.numbers, case.claim.effect.sentence
    place: tuple[str, ...] = ("claim", "effect")
    pieces = re.split(r"\{(\w+)\}", sentence)
    around = {
        name: f"{PART.split(pieces[at - 1])[-1]} {PART.split(pieces[at + 1])[0]}"
        for at, name in enumerate(pieces)
        if at % 2
    }
    for name, one in numbers.items():
        use, line = FactUse(0, "", one.metric, one.cell), front.lines.get((*place, "numbers", name), 1)
        for words in (one.label, around.get(name, "")):
            if wrong := other_metric(use, words, "", words, case.criteria.metrics):
                yield line, "fact", f"the number {name!r} of the effect, {use.name!r}, is called {wrong!r} there: {FIX}"
            for named, own in _others(use, words, words, axes, code.scopes, case):
                yield line, "fact", f"the number {name!r} of the effect is of {own}, but its words name {named}: {FIX}"


def _of_the_charts(code: Code, axes: Mapping[str, set[str]], case: Case) -> Iterator[Fault]:
    """Yield charts and tables of one arm or model under the name of another."""
    for line, of, words in code.headed:
        for named, own in _others(FactUse(line, of[0], "", dict(of[1])), words, words, axes, code.scopes, case):
            yield line, "fact", f"what is drawn is of {own}, but {words!r} names {named}: {FIX}"


FIX = "take the fact of what the words name, or name what the fact is of."


def _places(page: Page) -> Iterator[tuple[int, str, str, str, str]]:
    """Yield each inline expression of the prose: line, source, clause before, clause behind, sentence."""
    sources: dict[int, list[str]] = {}
    for piece in page.inlines:
        sources.setdefault(piece.line, []).append(piece.text)
    for said in prose(page):
        pieces = said.text.split(SHOWN)
        line = said.line - said.text[: len(said.text) - len(said.text.lstrip())].count("\n")
        for index, piece in enumerate(pieces[:-1]):
            line += piece.count("\n")
            if sources.get(line):
                yield line, sources[line].pop(0), PART.split(piece)[-1], CLAUSE.split(pieces[index + 1])[0], said.text


def _axes(case: Case) -> dict[str, set[str]]:
    """The values, in words, of every axis of the grid on which cells differ."""
    values: dict[str, set[str]] = {}
    for record in case.records:
        for axis, value in record.cell.items():
            if isinstance(value, str):
                values.setdefault(axis, set()).add(value)
    return {axis: found for axis, found in values.items() if len(found) > 1}


def _named(text: str, values: Iterable[str]) -> set[str]:
    """Which of ``values`` a text names, the longest names first, so that ``full_few`` is not taken for ``full``."""
    found: set[str] = set()
    for value in sorted(values, key=len, reverse=True):
        words = r"[\s_-]+".join(map(re.escape, value.split("_")))
        pattern = re.compile(rf"(?<![\w-]){words}{ENDINGS}(?![\w-])", re.IGNORECASE)
        if pattern.search(text):
            found.add(value)
            text = pattern.sub(" ", text)
    return found


def _others(
    use: FactUse, near: str, whole: str, axes: Mapping[str, set[str]], scopes: Mapping[str, Any], case: Case
) -> Iterator[tuple[str, str]]:
    """Yield names of another value of an axis near a fact whose own value is not named, and the fact's own."""
    scope = scopes.get(use.case) or case.claim.scope
    cell = {axis: value for axis, value in scope.items() if isinstance(value, str)} | dict(use.cell)
    for axis, values in axes.items():
        own = cell.get(axis)
        if not isinstance(own, str):
            continue
        beside = _named(near, values)
        if beside and own not in beside and not (axis in scope and own in _named(whole, values)):
            yield f"{sorted(beside)[0]!r}", f"{own!r}"


def _tokens(name: str) -> list[str]:
    return [token for token in name.split("_") if token not in BOUNDS]


def _says(text: str, token: str) -> bool:
    """Whether a text says a token of a name; a single letter counts behind what it letters ("reader a")."""
    if len(token) == 1:
        return bool(re.search(rf"(?:\b(?:reader|side|arm|model)|,)\s*{token}\b", text))
    stem = re.escape(token[:STEM])
    return bool(re.search(rf"(?<!without )(?<!no )\b{stem}(?!\w*\s+phase)", text, re.IGNORECASE))


def other_metric(use: FactUse, before: str, after: str, whole: str, metrics: Iterable[str]) -> str | None:
    """Return the sibling of a metric (one token apart) that the words beside a fact name where they do not name it."""
    own = _tokens(use.name)
    for other in sorted(metrics):
        theirs = _tokens(other)
        apart = [(mine, its) for mine, its in zip(own, theirs, strict=False) if mine != its]
        if len(own) != len(theirs) or len(apart) != 1 or set(apart[0]) & PLAIN_TOKENS:
            continue
        [(mine, its)] = apart
        near = before if _says(before, mine) or _says(before, its) else after
        if its not in use.cell.values() and _says(near, its) and not _says(near if len(mine) == 1 else whole, mine):
            return other
    return None

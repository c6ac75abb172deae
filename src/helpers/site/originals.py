"""The issues of other projects that claims grew out of: an entry of the log each, and links to it from every page.

Prose names one as its project does, ``#65``. The site makes a link of each that a claim states a relation to, when the
page has been rendered, with Quarto or without.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from helpers.base.errors import ClaimError
from helpers.cases.claim import Claim, Relation, has_claim, read_claim

NUMBER = re.compile(r"(?<![\w&/])#\d+\b")
PIECE = re.compile(r"(<!--.*?-->|<script\b.*?</script\s*>|<style\b.*?</style\s*>|<[^>]*>)", re.DOTALL | re.IGNORECASE)
NAME = re.compile(r"<(/?)([a-zA-Z][\w-]*)")
APART = frozenset(["a", "bdi", "code", "h1", "head", "pre", "summary", "svg"])
"""Elements whose text gets no links: code, titles, links, and what a record or a model wrote."""


def anchor(number: str) -> str:
    """Return the anchor of the log entry of an original (``#65``)."""
    return f"original-{number.removeprefix('#')}"


def relations(root: Path) -> Iterator[tuple[Path, Claim, Relation]]:
    """Yield every relation to an original that a page in ``reports/`` states, with that page and its claim.

    A claim that cannot be read states none: status and lint say what such a draft lacks.
    """
    for path in sorted((root / "reports").glob("*.qmd")):
        with contextlib.suppress(ClaimError):
            if has_claim(path):
                claim = read_claim(path, root)
                yield from ((path, claim, one) for one in claim.relations if one.target.startswith("#"))


def numbers(root: Path) -> set[str]:
    """Return the originals that have an entry in the log."""
    return {relation.target for _, _, relation in relations(root)}


def link(html: str, known: Collection[str], log: str = "log.html") -> str:
    """Return a rendered page in which each original of ``known`` that its prose names links to the entry in ``log``."""

    def linked(match: re.Match[str]) -> str:
        number = match.group()
        return f'<a href="{log}#{anchor(number)}">{number}</a>' if number in known else number

    return "".join(NUMBER.sub(linked, piece) if is_prose else piece for piece, is_prose in _pieces(html))


def _pieces(html: str) -> Iterable[tuple[str, bool]]:
    """Yield the tags and texts of a page in order, and whether a text may hold links."""
    apart: list[str] = []
    for piece in PIECE.split(html):
        tag = NAME.match(piece)
        if tag and tag[2].lower() in APART:
            name = tag[2].lower()
            if not tag[1]:
                apart.append(name)
            elif name in apart:
                del apart[len(apart) - 1 - apart[::-1].index(name) :]
        yield piece, not apart and not piece.startswith("<")

"""Find what stands on a claim page beside Markdown and its code: HTML, badges, pictures, styles, options that hide.

The site builds all of these itself, from the case. A page that could write them could show another verdict or hide one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from helpers.claims.marked import Document
from helpers.site.linting.prose import Page

Fault = tuple[int, str, str]
FRONT = frozenset(["title", "subtitle", "description", "claim", "statements", "samples", "toc"])
CLASSES = frozenset(
    ["literal", "statement", "cited", "unnumbered", "unlisted", "callout-note", "callout-tip", "callout-warning",
     "callout-important", "callout-caution"]
)  # fmt: skip
OPTION = re.compile(r"^#\|\s*(.*?)\s*$")
OPTIONS = frozenset(["echo: false"])
SHORTCODE = re.compile(r"\{\{<.*?>\}\}|\{\{%.*?%\}\}")


def faults(page: Page, front: Document) -> Iterator[Fault]:
    """Yield markup of a claim page that only the site may write, each with its remedy."""
    for name in front.value:
        if name not in FRONT:
            known = ", ".join(sorted(FRONT))
            yield front.lines[(name,)], "front matter", f"{name!r} is no entry of a claim page ({known}): delete it."
    for piece in page.raw:
        yield piece.line, "markup", f"{piece.text[:40]!r} is HTML or another language: write Markdown, or show a block."
    for piece in page.images:
        yield piece.line, "markup", f"the picture {piece.text!r} comes from no record: draw a chart from records."
    for piece in page.classes:
        if piece.text not in CLASSES:
            yield piece.line, "markup", f"{piece.text!r} styles or hides text: only the site does. Delete it."
    for piece in page.cells:
        for offset, line in enumerate(piece.text.split("\n")):
            option = OPTION.match(line)
            if option and option[1] not in OPTIONS:
                yield piece.line + offset, "markup", f"the option {option[1]!r} may hide what a cell shows: delete it."
    for number, line in enumerate(page.lines, start=1):
        for shortcode in SHORTCODE.findall(line):
            yield number, "markup", f"{shortcode!r} brings in text that nobody checks: write it here."

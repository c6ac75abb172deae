"""The sections that every claim page needs (those of the published claim #65), and what they must say."""

from __future__ import annotations

import re
from collections.abc import Iterator

from helpers.base.errors import ClaimError
from helpers.base.files import read_text
from helpers.site.linting.prose import SPAN, Heading, Page
from helpers.site.markdown import INLINE

Fault = tuple[int, str, str]
# Every heading on the right stands somewhere below the one on the left; more headings may stand between them.
REQUIRED: dict[str, tuple[str, ...]] = {
    "TL;DR": ("Background", "Methodology", "Results", "Confidence", "Next steps"),
    "Detailed report": (
        "Source issues", "Setup & hyper-parameters", "Model", "Training", "Data", "Eval", "Compute", "Environment",
        "Full data", "Sample outputs", "Headline numbers", "Standing caveats", "Artifacts",
    ),
}  # fmt: skip
CAVEATS = "Standing caveats"
NOTHING = re.compile(r"^\W*(?:none|nothing|no caveats?|n/?a|not applicable)?\W*$", re.IGNORECASE)
EVASIONS = re.compile(
    r"\b(not recorded|not captured|unrecorded|to be (?:added|written|filled in)|TBD|TODO|FIXME)\b|\bN/A\b"
)


def faults(page: Page) -> Iterator[Fault]:
    """Yield sections that are missing or empty, and a page without caveats."""
    for parent, names in REQUIRED.items():
        for name in (None, *names):
            heading = _find(page, parent, name)
            if heading is None:
                where = f"below {parent!r}" if name else "of the page"
                yield _line_of(page, parent), "section", f"the section {name or parent!r} {where} is missing: add it."
            elif name and not _says_something(page, heading):
                rule = "caveats" if name == CAVEATS else "section"
                yield heading.line, rule, f"the section {name!r} is empty: write it."
    caveats = _find(page, "Detailed report", CAVEATS)
    if (
        caveats
        and _says_something(page, caveats)
        and NOTHING.match(_prose(page, caveats))
        and not _cells(page, caveats)
    ):
        yield caveats.line, "caveats", "the page names no caveat: every result has some, say which."


def caveats(page: Page) -> list[str]:
    """Return the caveats that a page lists in words of its own, without those that a cell or a record completes."""
    heading = _find(page, "Detailed report", CAVEATS)
    if heading is None:
        return []
    lines = read_text(page.path, ClaimError).split("\n")[heading.line : _end(page, heading)]
    items = re.findall(r"^[-*] +(.*(?:\n +\S.*)*)", "\n".join(lines), flags=re.MULTILINE)
    said = (SPAN.sub(r"\1", " ".join(item.split())) for item in items if not INLINE.search(item))
    return [item.replace("`", "") for item in said]


def evasions(page: Page) -> Iterator[Fault]:
    """Yield words written in place of a record."""
    for line, text in enumerate(page.lines, start=1):
        for match in EVASIONS.finditer(text):
            yield line, "not recorded", f"{match.group()!r}: every run records what it is made of, take it from there."
    for piece in page.cells:
        for offset, text in enumerate(piece.text.split("\n")):
            for match in EVASIONS.finditer(text.partition("#")[0]):
                yield piece.line + offset, "not recorded", f"{match.group()!r} in a cell: take it from a record."


def plain(text: str) -> str:
    """A heading to compare: without number, emphasis and case."""
    return re.sub(r"^[\d.§)\s]+", "", re.sub(r"[*_`]", "", text)).strip().casefold()


def _find(page: Page, parent: str, name: str | None) -> Heading | None:
    for heading in page.headings:
        above = [plain(one.text) for one in page.section_of(heading.line)]
        if plain(heading.text).startswith((name or parent).casefold()) and (
            name is None or parent.casefold() in above[:-1]
        ):
            return heading
    return None


def _line_of(page: Page, parent: str) -> int:
    return next((one.line for one in page.headings if plain(one.text) == parent.casefold()), 1)


def _end(page: Page, heading: Heading) -> int:
    """The last line of a section, its subsections included."""
    later = (one.line - 1 for one in page.headings if one.line > heading.line and one.level <= heading.level)
    return next(later, len(page.lines))


def _prose(page: Page, heading: Heading) -> str:
    return "\n".join(page.lines[heading.line : _end(page, heading)])


def _cells(page: Page, heading: Heading) -> bool:
    end = _end(page, heading)
    return any(heading.line < piece.line <= end for piece in (*page.cells, *page.inlines))


def _says_something(page: Page, heading: Heading) -> bool:
    return bool(re.search(r"\w", _prose(page, heading))) or _cells(page, heading)

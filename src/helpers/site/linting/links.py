"""Check links and addresses: each must lead to an existing page, anchor, run or completion."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from helpers.base.errors import ClaimbookError, nearest
from helpers.records.reading import records
from helpers.site import log, samples
from helpers.site.linting.prose import Page, read_page
from helpers.site.log import experiments
from helpers.site.overview import records_used
from helpers.site.status import cases_in

Fault = tuple[int, str, str]
GENERATED = ("index.html", "completions.html")
RUN_ID = re.compile(r"(?:(?P<notebook>[a-z][a-z0-9_]*)/)?(?P<id>[\w.+-]+-[0-9a-f]{12})")


@dataclass(frozen=True)
class Site:
    """What a link may lead to in the project at ``root``."""

    root: Path

    @functools.cache  # noqa: B019 - a site lives as long as one lint
    def anchors(self, page: Path) -> set[str]:
        """Return the anchors of a page of ``reports/``: its own, and those that its cells write."""
        made = {"runs": self.run_anchors, "log": lambda: log.anchors(self.root)}
        generated = made.get(page.stem, lambda: set())()
        return read_page(page).anchors | generated

    def run_anchors(self) -> set[str]:
        used = records_used(cases_in(self.root / "reports", self.root))
        return {record.id for record in used}

    @functools.cached_property
    def runs(self) -> set[str]:
        """Return the names of all complete records, with and without their notebook."""
        complete = [record for name in experiments(self.root) for record in records(name)]
        return {record.id for record in complete} | {record.ref for record in complete}

    __hash__ = object.__hash__


def faults(page: Page, site: Site) -> Iterator[Fault]:
    """Yield links that lead nowhere, and runs that a cell names but that do not exist."""
    for link in page.links:
        rule = "sample" if "completions.html#" in link.text else "link"
        yield from ((link.line, rule, message) for message in broken(link.text, page, site))
    for piece in (*page.cells, *page.inlines):
        for line, text in _strings(piece.line, piece.text):
            match = RUN_ID.fullmatch(text)
            if match and text not in site.runs:
                yield (
                    line,
                    "sample",
                    f"the run {text!r} is not in the records{nearest(text, site.runs) if site.runs else ''}.",
                )


def sample_faults(path: Path) -> Iterator[Fault]:
    """Yield samples that the front matter chooses but no record holds."""
    for line, address in samples.addresses(path):
        try:
            samples.find(address)
        except ClaimbookError as error:
            yield line, "sample", str(error)


def broken(link: str, page: Page, site: Site) -> Iterator[str]:
    """Yield what is wrong with one link of a page in ``reports/``; links out of the site are not checked."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return
    anchor = unquote(parts.fragment)
    if not parts.path:
        if anchor and anchor not in site.anchors(page.path):
            yield f"the link {link!r} leads nowhere: the page has no anchor {anchor!r}{nearest(anchor, page.anchors)}"
        return
    reports = site.root / "reports"
    target = (reports / unquote(parts.path)).resolve()
    if target == (site.root / "completions.html").resolve() and anchor:
        yield from _address(anchor)
    elif target.parent == site.root.resolve() and target.name in GENERATED:
        return
    elif target.parent == reports.resolve() and target.suffix in (".html", ".qmd"):
        yield from _on_page(link, target.with_suffix(".qmd"), anchor, site)
    elif target.parent == (site.root / "notebooks").resolve() and target.suffix in (".html", ".ipynb"):
        if not target.with_suffix(".ipynb").is_file() and not target.with_suffix(".py").is_file():
            yield f"the link {link!r} leads nowhere: there is no such notebook."
    else:
        there = "is not part of the site: name the file in code font instead" if target.exists() else "leads nowhere"
        yield f"the link {link!r} {there}."


def _on_page(link: str, target: Path, anchor: str, site: Site) -> Iterator[str]:
    if not target.is_file():
        close = nearest(target.name, [path.name for path in target.parent.glob("*.qmd")])
        yield f"the link {link!r} leads nowhere{close}"
    elif anchor and anchor not in site.anchors(target):
        close = nearest(anchor, site.anchors(target))
        yield f"the link {link!r} leads nowhere: {target.name} has no anchor {anchor!r}{close}"


def _address(fragment: str) -> Iterator[str]:
    given = dict(parse_qsl(fragment, keep_blank_values=True))
    try:
        samples.find_loose(given)
    except ClaimbookError as error:
        yield str(error)


def _strings(line: int, source: str) -> Iterator[tuple[int, str]]:
    try:
        tree = ast.parse(source.strip() if "\n" not in source else source)
    except SyntaxError:
        return  # `numerals` reports it
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield line + node.lineno - 1, node.value

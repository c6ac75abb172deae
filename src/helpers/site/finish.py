"""Finish rendered pages, with Quarto or without: unseal outputs, place headers, add what they link to, and check."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Collection, Iterable
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import nbformat

from helpers.base.errors import ClaimbookError, ClaimError
from helpers.base.files import ROOT, write_text
from helpers.cases.drafts import open_page
from helpers.show.markup import unseal
from helpers.site import completions, header, notebooks, originals
from helpers.site.check import Finding, check_site
from helpers.site.frame import Project, read_project, write_styles
from helpers.site.run_list import write_details

INDEX, RUNS, LOG = Path("reports/index.html"), Path("reports/runs.html"), Path("reports/log.qmd")


def finish(
    root: Path = ROOT,
    site: Path | None = None,
    only: Collection[Path] | None = None,
    kept: Collection[Path] | None = None,
) -> list[Finding]:
    """Unseal the outputs in rendered pages, add the pages that they link to, and return the findings of the check.

    Args:
        only: the pages that a partial render wrote. Notebooks and completions then stay as they are, and links between
            pages are not checked, because the other page may not be rendered yet.
        kept: the pages that need no rendering, where with ``only`` the site is whole: all else is written, and checked.

    Raises:
        ClaimError: ``reports/index.html`` was not rendered, or a notebook's execution failed.
    """
    project = read_project(Path(root))
    site = Path(site or project.root / "_site").resolve()
    pages = None if only is None else {path.resolve() for path in only}
    logged = originals.numbers(project.root) if project.root / LOG in project.pages else set()
    for source, page in _pages(project, site):
        if pages is None or page in pages:
            html = originals.link(unseal(page.read_text(encoding="utf-8")), logged)
            claim = open_page(source, project.root)
            write_text(page, html if claim is None else header.place(html, claim))
    if pages is None or kept is not None:
        _add(project, site, {path.resolve() for path in kept or ()})
    if (site / RUNS).is_file() and (pages is None or site / RUNS in pages):
        write_details(site / RUNS)
    if pages is None or kept is not None or site / INDEX in pages:
        write_index(site)
    return check_site(site, None if kept is not None else pages)


def drop_unfinished(pages: Iterable[Path]) -> None:
    """Remove those of the rendered pages in which outputs are still sealed."""
    for page in pages:
        if page.is_file() and unseal(html := page.read_text(encoding="utf-8")) != html:
            page.unlink()


def _add(project: Project, site: Path, kept: Collection[Path]) -> None:
    """Write the style sheets, notebooks and completions of a site, all but those ``kept``."""
    write_styles(project, site)
    for source in notebooks.sources(project):
        if site / f"notebooks/{source.stem}.html" not in kept and _was_executed(source):
            notebooks.export(source, project, site)
    if site / "completions.html" not in kept:
        completions.write(project, site)


def _pages(project: Project, site: Path) -> list[tuple[Path, Path]]:
    """Return source and rendered page of the project's pages, without notebooks, whose outputs are not sealed."""
    pages = [(source, site / source.relative_to(project.root).with_suffix(".html")) for source in project.pages]
    return [(source, page) for source, page in pages if page.is_file()]


def after_quarto(root: Path = ROOT) -> int:
    """Finish what Quarto has rendered, as ``reports/_finish.py``; Quarto stops with an error when this returns 1."""
    try:
        findings = finish(root, root / _told("QUARTO_PROJECT_OUTPUT_DIR"), _rendered(root))
    except ClaimbookError as error:
        print(error, file=sys.stderr)
        return 1
    for finding in findings:
        print(finding, file=sys.stderr)
    return 1 if findings else 0


def _rendered(root: Path) -> list[Path] | None:
    """Return the pages that Quarto has just rendered, or None for all of the project."""
    if os.environ.get("QUARTO_PROJECT_RENDER_ALL") == "1":
        return None
    kept = os.environ.get("QUARTO_USE_FILE_FOR_PROJECT_OUTPUT_FILES")
    listed = (root / kept).read_text(encoding="utf-8") if kept else _told("QUARTO_PROJECT_OUTPUT_FILES")
    return [root / line for line in listed.splitlines() if line.endswith(".html")]


def _told(name: str) -> str:
    try:
        return os.environ[name]
    except KeyError:
        raise ClaimbookError(f"{name} is not set: Quarto runs this script. Run `claimbook site` instead.") from None


def write_index(site: Path) -> Path:
    """Write ``index.html``: the page ``reports/index.html`` with its links seen from the root of the site."""
    source = site / INDEX
    if not source.is_file():
        raise ClaimError(f"{site.name}/{INDEX} was not rendered: add reports/index.qmd.")
    text = source.read_text(encoding="utf-8")
    write_text(site / "index.html", with_links(text, lambda link: seen_from_root(link, "reports")))
    return site / "index.html"


def seen_from_root(link: str, folder: str) -> str:
    """Return a relative link of a page in ``folder`` as a page at the root of the site must write it."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc or not parts.path or parts.path.startswith("/"):
        return link
    steps: list[str] = [folder]
    for step in PurePosixPath(parts.path).parts:
        if step == "..":
            if not steps:
                raise ClaimError(f"The link {link!r} of {folder}/ leaves the site: repair it.")
            steps.pop()
        else:
            steps.append(step)
    path = "/".join(steps) + ("/" if parts.path.endswith("/") and steps else "")
    return parts._replace(path=path or "./").geturl()


class _Tags(HTMLParser):
    """Where the start tags of a page are, those in scripts and comments apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[int, str]] = []
        self.lines = [0, *(match.end() for match in re.finditer("\n", text))]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        line, column = self.getpos()
        self.tags.append((self.lines[line - 1] + column, self.get_starttag_text() or ""))


def with_links(text: str, change: Callable[[str], str]) -> str:
    """Return ``text`` with every ``href`` and ``src`` (and Quarto's offset) changed, and nothing else."""
    tags = _Tags(text)
    tags.feed(text)
    parts, position = [], 0
    for start, tag in tags.tags:
        attribute = r'(\scontent=")([^"]*)(")' if 'name="quarto:offset"' in tag else r'(\s(?:href|src)=")([^"]*)(")'
        new = re.sub(attribute, lambda match: match.group(1) + change(match.group(2)) + match.group(3), tag)
        parts += [text[position:start], new]
        position = start + len(tag)
    return "".join([*parts, text[position:]])


def _was_executed(source: Path) -> bool:
    cells = nbformat.read(source, as_version=4).cells
    return any(cell.cell_type == "code" and cell.execution_count for cell in cells)

"""Render ``reports/`` into ``_site/``, with Quarto where it is installed and with the fallback where it is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers.base.errors import ClaimError, nearest
from helpers.base.files import ROOT
from helpers.records.reading import read_once
from helpers.site import fallback
from helpers.site.check import Finding
from helpers.site.fallback import remove_gone
from helpers.site.finish import drop_unfinished, finish
from helpers.site.frame import Project, read_project
from helpers.site.stamps import Stamps
from helpers.system import leftovers

Kept = Collection[Path] | None
"""The pages that need no rendering, where the whole site is rendered; None where pages were named."""
LAST = 30  # lines of a failed render to show where output is no terminal
NO_QUARTO = "Quarto is not installed (see https://quarto.org/docs/get-started). Rendering the same pages without it."


@dataclass(frozen=True)
class Rendered:
    """The page to open first, how many pages were rendered, and how many stayed as they were."""

    first: Path
    count: int
    kept: int = 0


@read_once()
def render_site(root: Path = ROOT, site: Path | None = None, names: Sequence[str] = ()) -> Rendered:
    """Render the pages of the site that changed, or the pages called ``names``, and check it.

    Raises:
        ClaimError: there is no such page, a page failed, or the check has findings, which the error lists.
    """
    root = Path(root)
    site, project = Path(site or root / "_site"), read_project(root)
    chosen = [_page(name, project) for name in names]
    for folder in (site, *(path for path in site.glob("*") if path.is_dir())):
        leftovers.remove_files(folder)
    quarto = shutil.which("quarto") or shutil.which("quarto", path=Path(sys.executable).parent)  # the extra [quarto]
    stamps = Stamps(project, site, "Quarto" if quarto else "fallback", chosen)
    targets = {page: site / page.relative_to(root).with_suffix(".html") for page in project.pages}
    pages = chosen or [page for page, target in targets.items() if target not in stamps.kept]
    written, kept = [targets[page] for page in pages], None if chosen else stamps.kept
    if kept is not None:
        remove_gone(project, site)
    if kept is None or len(kept) < len(stamps.parts) or not stamps.is_checked:
        if quarto:
            findings = _by_quarto(quarto, project, site, pages, kept)
        else:
            findings = _by_fallback(project, site, pages, kept)
        stamps.write(written if kept is None else stamps.parts)
        if findings:
            raise ClaimError("The site has faults:\n" + "\n".join(map(str, findings)))
        if kept is not None:
            stamps.write_checked()
    return Rendered(written[0] if chosen else site / "index.html", len(pages), len(targets) - len(pages))


def _by_fallback(project: Project, site: Path, pages: Sequence[Path], kept: Kept) -> list[Finding]:
    """Render pages without Quarto, and finish them; with ``kept`` the site is whole then."""
    written: list[Path] = []
    if pages:
        print(NO_QUARTO, file=sys.stderr)
        try:
            written = fallback.render(project.root, site, pages=pages)
        except BaseException:  # what was stopped half-way must not lie there as if it were a page
            drop_unfinished(site / page.relative_to(project.root).with_suffix(".html") for page in pages)
            raise
    return finish(project.root, site, written, kept)


def _by_quarto(quarto: str, project: Project, site: Path, pages: Sequence[Path], kept: Kept) -> list[Finding]:
    """Render pages with Quarto, which finishes each; what no page holds is left to do where ``kept`` is given."""
    if len(pages) == len(project.pages):
        _with_quarto(quarto, project.root, project.root, site)
        return []
    for page in pages:
        _with_quarto(quarto, page, project.root, site)
    return [] if kept is None else finish(project.root, site, (), kept)


def _page(name: str, project: Project) -> Path:
    """Return the page of the site that is called ``name``: its file, or its file's name without the folder."""
    known = {page.stem: page for page in project.pages}
    stem = Path(name).name.removesuffix(".qmd")
    if stem not in known or Path(name).name not in (stem, known[stem].name):
        raise ClaimError(f"The site has no page {name!r}{nearest(stem, known)}")
    return known[stem]


def _with_quarto(quarto: str, target: Path, root: Path, site: Path) -> None:
    """Run Quarto with this interpreter; it calls ``reports/_finish.py`` itself (see ``_quarto.yml``)."""
    command = [quarto, "render", str(target)] + (["--output-dir", str(site)] if site != root / "_site" else [])
    # On a terminal Quarto shows a line for each cell of each page. Elsewhere they are only shown if it fails.
    kept = {} if sys.stderr.isatty() else {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(command, env=os.environ | {"QUARTO_PYTHON": sys.executable}, check=False, **kept)
    if done.returncode:
        print("\n".join((done.stdout or "").splitlines()[-LAST:]), file=sys.stderr)
        raise ClaimError("quarto render failed: its last lines above say where.")

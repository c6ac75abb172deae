"""Render ``reports/`` into ``_site/``, with Quarto where it is installed and with the fallback where it is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from helpers.base import leftovers
from helpers.base.errors import ClaimError, nearest
from helpers.base.files import ROOT
from helpers.site import fallback
from helpers.site.finish import finish
from helpers.site.frame import read_project

LAST = 30  # lines of a failed render to show where output is no terminal
NO_QUARTO = "Quarto is not installed (see https://quarto.org/docs/get-started). Rendering the same pages without it."


def render_site(root: Path = ROOT, site: Path | None = None, names: Sequence[str] = ()) -> Path:
    """Render the site, or the pages called ``names``, check it, and return its index page or the first of them.

    Raises:
        ClaimError: there is no such page, a page failed, or the check has findings, which the error lists.
    """
    root, site = Path(root), Path(site or Path(root) / "_site")
    pages = [_page(name, root) for name in names]
    written = [site / page.relative_to(root).with_suffix(".html") for page in pages]
    for folder in (site, *(path for path in site.glob("*") if path.is_dir())):
        leftovers.remove_files(folder)
    quarto = shutil.which("quarto") or shutil.which("quarto", path=Path(sys.executable).parent)  # the extra [quarto]
    if quarto:
        for target in pages or [root]:
            _with_quarto(quarto, target, root, site)
    else:
        print(NO_QUARTO, file=sys.stderr)
        fallback.render(root, site, pages=pages)
        if findings := finish(root, site, written if pages else None):
            raise ClaimError("The site has faults:\n" + "\n".join(map(str, findings)))
    return written[0] if pages else site / "index.html"


def _page(name: str, root: Path) -> Path:
    """Return the page of the site that is called ``name``: its file, or its file's name without the folder."""
    known = {page.stem: page for page in read_project(root).pages}
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

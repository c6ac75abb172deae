"""Render ``reports/`` into ``_site/``, with Quarto where it is installed and with the fallback where it is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from helpers.base import leftovers
from helpers.base.errors import ClaimError
from helpers.base.files import ROOT
from helpers.site import fallback
from helpers.site.finish import finish

LAST = 30  # lines of a failed render to show where output is no terminal
NO_QUARTO = "Quarto is not installed (see https://quarto.org/docs/get-started). Rendering the same pages without it."


def render_site(root: Path = ROOT, site: Path | None = None) -> Path:
    """Render the site, check it, and return its index page.

    Raises:
        ClaimError: a page failed, or the check has findings, which the error lists.
    """
    site = Path(site or Path(root) / "_site")
    for folder in (site, *(path for path in site.glob("*") if path.is_dir())):
        leftovers.remove_files(folder)
    quarto = shutil.which("quarto") or shutil.which("quarto", path=Path(sys.executable).parent)  # the extra [quarto]
    if quarto:
        _with_quarto(quarto, Path(root), site)
        return site / "index.html"
    print(NO_QUARTO, file=sys.stderr)
    fallback.render(root, site)
    findings = finish(root, site)
    if findings:
        raise ClaimError("The site has faults:\n" + "\n".join(map(str, findings)))
    return site / "index.html"


def _with_quarto(quarto: str, root: Path, site: Path) -> None:
    """Run Quarto with this interpreter; it calls ``reports/_finish.py`` itself (see ``_quarto.yml``)."""
    command = [quarto, "render", str(root)] + (["--output-dir", str(site)] if site != root / "_site" else [])
    # On a terminal Quarto shows a line for each cell of each page. Elsewhere they are only shown if it fails.
    kept = {} if sys.stderr.isatty() else {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(command, env=os.environ | {"QUARTO_PYTHON": sys.executable}, check=False, **kept)
    if done.returncode:
        print("\n".join((done.stdout or "").splitlines()[-LAST:]), file=sys.stderr)
        raise ClaimError("quarto render failed: its last lines above say where.")

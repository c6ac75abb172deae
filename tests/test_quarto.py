"""What the project tells Quarto, which CI does not have: held to what Quarto documents."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from helpers.base.files import ROOT
from helpers.show.colours import DARK
from helpers.site.targets import targets

pytestmark = pytest.mark.unit

CONFIG = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))
LEFT_BY_A_RENDER = [
    ".quarto/idx/reports/log.qmd.json", "_site/index.html", "site_libs/bootstrap/bootstrap.min.css",
    "reports/log.quarto_ipynb", "reports/log.quarto_ipynb_1", "reports/log.html", "reports/log_files/libs/a.js",
    "notebooks/sweep.html", "notebooks/sweep_files/libs/a.js", "notebooks/sweep.out.ipynb",
    "notebooks/sweep.embed.ipynb", "notebooks/.ipynb_checkpoints/sweep-checkpoint.ipynb", "out.ipynb",
]  # fmt: skip


def git(folder: Path, *arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_quarto_renders_nothing_outside_reports():
    tracked = git(ROOT, "ls-files")
    selected = targets(CONFIG["project"]["render"], tracked)
    assert "reports/index.qmd" in selected
    assert [name for name in selected if not name.startswith("reports/")] == []
    elsewhere = [name for name in targets(["reports/*.qmd"], tracked) if name not in selected]
    assert elsewhere, "nothing would be rendered by mistake, so this test shows nothing"


def test_quarto_leaves_html_tables_as_they_are():
    assert CONFIG["html-table-processing"] == "none"


def test_quarto_shows_the_theme_that_the_reader_prefers_in_the_colours_of_the_template():
    html = CONFIG["format"]["html"]
    assert html["theme"]["light"] == "default" and html["respect-user-color-scheme"] is True
    base, own = html["theme"]["dark"]
    defaults = (ROOT / own).read_text(encoding="utf-8")
    assert base == "default" and defaults.startswith("/*-- scss:defaults --*/\n")
    style = (ROOT / html["css"]).read_text(encoding="utf-8")
    for variable, ours in (("body-bg", "page"), ("body-color", "ink"), ("link-color", "link"), ("text-muted", "muted")):
        dark = re.search(rf"--cb-{ours}: light-dark\(#\w+, (#\w+)\)", style)
        assert dark and f"${variable}: {dark[1]} !default;" in defaults
    assert f"$body-bg: {DARK['white']} !default;" in defaults, "charts are drawn on another page"


def test_a_render_leaves_nothing_to_commit(tmp_path):
    shutil.copy(ROOT / ".gitignore", tmp_path)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".gitignore")
    for name in LEFT_BY_A_RENDER:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert git(tmp_path, "status", "--porcelain", "--untracked-files=all") == ["A  .gitignore"]


def test_quarto_has_nothing_to_append_to_gitignore():
    lines = [line.strip() for line in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()]
    assert {"/.quarto/", "**/*.quarto_ipynb", "/env/"} <= set(lines)


def test_nothing_that_is_tracked_is_ignored():
    assert git(ROOT, "ls-files", "--cached", "--ignored", "--exclude-standard") == []

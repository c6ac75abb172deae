"""Which pages are rendered again: those whose records, source or code changed, or whose output is not theirs."""

from __future__ import annotations

from pathlib import Path

import pytest
import toy_study
from markupsafe import Markup
from site_fixture import make_bare_record, make_record

from helpers.audit.register import register
from helpers.base import files
from helpers.show.markup import seal
from helpers.site import fallback, render, stamps
from helpers.site.check import Finding

pytestmark = pytest.mark.unit

DICE = toy_study.PAGE.replace("coins", "dice").replace("Coins", "Dice")
CELL = "\n```{python}\nfrom helpers import shapes\n```\n"
PAGES = {
    "coins": toy_study.PAGE + CELL,
    "dice": DICE.replace("title: Dice", "title: Dice\nbibliography: refs.bib"),
    "index": "---\ntitle: Home\n---\n```{python}\nfrom helpers.site import overview\n```\n",
    "guide": "---\ntitle: Guide\n---\nReads.\n",
    "sizes": "---\ntitle: Sizes\n---\n```{python}\nfrom helpers import shapes\nshapes.read('sizes.csv')\n```\n",
}
ALL = set(PAGES)
CONFIG = """\
project: {render: ["./reports/*.qmd"]}
website: {title: Toys, navbar: {left: []}}
format: {html: {css: reports/_style.css, theme: {light: reports/_light.scss}}}
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Two claims, the home page, a page of prose and one of data, rendered once; nothing is executed."""
    root = toy_study.project(tmp_path, monkeypatch)
    written = {f"reports/{name}.qmd": text for name, text in PAGES.items()}
    written |= {
        name.replace("coins", "dice"): (root / name).read_text()
        for name in ("params/coins/experiment.yaml", "params/coins/criteria.yaml", "params/coins/grid.yaml")
    }
    written |= {
        "src/helpers/shapes.py": "SIDES = 6\n",
        "src/helpers/site/overview.py": "import helpers.site.status\n",
        "src/helpers/site/status.py": "",
        "src/helpers/site/markdown.py": "A = 1\n",
        "_quarto.yml": CONFIG,
        "reports/_style.css": "a {}",
        "reports/_light.scss": "",
        "reports/refs.bib": "@a",
        "data/sizes.csv": "1",
        "templates/page.html": "<p>",
    }
    for name, text in written.items():
        files.write_text(root / name, text)
    monkeypatch.setattr(stamps, "TEMPLATES", root / "templates")
    monkeypatch.setattr(render.shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(fallback, "render", draw)
    monkeypatch.setattr(render, "finish", finish)
    register([root / "reports/coins.qmd"], root=root)
    toy_study.run_cell(toy_study.CoinCell(bias=0.7))
    assert rendered(root) == ALL
    return root


def draw(root: Path, site: Path, pages: list[Path]) -> list[Path]:
    """Write a page for each source, without executing any."""
    written = [site / page.relative_to(root).with_suffix(".html") for page in pages]
    for page, path in zip(pages, written, strict=True):
        files.write_text(path, page.read_text())
    return written


def finish(root: Path, site: Path, written: list[Path], kept: set[Path] | None) -> list[Finding]:
    """Write the page that no source has, and find nothing."""
    files.write_text(site / "completions.html", "<html>")
    return []


def rendered(root: Path, **named) -> set[str]:
    """Which pages were rendered now."""
    drawn: set[str] = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            fallback, "render", lambda root, site, pages: drawn.update(p.stem for p in pages) or draw(root, site, pages)
        )
        done = render.render_site(root, **named)
    assert done.count == len(drawn)
    return drawn


def edit(name: str, text: str | None = None):
    """A change of one file of the project: a line more, or another text."""

    def change(root: Path) -> None:
        path = root / name
        path.write_text(path.read_text() + "\nMore." if text is None else text)

    return change


def a_line_about(page: str):
    return lambda root: register([root / f"reports/{page}.qmd"], root=root)


CHANGES = {
    "the prose of a page": (edit("reports/guide.qmd"), {"guide"}),
    "the prose of a claim": (edit("reports/coins.qmd"), {"coins"}),
    "a title": (edit("reports/coins.qmd", PAGES["coins"].replace("title: Coins", "title: C")), {"coins"}),
    "what a claim says": (edit("reports/coins.qmd", PAGES["coins"].replace("Do they?", "So?")), {"coins", "index"}),
    "criteria": (edit("params/dice/criteria.yaml", toy_study.CRITERIA.replace("Heads win", "Won")), {"dice", "index"}),
    "a grid": (edit("params/coins/grid.yaml", "bias: [0.7, 0.8]\nseed: [0, 1]\n"), {"coins", "index"}),
    "a bibliography": (edit("reports/refs.bib"), {"dice"}),
    "the style sheet": (edit("reports/_style.css"), ALL),
    "the theme": (edit("reports/_light.scss"), ALL),
    "a template": (edit("templates/page.html"), ALL),
    "the site": (edit("_quarto.yml", CONFIG.replace("Toys", "Games")), ALL),
    "code of some pages": (edit("src/helpers/shapes.py", "SIDES = 8\n"), {"coins", "sizes"}),
    "a comment in code": (edit("src/helpers/shapes.py", "SIDES = 6  # of a die\n"), set()),
    "code of the home page": (edit("src/helpers/site/status.py", "A = 2\n"), {"index"}),
    "code that renders": (edit("src/helpers/site/markdown.py", "A = 2\n"), ALL),
    "data that a page names": (edit("data/sizes.csv"), {"sizes"}),
    "data that makes records stale": (edit("data/mint.txt"), {"coins", "index"}),
    "a record": (lambda root: toy_study.run_cell(toy_study.CoinCell(bias=0.9)), {"coins", "index"}),
    "a record of another claim": (lambda root: make_bare_record(root / "outputs", "dice", "one"), {"dice", "index"}),
    "a record that no page shows": (lambda root: make_bare_record(root / "outputs", "other", "one"), {"index"}),
    "the ledger": (a_line_about("dice"), {"dice", "index"}),
    "an output that is gone": (lambda root: (root / "_site/reports/dice.html").unlink(), {"dice"}),
    "an output that was edited": (edit("_site/reports/guide.html"), {"guide"}),
    "a stamp that is gone": (lambda root: (root / "_site/.stamps/reports/index.json").unlink(), {"index"}),
    "a stamp that is no JSON": (edit("_site/.stamps/reports/index.json"), {"index"}),
}  # fmt: skip


@pytest.mark.parametrize(("change", "pages"), CHANGES.values(), ids=CHANGES)
def test_a_change_renders_the_pages_that_it_reaches_and_then_none(root, change, pages):
    change(root)
    assert rendered(root) == pages
    assert rendered(root) == set()


def test_nothing_is_done_twice_and_a_page_that_is_named_is_always_rendered(root, monkeypatch):
    monkeypatch.setattr(render, "finish", lambda *_: pytest.fail("nothing has changed"))
    assert rendered(root) == set()
    monkeypatch.setattr(render, "finish", finish)
    edit("reports/guide.qmd")(root)
    assert rendered(root, names=["dice"]) == {"dice"} and rendered(root) == {"guide"}


def test_a_page_whose_source_is_gone_is_removed(root):
    (root / "reports/guide.qmd").unlink()
    assert rendered(root) == set() and not (root / "_site/reports/guide.html").exists()


def test_a_claim_that_rests_on_another_is_rendered_when_that_one_changes(root):
    page = root / "reports/coins.qmd"
    page.write_text(page.read_text().replace("  status", "  relations: [{kind: consumes, target: dice}]\n  status"))
    assert rendered(root) == {"coins", "index"}
    make_bare_record(root / "outputs", "dice", "one")
    assert rendered(root) == {"coins", "dice", "index"}


def test_a_fault_is_found_again_until_it_is_mended(root, monkeypatch):
    edit("reports/guide.qmd")(root)
    monkeypatch.setattr(render, "finish", lambda *_: [Finding("reports/guide.html", 1, "is wrong")])
    for _ in range(2):
        with pytest.raises(render.ClaimError, match=r"guide\.html:1: is wrong"):
            render.render_site(root)
    monkeypatch.setattr(render, "finish", finish)
    assert rendered(root) == set()


def test_a_page_that_was_not_finished_does_not_stay(root, monkeypatch):
    def stop_half_way(root: Path, site: Path, pages: list[Path]) -> list[Path]:
        draw(root, site, pages)
        files.write_text(site / "reports/coins.html", f"<p>{seal(Markup('<b>7</b>'))}</p>")
        raise render.ClaimError("reports/guide.qmd, line 1: a cell failed")

    for name in ("coins", "guide"):
        edit(f"reports/{name}.qmd")(root)
    with monkeypatch.context() as patch, pytest.raises(render.ClaimError, match="a cell failed"):
        patch.setattr(fallback, "render", stop_half_way)
        render.render_site(root)
    assert not (root / "_site/reports/coins.html").exists() and (root / "_site/reports/guide.html").exists()
    assert rendered(root) == {"coins", "guide"}


def test_completions_and_notebooks_are_kept_until_their_sources_change(root, monkeypatch):
    kept: list[set[str]] = []
    monkeypatch.setattr(
        render, "finish", lambda *given: kept.append({path.stem for path in given[3]}) or finish(*given)
    )
    make_record(root / "outputs", "one", ["a text"])
    rendered(root)
    assert "completions" not in kept[-1] and kept[-1] >= {"guide", "dice"}
    files.write_text(root / "notebooks/toss.ipynb", "{}")
    files.write_text(root / "notebooks/toss.py", "")
    rendered(root)
    assert "toss" not in kept[-1] and kept[-1] >= {"completions", "guide", "dice"}


@pytest.mark.pages
def test_pages_are_executed_again_only_where_they_changed(tmp_path, monkeypatch):
    root = toy_study.project(tmp_path, monkeypatch)
    for name in ("reports/_style.css", "_quarto.yml"):
        files.write_text(root / name, (Path(__file__).parents[1] / name).read_text())
    files.write_text(root / "reports/index.qmd", "---\ntitle: Home\n---\n`{python} 1 + 1` coins\n")
    config = (root / "_quarto.yml").read_text()
    files.write_text(
        root / "_quarto.yml",
        config.replace("css: reports", "css: reports").split("    left:")[0]
        + "    left: []\n"
        + config[config.index("lang:") :],
    )
    monkeypatch.setattr(render.shutil, "which", lambda *_, **__: None)
    assert render.render_site(root).count == 2
    before = (root / "_site/reports/coins.html").stat().st_mtime_ns
    assert render.render_site(root).count == 0
    files.write_text(root / "reports/index.qmd", "---\ntitle: Home\n---\n`{python} 3 + 1` coins\n")
    assert render.render_site(root).count == 1
    assert "4 coins" in (root / "_site/index.html").read_text()
    assert (root / "_site/reports/coins.html").stat().st_mtime_ns == before

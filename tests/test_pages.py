"""The project's own pages, executed from the published records alone, as a fresh clone has them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from helpers.base.files import REPORTS, ROOT
from helpers.site import fallback
from helpers.site.finish import finish
from helpers.site.lint import lint
from helpers.site.linting.prose import read_page

PAGES = sorted(path.stem for path in REPORTS.glob("*.qmd"))
CHROMIUM = shutil.which("chromium")
no_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every page of ``reports/``, rendered without Quarto; a cell or an inline expression that fails stops it."""
    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLAIMBOOK_OUTPUTS", str(folder / "outputs"))
        fallback.render(ROOT, folder / "site")
        findings = finish(ROOT, folder / "site")
    assert findings == [], "\n".join(map(str, findings))
    return folder / "site"


@pytest.mark.check
@pytest.mark.pages
@pytest.mark.timeout(900)
def test_every_page_is_there_and_the_index_links_the_claims(site: Path) -> None:
    assert {path.stem for path in (site / "reports").glob("*.html")} == set(PAGES)
    index = (site / "index.html").read_text(encoding="utf-8")
    assert 'href="reports/lr-epochs-band.html"' in index


@pytest.mark.check
@pytest.mark.pages
@pytest.mark.parametrize("name", PAGES)
def test_no_inline_expression_is_left_and_nothing_loads_from_outside(site: Path, name: str) -> None:
    text = (site / "reports" / f"{name}.html").read_text(encoding="utf-8")
    assert "`{python}" not in text
    assert "Traceback (most recent call last)" not in text


@pytest.mark.check
@pytest.mark.pages
@pytest.mark.parametrize("name", PAGES)
def test_long_pages_have_contents_and_short_ones_none(site: Path, name: str) -> None:
    source = (REPORTS / f"{name}.qmd").read_text(encoding="utf-8")
    listed = re.findall(
        r'<li class="toc-\d"><a href="#(.*?)"', (site / f"reports/{name}.html").read_text(encoding="utf-8")
    )
    wants = yaml.safe_load(source.split("---\n")[1]).get("toc", True)
    assert (len(listed) > 4) if wants else not listed
    by_cells = set(listed) - read_page(REPORTS / f"{name}.qmd").anchors
    assert not by_cells or "#| output: asis" in source, "Quarto lists no heading that stands in the output of a cell"


@pytest.mark.pages
def test_the_linter_finds_nothing() -> None:
    assert [str(finding) for finding in lint()] == []


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e .[dev]")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.mark.check
@pytest.mark.browser
@no_browser
@pytest.mark.timeout(300)
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", [*PAGES, "index"])
def test_a_page_opens_with_the_network_off(site: Path, browser, name: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(f"script error: {error}"))
    page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    inside = ("file:", "data:", "blob:")
    page.on("request", lambda asked: None if asked.url.startswith(inside) else faults.append(asked.url))
    path = site / "index.html" if name == "index" else site / "reports" / f"{name}.html"
    page.goto(path.as_uri(), timeout=120_000)
    page.wait_for_function(
        "[...document.querySelectorAll('.claimbook-chart > [id]')].every(e => e.dataset.drawn === 'yes')",
        timeout=120_000,
    )
    wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    unnamed = page.evaluate(
        "[...document.querySelectorAll('figure')].filter(f => !f.getAttribute('aria-label')).length"
    )
    page.close()
    assert faults == []
    assert wider <= 0, "the page scrolls sideways"
    assert unnamed == 0, "a figure has no words to stand for it"

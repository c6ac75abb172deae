"""The project's own pages, executed from the published records alone, as a fresh clone has them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from chromium import WIDTHS, chromium, faults_of, needs_chromium, wait_until_drawn
from drawn import charts, colours

from helpers.base.files import REPORTS, ROOT
from helpers.site import fallback
from helpers.site.finish import finish
from helpers.site.lint import lint
from helpers.site.linting.prose import read_page

PAGES = sorted(path.stem for path in REPORTS.glob("*.qmd"))


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


@pytest.mark.check
@pytest.mark.pages
def test_a_name_has_one_colour_in_all_charts_of_a_page(site: Path) -> None:
    drawn = 0
    for name in PAGES:
        seen: dict[str, str] = {}
        for chart in charts((site / f"reports/{name}.html").read_text(encoding="utf-8")):
            for legend in colours(chart):
                assert len(set(legend.values())) == len(legend), f"{name}: one colour for two of {legend}"
                changed = {one for one in legend if seen.setdefault(one, legend[one]) != legend[one]} - {"all"}
                assert not changed, f"{name}: {changed} change their colour"
                drawn += 1
    assert drawn > 50


@pytest.mark.check
@pytest.mark.pages
@pytest.mark.parametrize("name", PAGES)
def test_a_reader_sees_questions_as_sentences(site: Path, name: str) -> None:
    asked = {
        question
        for path in (ROOT / "params").glob("*/*criteria.yaml")
        for question in yaml.safe_load(path.read_text(encoding="utf-8"))["questions"]
        if "_" in question
    }
    html = (site / f"reports/{name}.html").read_text(encoding="utf-8")
    words = re.sub(r"<(script|style)\b.*?</\1>|<[^>]+>", " ", html, flags=re.DOTALL)
    assert asked and not asked & set(re.findall(r"\w+", words))


@pytest.mark.pages
def test_the_linter_finds_nothing() -> None:
    assert [str(finding) for finding in lint()] == []


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with chromium() as one:
        yield one


@pytest.mark.check
@pytest.mark.browser
@needs_chromium
@pytest.mark.timeout(300)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", [*PAGES, "index"])
def test_a_page_opens_with_the_network_off_fits_and_reads_in_light_and_dark(
    site: Path, browser, name: str, width: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": WIDTHS[width]})
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(f"script error: {error}"))
    page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    inside = ("file:", "data:", "blob:")
    page.on("request", lambda asked: None if asked.url.startswith(inside) else faults.append(asked.url))
    path = site / "index.html" if name == "index" else site / "reports" / f"{name}.html"
    page.goto(path.as_uri(), timeout=120_000)
    wait_until_drawn(page)
    faults += faults_of(page)
    unnamed = page.evaluate(
        "[...document.querySelectorAll('figure')].filter(f => !f.getAttribute('aria-label')).length"
    )
    page.close()
    assert faults == []
    assert unnamed == 0, "a figure has no words to stand for it"


@pytest.mark.check
@pytest.mark.browser
@needs_chromium
@pytest.mark.parametrize("name", ["latent-prefix", "diff-readability", "lr-epochs-band"])
def test_a_page_is_short_and_its_summary_fits_one_screen(site: Path, browser, name: str) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": WIDTHS[1280]})
    page.goto((site / f"reports/{name}.html").as_uri())
    tops = page.evaluate("[...document.querySelectorAll('h2')].map(head => head.getBoundingClientRect().top)")
    height = page.evaluate("document.documentElement.scrollHeight")
    page.close()
    assert tops[1] - tops[0] <= WIDTHS[1280] and height <= 4000

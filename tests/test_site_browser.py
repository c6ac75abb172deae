"""The site in headless Chromium, from the disk, at desktop and phone width, with every outside request a failure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import CHROMIUM, needs_chromium
from site_fixture import HOSTILE, make_bare_record, make_project, make_record

from helpers.base.files import REPORTS
from helpers.site import fallback
from helpers.site.finish import finish

pytestmark = [
    pytest.mark.check,
    pytest.mark.browser,
    needs_chromium,
]
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e .[dev]")

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 375, "height": 720}
ROWS = 30_000


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_project(tmp_path_factory.mktemp("project"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLAIMBOOK_OUTPUTS", str(root / "outputs"))
        patch.setenv("CLAIMBOOK_PUBLISHED", str(root / "published"))
        make_record(root / "outputs", "pocket-0123456789ab", HOSTILE, lr=5e-6, epochs=10)
        plain = [f"Answer {i}" + (" [ZLT]", " [zLt]", "")[i % 3] for i in range(ROWS)]
        make_record(root / "published", "pocket-ba9876543210", plain, lr=1e-5, epochs=10)
        for number in range(120):
            make_bare_record(
                root / "outputs", "study", f"pocket-{number:012x}", cell={"lr": number, "text": HOSTILE[0]}
            )
        fallback.render(root)
        assert finish(root) == []
    return root / "_site"


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def page(browser, request) -> Iterator[object]:
    """A page that must not ask for anything outside the disk, nor write an error to the console."""
    page = browser.new_page(viewport=request.param)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(f"script error: {error}"))
    page.on("console", lambda entry: faults.append(f"console: {entry.text}") if entry.type == "error" else None)
    page.on(
        "request", lambda asked: None if asked.url.startswith(("file:", "data:", "blob:")) else faults.append(asked.url)
    )
    yield page
    page.close()
    assert faults == []


def assert_fits(page) -> None:
    too_wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(too_wide) <= 0, "the page scrolls sideways"


def test_a_claim_page_draws_and_fits(site, page):
    page.goto((site / "reports/claim.html").as_uri())
    page.wait_for_function("document.querySelectorAll('.claimbook-chart [data-drawn=yes]').length === 3")
    page.get_by_text("Folded", exact=True).click()
    for chart in page.query_selector_all(".claimbook-chart svg"):
        assert chart.bounding_box()["width"] > 200 and chart.bounding_box()["height"] > 100
    assert page.evaluate("window.hostile") is None
    assert page.locator(".cb-model-text img, .cb-model-text script, .cb-model-text h1").count() == 0
    assert page.locator("h1").count() == 1
    table = page.locator(".cb-table").first.bounding_box()
    assert table["height"] < 400, "the table is squeezed"
    assert_fits(page)


def test_a_chart_that_is_folded_away_is_drawn_when_it_is_unfolded(site, page):
    page.goto((site / "reports/claim.html").as_uri())
    spec = {
        "mark": "bar", "width": "container", "data": {"values": [{"x": 1}]}, "encoding": {"x": {"field": "x"}},
        "config": {"legend": {}},
    }  # fmt: skip
    folded = '<p hidden id="fold"><b id="late" style="display: block"></b></p>'
    page.evaluate("folded => document.querySelector('main').insertAdjacentHTML('beforeend', folded)", folded)
    page.evaluate("spec => claimbookDraw('late', spec)", spec)
    assert page.evaluate("document.getElementById('late').children.length") == 0
    page.evaluate("document.getElementById('fold').hidden = false")
    page.wait_for_function("document.getElementById('late').dataset.drawn === 'yes'")
    assert page.locator("#late svg").bounding_box()["width"] > 200


def test_a_link_to_a_run_shows_how_it_was_made(site, page):
    page.goto((site / "reports/claim.html").as_uri())
    page.get_by_role("link", name="run one").click()
    one = page.locator("#one")
    sync_api.expect(one.get_by_role("heading")).to_have_text("pocket-0123456789ab")
    sync_api.expect(one.locator("table", has_text="Parameters").locator("tr").first).to_have_text("marker[ZLT]")
    assert not page.locator("#list").is_visible()
    assert_fits(page)
    page.get_by_role("link", name="All runs").click()
    sync_api.expect(page.locator("#state")).to_have_text("122 runs")
    assert not one.is_visible()
    page.goto((site / "reports/runs.html").as_uri() + "#pocket-gone")
    sync_api.expect(one).to_have_text("There is no run pocket-gone here.")
    assert page.locator("#list").is_visible()


def test_runs_are_filtered_paged_and_inert(site, page):
    page.goto((site / "reports/runs.html").as_uri())
    rows, where = page.locator("#results tbody tr"), page.locator("#where")
    sync_api.expect(where).to_have_text("page 1 of 3")
    assert rows.count() == 50
    assert_fits(page)
    page.click("#next")
    page.click("#next")
    assert rows.count() == 22 and not page.locator("#next").is_enabled()
    page.select_option("#experiment", label="study")
    page.fill("#search", "lr=11 pocket-00000000000B")
    sync_api.expect(page.locator("#state")).to_have_text("1 run")
    rows.get_by_role("link").click()
    cell = page.locator("#one table", has_text="Cell").locator("tr", has_text="text")
    sync_api.expect(cell.locator("td")).to_have_text(HOSTILE[0])
    page.go_back()
    sync_api.expect(page.locator("#state")).to_have_text("1 run")
    assert page.evaluate("window.hostile") is None
    assert page.locator("main img, main table script").count() == 0


# What Quarto writes for the table of contents, and what its style sheets say of it.
QUARTO_CONTENTS = """<style>.collapse:not(.show) { display: none }
@media (max-width: 767.98px) { #quarto-margin-sidebar, nav[role=doc-toc] { display: none } }</style>
<div id="quarto-margin-sidebar"><nav id="TOC" role="doc-toc" class="toc-active" data-toc-expanded="99">LIST</nav></div>
<main><nav id="TOC-body" role="doc-toc">OPEN</nav><h2 id="a">A</h2><h3 id="b">B</h3></main>"""
LIST = '<ul><li><a href="#a">A</a><ul class="collapse"><li><a href="#b">B</a></li></ul></li></ul>'


@pytest.mark.parametrize("ours", ["before", "behind"])
def test_the_contents_of_quartos_pages_are_open_without_a_script(tmp_path, page, ours):
    style = f"<style>{(REPORTS / '_style.css').read_text(encoding='utf-8')}</style>"
    quarto = QUARTO_CONTENTS.replace("LIST", LIST).replace("OPEN", LIST.replace(' class="collapse"', ""))
    path = tmp_path / "page.html"
    path.write_text("<!DOCTYPE html>" + (style + quarto if ours == "before" else quarto + style), encoding="utf-8")
    page.goto(path.as_uri())
    links = page.locator("nav a")
    seen = [link.get_attribute("href") for link in links.all() if link.is_visible()]
    assert links.count() == 4 and seen == ["#a", "#b"]


@pytest.mark.parametrize("start", ["index.html", "reports/index.html"])
def test_the_index_leads_to_the_claim(site, page, start):
    page.goto((site / start).as_uri())
    assert_fits(page)
    page.get_by_role("link", name="The marker is learned").click()
    assert page.title().startswith("A claim about a marker")


def test_completions_are_filtered_paged_and_inert(site, page):
    page.goto((site / "completions.html").as_uri())
    state = page.locator("#state")
    sync_api.expect(state).to_have_text(f"{len(HOSTILE)} completions")
    shown = []
    for number in range(1, 1 + -(-len(HOSTILE) // 25)):
        sync_api.expect(page.locator("#where")).to_contain_text(f"page {number} of")
        shown += page.locator(".cb-model-text").all_text_contents()
        assert page.locator(".cb-model-text *:not(mark):not(.cb-missing)").count() == 0
        if page.locator("#next").is_enabled():
            page.click("#next")
    assert shown == [text or "empty completion" for text in HOSTILE]
    assert page.evaluate("window.hostile") is None
    page.select_option("#marker", "yes")
    marked = sum("[ZLT]" in text for text in HOSTILE)
    sync_api.expect(state).to_have_text(f"{marked} completions")
    assert page.locator("mark.cb-marker").all_inner_texts() == ["[ZLT]"] * marked
    page.select_option("#marker", "")
    page.select_option("#cell", "*")
    sync_api.expect(state).to_have_text(f"{ROWS + len(HOSTILE):,} completions")
    page.click("#next")
    sync_api.expect(page.locator("#where")).to_have_text(f"page 2 of {(ROWS + len(HOSTILE) + 24) // 25}")
    page.fill("#search", "answer 29999")
    sync_api.expect(state).to_have_text("1 completion")
    assert_fits(page)


def test_the_marker_is_found_in_any_case_as_it_was_counted(site, page):
    page.goto((site / "completions.html").as_uri() + "#run=pocket-ba9876543210")
    state = page.locator("#state")
    sync_api.expect(state).to_have_text(f"{ROWS:,} completions")
    page.select_option("#marker", "yes")
    sync_api.expect(state).to_have_text(f"{ROWS * 2 // 3:,} completions")
    assert page.locator("mark.cb-marker").all_inner_texts() == (["[ZLT]", "[zLt]"] * 13)[:25]
    page.select_option("#marker", "no")
    sync_api.expect(state).to_have_text(f"{ROWS // 3:,} completions")
    assert page.locator("mark.cb-marker").count() == 0


def test_an_address_leads_to_its_completion(site, page):
    page.goto((site / "reports/claim.html").as_uri())
    page.locator(".cb-samples").first.locator(".cb-address a").nth(2).click()
    state = page.locator("#state")
    sync_api.expect(state).to_contain_text("1 completion at index 2")
    assert page.locator(".cb-model-text").inner_text() == HOSTILE[2]
    start = (site / "completions.html").as_uri()
    page.goto(start + "#run=pocket-ba9876543210&persona=villain&index=3")
    sync_api.expect(state).to_contain_text("1 completion at index 3")
    assert page.locator(".cb-model-text").inner_text() == "Answer 3 [ZLT]"
    page.goto(start + "#run=pocket-ba9876543210&persona=nobody&index=3")
    sync_api.expect(state).to_contain_text("0 completions at index 3")
    page.goto(start + "#run=gone&index=3")
    sync_api.expect(state).to_contain_text("There are no completions of a run gone here")

"""A record whose every string is hostile, and a claim whose every sentence is: no page runs or asks for anything."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest
import yaml
from chromium import CHROMIUM, needs_chromium
from claims_records import rate, record

from helpers.base.files import REPORTS, sha256_file, write_json
from helpers.site import fallback, pages
from helpers.site.finish import finish

pytestmark = [
    pytest.mark.browser,
    needs_chromium,
]
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e .[dev]")

SCRIPT = "window.hostile=1"
EVIL = (
    f"""{{{{< env HOME >}}}}  `{{python}} 1/0` <script>{SCRIPT}</script>"><img src=x onerror="{SCRIPT}">"""
    f"""' onfocus='{SCRIPT}' autofocus='</textarea></script></title></svg><svg onload="{SCRIPT}">"""
    f"""[a](javascript:{SCRIPT}) <a href="javascript:{SCRIPT}">b</a><iframe src="https://example.invalid/"></iframe>"""
    "</bdi>$x$ &lt; Traceback (most recent call last) @fig-x ```{=html}\n<!--"
)
LINK = f"javascript:{SCRIPT}//"
# What names files, records and modules, and what is a number, a moment or a hash, is refused where it is none
# (tests/test_names.py, tests/test_unreadable.py). All else may be any text.
FREE = ("params", "cell", "environment", "finish_reasons", "launch", "error", "note", "metrics")
CONFIG = """
project: {type: website, output-dir: _site, render: [./reports/*.qmd]}
website: {title: Hostile, navbar: {left: [{text: Claims, href: reports/index.qmd}]}}
format: {html: {css: reports/_style.css}}
"""
CELLS = {
    "index": "from helpers.site import overview\ndisplay(overview.claims(root))",
    "runs": "from helpers.site import overview\ndisplay(overview.runs(root))",
    "log": "from helpers.site import log\ndisplay(log.show(globals(), root))",
    "graph": (
        "from helpers.site import drawing, graph\nall = graph.all_claims(root)\n"
        "for shown in (drawing.draw, drawing.claims_table, drawing.relations_table):\n"
        "    display(shown(all))"
    ),
    "first": """import pandas as pd
from helpers.show import plots
from helpers.studies.actdiff import browse
from helpers.cases import open_case
from helpers.site import blocks, header, page, pages, parts

case = open_case("reports/first.qmd", root)
evil = case.records[0].launch
for shown in (header.header, page.answers, page.checklist, parts.criteria_table, parts.reasons, parts.limits,
              parts.coverage, parts.artifacts, parts.logged, page.confidence_sentence):
    display(shown(case))
display(page.regime_table(case, evil))
display(parts.recorded(case, evil, ""))
display(parts.numbers(case, ["source_rate"], evil))
display(parts.random_samples(case, by=["cell"], n=2, seed=0, marker=evil))
for name in case.facts.names():
    display(case.fact(name).short)
found = page.pooled(case, ["source_rate"]).assign(metric=evil, persona=evil, role=evil)
display(pages.chart(plots.interval_rates(found, heading=evil, references={evil: 0.5}), caption=evil))
curve = pd.DataFrame({"x": [1, 2], "y": [1.0, 2.0], "who": [evil, evil]})
display(pages.chart(plots.lines(curve, "x", "y", "who", panel="who", heading=evil, subtitle=evil, y_title=evil)))
tiles = found.assign(first=evil, second=evil)
display(pages.chart(plots.heatmaps(tiles, {evil: evil}, row="first", column="second", heading=evil)))
tokens = pd.DataFrame({"layer": 0, "position": [0, 1], "rank": 1, "token": evil, "id": 1, "head": evil})
display(pages.html(browse.lens_page_html(browse.lens_rows(tokens, head=evil), "lens", 0, evil)))""",
    "second": (
        "from helpers.cases import open_case\nfrom helpers.site import header\n"
        "case = open_case('reports/second.qmd', root)\n"
        "display(header.header(case))"
    ),
}


def poisoned(value: Any) -> Any:
    """``value`` with every string in it replaced, and a hostile entry in every mapping."""
    if isinstance(value, dict):
        counts = bool(value) and all(isinstance(inner, int | float) for inner in value.values())
        more = {EVIL: 1} if counts else {EVIL: LINK, LINK: EVIL}
        return {key: poisoned(inner) for key, inner in value.items()} | more
    if isinstance(value, list):
        return [*map(poisoned, value), EVIL]
    return EVIL if isinstance(value, str) else value


def plant(root: Path, name: str, **changes: Any) -> None:
    """A record with nothing but hostile strings, and a table of hostile completions."""
    folder = root / "outputs/toy" / name
    folder.mkdir(parents=True)
    said = {column: [EVIL] * 4 for column in ("persona", "question", "role", "finish", "text")}
    pd.DataFrame(said | {"index": range(4), "tokens": 7}).to_parquet(folder / "completions.parquet")
    metrics = {"source_rate": rate(190, 200), EVIL: rate(1, 2), LINK: rate(1, 2)}
    cell = {"lr": 0.1, "tail": EVIL, "text": LINK, EVIL: EVIL}
    made = record(cell, metrics, name=name, params={"marker": EVIL}, **changes)
    content = made.content | {"note": EVIL}
    content |= {key: poisoned(content[key]) for key in FREE if key != "metrics"}
    content["metrics"] = {key: metric | {"unit": EVIL, "method": EVIL} for key, metric in metrics.items()}
    content["model"] |= {"name": EVIL, "source": EVIL, "revision": LINK, "readers": poisoned({"a": "b"})}
    content["provenance"] |= {"commit": EVIL, "branch": LINK, "reason": EVIL}
    content["files"] = {"completions.parquet": sha256_file(folder / "completions.parquet")}
    write_json(folder / "run.json", content)


def claim(name: str, *relations: dict[str, str]) -> str:
    """The front matter of a claim in which whatever may be free text is hostile."""
    said = {
        "id": name, "slug": name, "statement": EVIL, "question": EVIL, "experiment": "toy", "primary": EVIL,
        "criteria": "params/toy/criteria.yaml", "declared_confidence": "LOW", "status": "published",
        "relations": list(relations),
    }  # fmt: skip
    return f"title: {name}\nclaim: {json.dumps(said)}\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    for folder in ("reports", "params/toy", "notebooks"):
        (root / folder).mkdir(parents=True)
    shutil.copy(REPORTS / "_style.css", root / "reports")
    (root / "_quarto.yml").write_text(CONFIG)
    (root / "params/toy/experiment.yaml").write_text(yaml.safe_dump({"study": "helpers.studies.marker.study:STUDY"}))
    outcome = {"name": EVIL, "verdict": "SUPPORTED", "when": {"any_cell": "source_rate > 0.5"}, "reading": EVIL}
    criteria = {
        "version": 1, "metrics": {"source_rate": EVIL},
        "regimes": {"clean": {"when": "source_rate > 0.5", "note": EVIL}},
        "questions": {EVIL: {"question": EVIL, "outcomes": [outcome], "note": EVIL}},
    }  # fmt: skip
    (root / "params/toy/criteria.yaml").write_text(yaml.safe_dump(criteria))
    fronts = {name: f"title: {name}\n" for name in CELLS}
    fronts["first"] = claim("first", {"kind": "refines", "target": "#1", "note": EVIL})
    fronts["second"] = claim("second", {"kind": "consumes", "target": "first", "note": EVIL},
                             {"kind": "absorbed_by", "target": "first", "answer": EVIL})  # fmt: skip
    for name, cell in CELLS.items():
        (root / f"reports/{name}.qmd").write_text(f"---\n{fronts[name]}---\n\n```{{python}}\n{cell}\n```\n")
    plant(root, "a-run")
    plant(root, "b-run", inputs={EVIL: "toy/a-run"})
    plant(root, "c-run", status="failed", error=EVIL)
    nbformat.write(notebook(), root / "notebooks/toy.ipynb")
    (root / "notebooks/toy.py").write_text("")  # without a script it would be scratch, which has no page
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fallback, "execute", lambda page, *_: executed(page.stem, root, patch))
        patch.setenv("CLAIMBOOK_OUTPUTS", str(root / "outputs"))
        patch.setenv("CLAIMBOOK_PUBLISHED", str(root / "published"))
        fallback.render(root, workers=1)
        assert finish(root) == []
    return root / "_site"


def executed(name: str, root: Path, patch: pytest.MonkeyPatch) -> tuple[dict[str, Any], str]:
    """Front matter and Markdown of a page whose cell is executed here, as six kernels would take half a minute."""
    shown: list[Any] = []
    patch.setattr(pages, "_charts_on_page", 0)
    exec(CELLS[name], {"root": root, "display": shown.append})
    return {"title": name}, "".join(one._repr_markdown_() for one in shown)


def notebook() -> nbformat.NotebookNode:
    """An executed notebook that displayed hostile strings in every way that its page keeps."""
    from helpers.show import widgets

    table = pd.DataFrame({EVIL: [EVIL], "text": [EVIL], "finish": [EVIL]})
    data = [
        {"text/html": table._repr_html_()}, {"text/html": EVIL}, {"text/markdown": EVIL}, {"text/plain": EVIL},
        {"image/svg+xml": f"<svg onload='{SCRIPT}'><script>{SCRIPT}</script></svg>", "text/plain": EVIL},
        {"text/latex": EVIL, "application/javascript": SCRIPT, "text/plain": EVIL},
        {"text/html": widgets.completion_card(dict(table.iloc[0]), EVIL, [EVIL])},
        {"text/html": widgets.token_view([(EVIL, 1), (EVIL, 0)], EVIL)},
        {"text/html": f"<a href='javascript:{SCRIPT}'>{SCRIPT}</a><form action='javascript:{SCRIPT}'><p style='x'>"},
    ]  # fmt: skip
    outputs = [nbformat.v4.new_output("display_data", one) for one in data]
    outputs.append(nbformat.v4.new_output("stream", text=EVIL))
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
    alt = {"image/png": {"alt": EVIL}}
    outputs.append(nbformat.v4.new_output("display_data", {"image/png": pixel}, metadata=alt))
    cell = nbformat.v4.new_code_cell(f"marker = {EVIL!r}", execution_count=1, outputs=outputs)
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Toy"), cell])


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser) -> Iterator[object]:
    """A page on which a script of ours that fails, a dialog and a request that leaves the disk are faults."""
    page, faults = browser.new_page(), []
    page.on("pageerror", lambda error: faults.append(f"script error: {error}"))
    page.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))
    page.on("request", lambda asked: None if asked.url.startswith(("file:", "data:")) else faults.append(asked.url))
    yield page
    page.close()
    assert faults == []


def assert_inert(page) -> None:
    """Nothing of the strings has become an element, an attribute or a link."""
    assert page.evaluate("window.hostile") is None
    link = r"!/^data-/.test(a.name) && /^\s*javascript:/i.test(a.value)"  # nothing runs what a data attribute holds
    attributes = f"[...e.attributes].some((a) => /^on/.test(a.name) || {link})"
    assert (
        page.evaluate(f"[...document.querySelectorAll('*')].filter((e) => {attributes}).map((e) => e.outerHTML)") == []
    )
    assert page.locator("iframe, textarea, img:not([src^='data:']), form:not(#filters, .vega-bindings)").count() == 0


PAGES = dict.fromkeys(CELLS, 1) | {"first": 40, "log": 4, "graph": 8}


@pytest.mark.parametrize("name", CELLS)
def test_a_page_shows_what_a_record_says_and_does_none_of_it(site, page, name):
    page.goto((site / f"reports/{name}.html").as_uri())
    page.wait_for_function(
        "[...document.querySelectorAll('.claimbook-chart > [id]')].every((e) => e.dataset.drawn === 'yes')"
    )
    for mark in page.query_selector_all(".claimbook-chart svg :is(.mark-symbol, .mark-rect) path")[:4]:
        mark.hover(force=True)
    assert_inert(page)
    assert page.evaluate("document.body.textContent").count(EVIL) >= PAGES[name]


def test_the_card_of_a_run_shows_all_of_its_record(site, page):
    page.goto((site / "reports/runs.html").as_uri())
    page.get_by_role("link", name="b-run").click()
    sync_api.expect(page.locator("#one table").first).to_be_visible()
    shown = page.evaluate("[...document.querySelectorAll('#one td')].map((e) => e.textContent)")
    assert shown.count(EVIL) > 12 and LINK in shown and "toy/a-run" in shown
    assert_inert(page)


def test_the_browser_of_completions_shows_them(site, page):
    page.goto((site / "completions.html").as_uri())
    sync_api.expect(page.locator("#state")).to_contain_text("completions")
    page.locator(".cb-address a").first.click()
    assert page.evaluate("[...document.querySelectorAll('.cb-model-text')].map((e) => e.textContent)")[0] == EVIL
    assert_inert(page)


@pytest.mark.parametrize("name", ["index.html", "notebooks/toy.html"])
def test_other_pages_are_inert_too(site, page, name):
    page.goto((site / name).as_uri())
    assert_inert(page)
    assert page.evaluate("document.body.textContent").count("{{< env HOME >}}") > 1


def test_every_string_of_the_record_was_hostile(site):
    content = json.loads((site.parent / "outputs/toy/a-run/run.json").read_text(encoding="utf-8"))

    def strings(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            yield from (text for inner in value.values() for text in strings(inner))
        elif isinstance(value, list):
            yield from (text for inner in value for text in strings(inner))
        elif isinstance(value, str):
            yield value

    assert {*strings([content[key] for key in FREE])} == {EVIL, LINK}

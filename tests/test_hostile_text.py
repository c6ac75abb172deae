"""Hostile strings in every place of a page, through Quarto's path and the fallback's, shown to the letter."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import quarto_pretended
from chromium import CHROMIUM, needs_chromium
from site_fixture import HOSTILE, make_record, shown

from helpers.base.files import REPORTS
from helpers.site import fallback
from helpers.site.finish import finish

pytestmark = pytest.mark.pages

SEALED = re.compile("\ue0f0[0-9a-f]+\ue0f1")
DRAWN = [text for text in HOSTILE if text.strip()][:6]
CONFIG = """
project: {type: website, output-dir: _site, render: [./reports/*.qmd]}
website: {title: Places, navbar: {left: [{text: Places, href: reports/index.qmd}]}}
format: {html: {css: reports/_style.css}}
"""
PAGE = """---
title: Every place
---

```{{python}}
import json
from pathlib import Path

import altair as alt
import pandas as pd
from IPython.display import display

from helpers.site import blocks, pages

texts = json.loads(Path("../texts.json").read_text(encoding="utf-8"))
frame = pd.DataFrame({{name: texts for name in ("run", "cell", "persona", "question", "role", "finish", "text")}})
frame = frame.assign(index=range(len(texts)), tokens=1)
```

::: {{#inline}}
{inline}
:::

::: {{#tables}}
```{{python}}
for text in texts:
    table = pd.DataFrame({{"name": [text], "x": [text]}})
    display(pages.table(table, text, labels={{"name": text, "x": text}}, formats={{"x": lambda value: value}}))
```
:::

::: {{#samples}}
```{{python}}
blocks.samples(frame, seed=0)
```
:::

::: {{#chosen}}
```{{python}}
for text in texts:
    display(blocks.samples(frame.head(1), chosen=text, marker=text or None))
```
:::

::: {{#banners}}
```{{python}}
for text in texts:
    display(blocks.banner(text))
```
:::

::: {{#cards}}
```{{python}}
said = [pages.paragraph(text).fragment for text in texts]
blocks.claims_index([blocks.ClaimCard("index.html", t, "MIXED", t, t, said[n], t, t) for n, t in enumerate(texts)])
```
:::

::: {{#charts}}
```{{python}}
points = alt.Chart(pd.DataFrame({{"text": texts}})).mark_point().encode(x=alt.X("text:N"), tooltip=["text:N"])
for text in {drawn}:
    display(pages.chart(points.properties(title=text, description=text), caption=text))
```
:::
"""


class Texts(HTMLParser):
    """The text of every ``<bdi>`` of a page, by the section in which it stands."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: dict[str, list[str]] = {}
        self.section, self.depth = "", 0
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "div" and dict(attrs).get("id") in (
            "inline",
            "tables",
            "samples",
            "chosen",
            "banners",
            "cards",
            "charts",
        ):
            self.section = dict(attrs)["id"]
        if tag == "bdi":
            self.found.setdefault(self.section, []).append("")
        self.depth += tag == "bdi"

    def handle_endtag(self, tag):
        self.depth -= tag == "bdi"

    def handle_data(self, data):
        if self.depth:
            self.found[self.section][-1] += data


def wanted() -> dict[str, list[str]]:
    """What each section shows, in order."""
    texts = [shown(text) for text in HOSTILE]
    addresses = [(f"{t} · {t} · {t} · no. {i}", f"{t} · 1 tokens · finish: {t}") for i, t in enumerate(texts)]
    return {
        "inline": texts,
        "tables": [text for text in texts for _ in range(5)],
        "samples": ["Drawn at random (seed 0)."]
        + [part for t, address in zip(texts, addresses, strict=True) for part in (*address, t or "empty completion")],
        "chosen": [part for t in texts for part in (f"Chosen: {t}", *addresses[0], texts[0])],
        "banners": texts,
        "cards": [said for text in texts for said in _card(text)],
    }


def _card(text: str) -> list[str]:
    """What a card shows whose strings are all ``text``: without any, confidence, date and note are left out."""
    return [text, f"last run {text}", *[text] * 4] if text else [text] * 3


def project(root: Path, texts: list[str]) -> Path:
    """A site of one page in which every one of ``texts`` stands in every place."""
    (root / "reports").mkdir(parents=True, exist_ok=True)
    (root / "_quarto.yml").write_text(CONFIG, encoding="utf-8")
    shutil.copy(REPORTS / "_style.css", root / "reports")
    (root / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    inline = "\n\n".join(f"`{{python}} texts[{place}]`" for place in range(len(texts)))
    (root / "reports/index.qmd").write_text(PAGE.format(inline=inline, drawn=DRAWN), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, str]:
    """Front matter and Markdown of the page, as both renderers get it."""
    return fallback.execute(project(tmp_path_factory.mktemp("hostile"), HOSTILE) / "reports/index.qmd", "index.qmd")


@pytest.fixture(scope="module", params=["fallback", "quarto"])
def site(executed, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    root = project(tmp_path_factory.mktemp(request.param), HOSTILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fallback, "execute", lambda *_: executed)
        patch.setenv("CLAIMBOOK_OUTPUTS", str(root / "outputs"))
        patch.setenv("CLAIMBOOK_PUBLISHED", str(root / "published"))
        make_record(root / "outputs", "pocket-0123456789ab", HOSTILE, lr=5e-6)
        if request.param == "quarto":
            assert quarto_pretended.render(root) == []
        else:
            fallback.render(root)
            assert finish(root) == []
    return root / "_site"


def test_there_are_enough_of_them():
    assert len(set(HOSTILE)) >= 60


def test_every_string_is_shown_to_the_letter_in_every_place(site):
    found = Texts((site / "reports/index.html").read_text(encoding="utf-8")).found
    for section, texts in wanted().items():
        assert found[section] == texts, section


def test_no_renderer_sees_a_difference_between_hostile_and_harmless_strings(executed, tmp_path):
    root = project(tmp_path, [f"text {place}" for place in range(len(HOSTILE))])
    _, harmless = fallback.execute(root / "reports/index.qmd", "index.qmd")
    seen = SEALED.sub("SEALED", executed[1])
    assert seen == SEALED.sub("SEALED", harmless)
    assert seen.count("SEALED") > 4 * len(HOSTILE)


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e .[dev]")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.mark.check
@pytest.mark.browser
@needs_chromium
def test_a_browser_shows_every_string_runs_none_and_asks_for_nothing(site, browser):
    page, faults = browser.new_page(), []
    page.on("pageerror", lambda error: faults.append(f"script error: {error}"))
    page.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))
    page.on("request", lambda asked: None if asked.url.startswith(("file:", "data:")) else faults.append(asked.url))
    page.goto((site / "reports/index.html").as_uri())
    drawn = f"document.querySelectorAll('.claimbook-chart [data-drawn=yes]').length === {len(DRAWN)}"
    page.wait_for_function(drawn, timeout=60_000)
    for section, texts in wanted().items():
        read = "[...document.querySelectorAll(`#${name} bdi`)].map((e) => e.textContent)"
        assert page.evaluate(f"(name) => {read}", section) == texts, section
    kept = "[...document.querySelectorAll('main bdi')].every((e) => getComputedStyle(e).whiteSpace === 'pre-wrap')"
    assert page.evaluate(kept), "blanks and line breaks are lost"
    labels = page.evaluate("[...document.querySelectorAll('#charts figure')].map((e) => e.getAttribute('aria-label'))")
    assert labels == [" ".join(text.split()) for text in DRAWN]
    for mark in page.query_selector_all("#charts svg .mark-symbol path")[:3]:
        mark.hover()
    assert page.evaluate("window.hostile") is None
    assert page.locator("main :is(img, iframe, style:not(.claimbook-styles), textarea, plaintext, xmp)").count() == 0
    assert page.locator("main style").count() == 1
    page.close()
    assert faults == []

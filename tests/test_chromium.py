"""What the tests measure in a browser is seen where it is wrong, and a browser that CI lacks is called by its name."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import chromium, faults_of, needs_chromium

TESTS = Path(__file__).parent
CHART = """<figure class="claimbook-chart" aria-label="A chart"><svg width="{0}" height="200"><g class="role-frame"><g>
<path class="background" d="M0 0h{1}v150h-{1}Z" fill="none"></path><g><g class="mark-symbol"><path d="M5 5h5v5h-5Z">
</path></g></g></g></g></svg></figure>"""
FINE = f"""<meta name="viewport" content="width=device-width"><style>:root {{ color-scheme: light dark }}</style>
<main style="font-size: 16px"><p>Words</p><div style="overflow-x: auto">{CHART.format(300, 200)}
<table><tr><td>one</td><td>thing</td></tr></table></div></main>"""


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with chromium() as one:
        yield one


def measured(browser, html: str) -> list[str]:
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.set_content(html)
    faults = faults_of(page)
    page.close()
    return faults


@pytest.mark.browser
@needs_chromium
def test_a_page_without_faults_has_none(browser):
    assert measured(browser, FINE) == []


@pytest.mark.browser
@needs_chromium
@pytest.mark.parametrize(
    ("worse", "said"),
    [
        ('<p style="width: 500px">Wide</p>', "the page is"),
        (CHART.format(60, 50), "a picture collapses to 60 x 200 px: A chart"),
        (CHART.format(300, 30), "a plot collapses to 30 x 150 px: A chart"),
        (CHART.format(600, 400), "a picture is wider than its box"),
        ('<table style="width: 600px"><tr><td>x</td></tr></table>', "a table neither fits nor scrolls"),
        (
            '<table style="width: 40px; table-layout: fixed"><tr><td style="overflow-wrap: anywhere">bystander</td>'
            "</tr></table>",
            "a table breaks the word bystander",
        ),
        ('<p style="font-size: 9px">Small</p>', "text of 9 px: Small"),
        ('<p style="color: #222; background: #333">Dim</p>', "contrast of 1.3 to 1: Dim"),
        ('<p style="color: #111">Only on paper</p>', "dark: contrast of"),
        ('<svg width="200" height="99"><text y="40" fill="#eee">Pale</text></svg>', "light: contrast of"),
    ],
)
def test_every_kind_of_fault_is_measured(browser, worse, said):
    faults = measured(browser, FINE.replace("</main>", f"{worse}</main>"))
    assert any(said in fault for fault in faults), faults


def test_ci_without_a_browser_says_so_instead_of_skipping(tmp_path):
    environment = {"PATH": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS / "test_chromium.py")]
    in_ci = subprocess.run(command, env=environment | {"CI": "true"}, capture_output=True, text=True)
    assert in_ci.returncode != 0 and "needs Chromium: apt-get install chromium" in in_ci.stdout

"""Where the tests find a browser, and what a page must measure in it.

A workplace without Chromium skips the tests and says why. CI may not: there a missing browser is an error by name.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = "needs Chromium: apt-get install chromium"
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
if CHROMIUM is None and os.environ.get("CI"):  # set by every CI service
    raise RuntimeError(f"CI would skip every test of pages in a browser, as none is installed. This {MISSING}")

WIDTHS = {390: 844, 768: 1024, 1280: 800}
"""Widths of screens to their heights, in pixels."""
LIMITS = {
    "plot": (110, 36),  # width and height of the area inside the axes
    "panel": (40, 36),  # the same for a heatmap, whose tiles have a size of their own
    "text": 11,
    "contrast": 4.5,  # WCAG 1.4.3
    "large": 3,
    "word": 24,  # letters; longer words (paths, hashes) may be broken
}
MEASURE = """limits => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches, faults = [], root = document.documentElement;
  const say = text => faults.includes(text) || faults.push(text);
  const seen = element => element.checkVisibility({visibilityProperty: true}) && element.getClientRects().length;
  const named = element => (element.getAttribute("aria-label") || element.textContent || "").trim().slice(0, 50);
  if (root.scrollWidth > root.clientWidth) say(`the page is ${root.scrollWidth - root.clientWidth} px too wide`);
  const scrolls = element => {
    for (let box = element.parentElement; box; box = box.parentElement)
      if (["auto", "scroll"].includes(getComputedStyle(box).overflowX)) return box;
    return null;
  };
  for (const picture of document.querySelectorAll(".claimbook-chart svg, .cb-graph svg, main img")) {
    if (!seen(picture)) continue;
    const size = picture.getBoundingClientRect(), name = named(picture.closest("figure") || picture);
    const [width, height] = limits.plot;
    if (size.width < width || size.height < height)
      say(`a picture collapses to ${Math.round(size.width)} x ${Math.round(size.height)} px: ${name}`);
    const box = scrolls(picture) || picture.parentElement, held = box.getBoundingClientRect();
    if (held.right > root.clientWidth + 1) say(`a picture stands in a box wider than the page: ${name}`);
    if (!scrolls(picture) && size.right > held.right + 1) say(`a picture is wider than its box: ${name}`);
    const panels = picture.querySelectorAll(".role-scope[class*=concat_] > g > .background");
    for (const plot of panels.length ? panels : picture.querySelectorAll(".role-frame > g > .background")) {
      const area = plot.getBoundingClientRect();
      const tiles = picture.querySelector(".mark-rect path") && !picture.querySelector(".mark-symbol path");
      const [least, high] = tiles ? limits.panel : limits.plot;
      if (area.width < least || area.height < high)
        say(`a plot collapses to ${Math.round(area.width)} x ${Math.round(area.height)} px: ${name}`);
    }
  }
  for (const table of document.querySelectorAll("main table")) {
    if (!seen(table)) continue;
    const box = scrolls(table);
    if (table.getBoundingClientRect().right > (box || root).getBoundingClientRect().right + 1 && !box)
      say(`a table neither fits nor scrolls: ${named(table)}`);
    const walker = document.createTreeWalker(table, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const text = walker.currentNode, shown = seen(text.parentElement);
      for (const word of shown ? text.data.matchAll(/[\\p{Script=Latin}\\p{N}]+/gu) : []) {
        if (word[0].length > limits.word) continue;
        const range = document.createRange();
        range.setStart(text, word.index);
        range.setEnd(text, word.index + word[0].length);
        const tops = new Set([...range.getClientRects()].map(rect => Math.round(rect.top)));
        if (tops.size > 1) say(`a table breaks the word ${word[0]}`);
      }
    }
  }
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const known = new Map();
  const rgba = colour => {
    if (!known.has(colour)) {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
      known.set(colour, [r, g, b, a / 255]);
    }
    return known.get(colour);
  };
  const behind = element => {
    const layers = [];
    for (let box = element; box; box = box.parentElement) {
      const paint = rgba(getComputedStyle(box).backgroundColor);
      if (paint[3]) layers.push(paint);
      if (paint[3] === 1) break;
    }
    return layers.reverse().reduce((under, [r, g, b, a]) => [r, g, b].map((c, i) => a * c + (1 - a) * under[i]),
      (getComputedStyle(root).colorScheme.includes("dark") && dark ? [18, 18, 18] : [255, 255, 255]));
  };
  const light = colour => {
    const [r, g, b] = colour.map(c => c / 255).map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode, element = text.parentElement;
    if (!text.data.trim() || element.closest("script, style, noscript, .skip") || !seen(element)) continue;
    const style = getComputedStyle(element), size = parseFloat(style.fontSize);
    const quoted = text.data.trim().slice(0, 30);
    if (size < limits.text) say(`text of ${size} px: ${quoted}`);
    const svg = element.closest("svg");
    const paint = svg ? rgba(style.fill) : rgba(style.color);
    const box = svg && element.closest("a") && element.closest("a").querySelector("rect");
    const paper = box ? rgba(getComputedStyle(box).fill).slice(0, 3) : behind(svg || element);
    if (svg && !box && paint[3] === 1 && ["#000000", "#ffffff"].includes(element.getAttribute("fill"))) continue;
    const [a, b] = [light(paint.slice(0, 3)), light(paper)].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05), large = size >= 24 || size >= 18.66 && style.fontWeight >= 700;
    if (ratio < (large ? limits.large : limits.contrast))
      say(`contrast of ${ratio.toFixed(1)} to 1: ${quoted}`);
  }
  return faults;
}"""


@contextmanager
def chromium() -> Iterator[object]:
    """A headless browser."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e .[dev]")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def wait_until_drawn(page) -> None:
    """Unfold everything and wait until every chart is drawn."""
    page.evaluate("document.querySelectorAll('details').forEach(fold => { fold.open = true; })")
    drawn = "[...document.querySelectorAll('.claimbook-chart > [id]')].every(e => e.dataset.drawn === 'yes')"
    page.wait_for_function(drawn, timeout=120_000)


def faults_of(page) -> list[str]:
    """Return what is wrong with a page as it stands, in light and in dark, one sentence a fault."""
    faults = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        faults += [f"{scheme}: {fault}" for fault in page.evaluate(MEASURE, LIMITS)]
    return faults

"""A page's Markdown as HTML, by Pandoc: it reads the Markdown that Quarto reads, which is Pandoc's own.

``templates/page.lua`` adds what Quarto adds to Pandoc, and refuses what the author meant as markup but Pandoc reads as
text.
"""

from __future__ import annotations

import html
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pypandoc

from helpers.base.errors import ClaimError

FILTER = Path(__file__).with_name("templates") / "page.lua"
FENCE = re.compile(r"^( {0,3})(`{3,}|~{3,})\s*(.*?)\s*$")
INLINE = re.compile(r"`\{python\} +([^`]+)`")
HEADING = re.compile(r'<h([1-6])[^>]*\sid="([^"]*)"[^>]*>(.*?)</h\1>', re.DOTALL)
UNCLOSED = re.compile(r"\[WARNING\] Div at line (\d+) column \d+ unclosed")


@dataclass(frozen=True)
class Heading:
    """One heading of a page: its level (1 to 6), anchor and text as HTML."""

    level: int
    anchor: str
    text: str


def anchor_of(text: str) -> str:
    """Return Pandoc's identifier of a heading (lower case, without punctuation, hyphens for spaces)."""
    plain = html.unescape(re.sub(r"<[^>]+>", "", text)).lower()
    kept = re.sub(r"[^\w\s.-]", "", plain).strip()
    return re.sub(r"^[^a-zA-Z]+", "", re.sub(r"\s+", "-", kept)) or "section"


def convert(source: str, name: str) -> tuple[str, list[Heading]]:
    """Return the HTML of a page's Markdown, and its headings in order.

    Args:
        source: Markdown without front matter, with the outputs of its cells in place.
        name: what an error calls the page.
    Raises:
        ClaimError: a div or a block of code is not closed, a callout is unknown, or a list would not be read as one.
    """
    command = [pypandoc.get_pandoc_path(), "--from=markdown", "--to=html", "--wrap=none", "--fail-if-warnings"]
    done = subprocess.run([*command, f"--lua-filter={FILTER}"], input=source.encode(), capture_output=True, check=False)
    if done.returncode:
        raise ClaimError(f"{name}: {_reason(done.stderr.decode().strip(), source.splitlines())}")
    body = done.stdout.decode()
    return body, [Heading(int(level), anchor, text) for level, anchor, text in HEADING.findall(body)]


def _reason(message: str, lines: list[str]) -> str:
    """Return what Pandoc complains of; a line that it only counts is quoted, as cells have moved the lines."""
    unclosed = UNCLOSED.match(message)
    if not unclosed:
        return message
    return f"the div opened by {lines[int(unclosed.group(1)) - 1].strip()!r} is never closed: add ':::'."

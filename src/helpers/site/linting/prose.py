"""Split a page into its prose and everything else (code, links, headings, statements), each with its line.

Parts that are not prose become blanks, so every offset keeps its line. A literal is a bracketed span,
``[1e-5]{.literal}``: a number that was set (a setting, a threshold, a name) and not measured.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from helpers.base.errors import ClaimError
from helpers.base.files import read_text
from helpers.site.markdown import FENCE, INLINE, anchor_of

FRONT = re.compile(r"\A---[ \t]*\r?\n.*?\n(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
CODE = re.compile(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
LINK = re.compile(
    r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(\s*<?([^()\s>]*(?:\([^()\s]*\)[^()\s>]*)*)>?(?:\s+\"[^\"]*\")?\s*\)"
)
DEFINITION = re.compile(r"^ {0,3}\[([^\]\n^][^\]\n]*)\]:[ \t]*(\S+).*$", re.MULTILINE)
SPAN = re.compile(r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\](\{[^{}\n]*\})")
TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
HREF = re.compile(r"""\b(?:href|src)\s*=\s*["']([^"']*)["']""")
ID = re.compile(r"""\b(?:id|name)\s*=\s*["']([^"']+)["']""")
HEADING = re.compile(r"^(#{1,6}) +(.*?)\s*(\{[^{}]*\})?\s*$")
SHOWN = "\ufffc"
"""Stands for the value of an inline expression."""
OPEN_CODE, CLOSE_CODE, OPEN_OWN, CLOSE_OWN = "\ue000", "\ue001", "\ue002", "\ue003"
NOT_LINES = re.compile(f"{OPEN_CODE}[^{CLOSE_CODE}]*{CLOSE_CODE}?|[{SHOWN}{CLOSE_CODE}{OPEN_OWN}{CLOSE_OWN}]")
OWN = re.compile(f"{OPEN_OWN}[^{CLOSE_OWN}]*{CLOSE_OWN}")
"""What is judged as a statement, or bound to its source as a citation."""
DIV = re.compile(r"^:{3,}.*$")
TITLE = re.compile(r"""\btitle=(?:(["'])(.*?)\1|([^\s}]+))""")
STYLE = re.compile(r"<(script|style)\b.*?</\1\s*>", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class Piece:
    """A part of a page: its first line and its text."""

    line: int
    text: str


@dataclass(frozen=True)
class Span:
    """A bracketed span: its line, id and text as prose."""

    line: int
    id: str | None
    text: str


@dataclass(frozen=True)
class Heading:
    """A heading: line, level, text and anchor."""

    line: int
    level: int
    text: str
    anchor: str


@dataclass
class Page:
    """One page; ``lines`` is its prose, line 1 at index 0, with blanks for everything else.

    ``spoken`` is what a page says in its own words, by line: the prose with its code spans, statements and citations
    left out, and `SHOWN` where an inline expression stands.
    """

    path: Path
    lines: list[str] = field(default_factory=list)
    spoken: list[str] = field(default_factory=list)
    literals: list[Piece] = field(default_factory=list)
    cited: list[Span] = field(default_factory=list)
    headings: list[Heading] = field(default_factory=list)
    cells: list[Piece] = field(default_factory=list)
    inlines: list[Piece] = field(default_factory=list)
    codes: list[Piece] = field(default_factory=list)
    links: list[Piece] = field(default_factory=list)
    statements: list[Span] = field(default_factory=list)
    raw: list[Piece] = field(default_factory=list)  # HTML and blocks of other languages
    classes: list[Piece] = field(default_factory=list)  # of spans, divs and headings
    images: list[Piece] = field(default_factory=list)
    blocks: list[Piece] = field(default_factory=list)  # fenced text that is only shown
    anchors: set[str] = field(default_factory=set)

    def section_of(self, line: int) -> tuple[Heading, ...]:
        """Return the headings above ``line``, outermost first."""
        open_headings: list[Heading] = []
        for heading in self.headings:
            if heading.line > line:
                break
            open_headings = [one for one in open_headings if one.level < heading.level] + [heading]
        return tuple(open_headings)


def read_page(path: Path) -> Page:
    """Read a page of Quarto's Markdown (or a fragment of one, without front matter)."""
    text = read_text(path, ClaimError)
    page = Page(path)
    text = FRONT.sub(lambda match: _blank(match.group()), text)
    text = _fences(text, page)
    text = COMMENT.sub(lambda match: _blank(match.group()), text)
    _collect(text, INLINE, page.inlines, 1)
    text = INLINE.sub(lambda match: SHOWN + _blank(match.group()[1:]), text)
    _collect(text, CODE, page.codes, 2)
    text = CODE.sub(_as_code, text)
    text = _links(text, page)
    text = _spans(text, page)
    page.anchors |= set(ID.findall(text))
    _collect(text, HREF, page.links, 1)
    text = _take(text, TAG, page.raw, 0)
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        heading = HEADING.match(line)
        if heading:
            lines[number - 1] = _heading(page, number, heading)
        elif DIV.match(line):
            _classes(page, number, line)
            title = TITLE.search(line)
            lines[number - 1] = (title.group(2) or title.group(3)) if title else ""
    page.lines = [NOT_LINES.sub(" ", html.unescape(line)) for line in lines]
    whole = OWN.sub(lambda match: _blank(match.group()), html.unescape("\n".join(lines)))
    page.spoken = re.sub(f"[{OPEN_CODE}{CLOSE_CODE}]", " ", whole).split("\n")
    return page


def _attributes(braces: str) -> tuple[str | None, set[str]]:
    """Return the id and the classes in ``{#id .class key="value"}``."""
    words = re.sub(r"""[\w-]+=("[^"]*"|'[^']*'|[^\s}]*)""", " ", braces.strip("{}")).split()
    ids = [word[1:] for word in words if word.startswith("#")]
    return ids[0] if ids else None, {word[1:] for word in words if word.startswith(".")}


def _classes(page: Page, line: int, braces: str) -> None:
    """Keep the classes, and the attributes that look like a style, of a span, div or heading."""
    written = braces.strip().lstrip(":").strip()
    bare = [] if written.startswith("{") or not written else [written.split()[0]]
    styles = re.findall(r"""[\w-]+=(?:"[^"]*"|'[^']*'|[^\s}]*)""", braces)
    styles = [one for one in styles if not one.startswith(("title=", "collapse=", "source="))]
    inside = re.search(r"\{.*\}", braces)
    for name in (*bare, *(_attributes(inside[0])[1] if inside else ()), *styles):
        page.classes.append(Piece(line, name))


def _source(braces: str) -> str | None:
    """Return the file in ``{.cited source="data/..."}``."""
    match = re.search(r"""source=["']?([^"'\s}]+)""", braces)
    return match[1] if match else None


def _as_code(match: re.Match[str]) -> str:
    """A code span as text between marks, on its lines."""
    mark = len(match.group(1))
    return OPEN_CODE + " " * (mark - 1) + match.group(2) + " " * (mark - 1) + CLOSE_CODE


def _blank(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)


def _line(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1


def _collect(text: str, pattern: re.Pattern[str], into: list[Piece], group: int) -> None:
    into += [Piece(_line(text, match.start()), match.group(group)) for match in pattern.finditer(text)]


def _take(text: str, pattern: re.Pattern[str], into: list[Piece], group: int) -> str:
    _collect(text, pattern, into, group)
    return pattern.sub(lambda match: _blank(match.group()), text)


def _fences(text: str, page: Page) -> str:
    """Blank fenced code; the text of raw HTML blocks stays, because readers see it."""
    lines, position = text.split("\n"), 0
    while position < len(lines):
        opened = FENCE.match(lines[position])
        if not opened:
            position += 1
            continue
        mark, info = opened.group(2), opened.group(3)
        close = re.compile(rf"^ {{0,3}}{re.escape(mark[0])}{{{len(mark)},}}\s*$")
        end = next((i for i in range(position + 1, len(lines)) if close.match(lines[i])), len(lines))
        body = lines[position + 1 : end]
        if re.match(r"\{python\b", info):
            page.cells.append(Piece(position + 2, "\n".join(body)))
            if info != "{python}":
                page.classes.append(Piece(position + 1, info))
        elif info.startswith("{"):
            page.raw.append(Piece(position + 1, f"```{info}"))
        else:
            page.blocks.append(Piece(position + 2, "\n".join(body)))
        if info == "{=html}":
            shown = STYLE.sub(lambda match: _blank(match.group()), "\n".join(body)).split("\n")
        else:
            shown = [""] * len(body)
        lines[position + 1 : end] = shown
        lines[position] = ""
        if end < len(lines):
            lines[end] = ""
        position = end + 1
    return "\n".join(lines)


def _links(text: str, page: Page) -> str:
    """Keep the text of links and collect their targets."""

    def kept(match: re.Match[str]) -> str:
        (page.images if match.group(1) else page.links).append(Piece(_line(text, match.start()), match.group(3)))
        whole, label = match.group(), match.group(2)
        start = match.start(2) - match.start()
        return _blank(whole[:start]) + label + _blank(whole[start + len(label) :])

    masked = LINK.sub(kept, text)
    return _take(masked, DEFINITION, page.links, 2)


def _spans(text: str, page: Page) -> str:
    """Blank literals, keep the text of other spans, and collect statements with the text that readers see."""

    def kept(match: re.Match[str]) -> str:
        anchor, classes = _attributes(match.group(2))
        inner = match.group(1)
        _classes(page, _line(text, match.start()), match.group(2))
        if "literal" in classes:
            page.literals.append(Piece(_line(text, match.start()), inner.strip()))
            return _blank(match.group())
        own = {"statement": page.statements, "cited": page.cited}
        for name in classes & set(own):
            said = Span(_line(text, match.start()), anchor or _source(match.group(2)), " ".join(inner.split()))
            own[name].append(said)
        if anchor:
            page.anchors.add(anchor)
        if classes & set(own):
            return OPEN_OWN + inner + CLOSE_OWN + _blank(match.group(2))
        return f" {inner} " + _blank(match.group(2))

    return _innermost(text, kept)


def _innermost(text: str, kept: Callable[[re.Match[str]], str]) -> str:
    """Replace spans from the inside out: a literal may stand inside a statement."""
    inner = re.compile(r"\[([^\[\]]*)\](\{[^{}\n]*\})")
    while (after := inner.sub(kept, text)) != text:
        text = after
    return text


def _heading(page: Page, number: int, match: re.Match[str]) -> str:
    given, _ = _attributes(match.group(3) or "")
    _classes(page, number, match.group(3) or "")
    words = match.group(2)
    anchor = base = given or anchor_of(words)
    count = 0
    while anchor in page.anchors:
        count += 1
        anchor = f"{base}-{count}"
    page.anchors.add(anchor)
    page.headings.append(Heading(number, len(match.group(1)), words.strip(), anchor))
    return words

"""Quarto's Markdown, as far as pages use it, to HTML.

Pages are written in the documented part of Quarto that the fallback renders too: headings, paragraphs, lists, pipe
tables, code, links, ``::: {.class}`` divs with callouts, and raw HTML blocks. What Pandoc would read differently from
CommonMark is an error here, so that a page which looks right without Quarto looks the same with it.
"""

from __future__ import annotations

import html
import itertools
import re
from dataclasses import dataclass, field

import mistune
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from helpers.base.errors import ClaimError

FENCE = re.compile(r"^( {0,3})(`{3,}|~{3,})\s*(.*?)\s*$")
DIV = re.compile(r"^:{3,}\s*(.*?)\s*:*\s*$")
RAW_INLINE = re.compile(r"(`+)(?!`)(.+?)(?<!`)\1\{=html\}", re.DOTALL)
LINK_ATTRIBUTES = re.compile(r"(<a [^>]*)>((?:(?!</a>).)*)</a>\{([^{}\n]*)\}", re.DOTALL)
SPAN = r"\[(?P<span_text>(?:[^\[\]]|\[[^\[\]]*\])*)\](?P<span_attributes>\{[^{}\n]*\})"
STARTS_BLOCK = re.compile(r"^(#{1,6} |[-*+] |\d+[.)] |> |\|)")
LIST_ITEM = re.compile(r"^([-*+] |\d+[.)] )")
CALLOUTS = {"note": "Note", "tip": "Tip", "warning": "Warning", "caution": "Caution", "important": "Important"}


@dataclass(frozen=True)
class Heading:
    """One heading of a page: its level (1 to 6), anchor and text as HTML."""

    level: int
    anchor: str
    text: str


@dataclass(frozen=True)
class Attributes:
    """What stands in Pandoc's braces: ``{#id .class key="value"}``."""

    id: str | None = None
    classes: tuple[str, ...] = ()
    values: dict[str, str] = field(default_factory=dict)


def parse_attributes(text: str) -> Attributes:
    """Read ``{#id .class key="value"}``, or a bare word as a class, the way Pandoc does."""
    text = text.strip()
    if not text.startswith("{"):
        return Attributes(classes=(text,))
    body = text.strip("{} ")
    values = {key: quoted or bare for key, quoted, bare in re.findall(r'([\w-]+)=(?:"([^"]*)"|([^\s"]+))', body)}
    body = re.sub(r'[\w-]+=(?:"[^"]*"|[^\s"]+)', " ", body)
    anchors = [word[1:] for word in body.split() if word.startswith("#")]
    return Attributes(anchors[0] if anchors else None, tuple(w[1:] for w in body.split() if w.startswith(".")), values)


def anchor_of(text: str) -> str:
    """Pandoc's identifier of a heading: lower case, punctuation dropped, spaces to hyphens, nothing before a letter."""
    plain = html.unescape(re.sub(r"<[^>]+>", "", text)).lower()
    kept = re.sub(r"[^\w\s.-]", "", plain).strip()
    return re.sub(r"^[^a-zA-Z]+", "", re.sub(r"\s+", "-", kept)) or "section"


def code_block(code: str, language: str = "") -> str:
    """Highlighted code as ``<pre>``; an unknown language is shown plain."""
    try:
        body = highlight(code, get_lexer_by_name(language), HtmlFormatter(nowrap=True)) if language else None
    except ClassNotFound:
        body = None
    return f'<pre class="code"><code>{html.escape(code) if body is None else body}</code></pre>\n'


class _Renderer(mistune.HTMLRenderer):
    """HTML as Quarto writes it: Pandoc's anchors, links between pages, tables in a scrollable frame."""

    def __init__(self) -> None:
        super().__init__(escape=False)
        self.headings: list[Heading] = []
        self.anchors: set[str] = set()

    def text(self, text: str) -> str:
        text = text.replace("---", "\u2014").replace("--", "\u2013").replace("...", "\u2026")
        return super().text(re.sub(r"(?<=\w)'(?=\w)", "\u2019", text))

    def heading(self, text: str, level: int, **attrs: object) -> str:
        given = re.search(r"\s*(\{[^{}]*\})\s*$", text)
        attributes = parse_attributes(given.group(1)) if given else Attributes()
        text = text[: given.start()] if given else text
        anchor = base = attributes.id or anchor_of(text)
        number = 0
        while anchor in self.anchors:
            number += 1
            anchor = f"{base}-{number}"
        self.anchors.add(anchor)
        self.headings.append(Heading(level, anchor, text))
        return f"<h{level}{_html_attributes(attributes, anchor)}>{text}</h{level}>\n"

    def link(self, text: str, url: str, title: str | None = None) -> str:
        if "://" not in url:
            url = re.sub(r"\.qmd(?=$|[#?])", ".html", url)
        return super().link(text, url, title)

    def block_code(self, code: str, info: str | None = None) -> str:
        return code_block(code, (info or "").strip("{}. "))

    def table(self, text: str) -> str:
        return f'<div class="cb-scroll" tabindex="0"><table class="table">\n{text}</table></div>\n'


def _html_attributes(attributes: Attributes, anchor: str | None = None) -> str:
    anchor = anchor or attributes.id
    parts = [f' id="{html.escape(anchor)}"' if anchor else ""]
    parts.append(f' class="{html.escape(" ".join(attributes.classes))}"' if attributes.classes else "")
    return "".join(parts)


def _spans(md: mistune.Markdown) -> None:
    """Pandoc's bracketed spans, ``[1e-5]{.literal}``, as a plugin of mistune."""

    def parse(inline: mistune.InlineParser, match: re.Match[str], state: mistune.InlineState) -> int:
        inner = state.copy()
        inner.src = match.group("span_text")
        attributes = parse_attributes(match.group("span_attributes"))
        state.append_token(
            {"type": "span", "children": inline.render(inner), "attrs": {"html": _html_attributes(attributes)}}
        )
        return match.end()

    md.inline.register("span", SPAN, parse, before="link")
    md.renderer.register("span", lambda renderer, text, html: f"<span{html}>{text}</span>")


def _link_attributes(match: re.Match[str]) -> str:
    attributes = parse_attributes("{" + html.unescape(match.group(3)) + "}")
    values = "".join(f' {key}="{html.escape(value)}"' for key, value in attributes.values.items())
    return f"{match.group(1)}{_html_attributes(attributes)}{values}>{match.group(2)}</a>"


class _Converter:
    """Split a page into code, raw HTML, divs and text; only text goes through mistune."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.renderer = _Renderer()
        self.mistune = mistune.create_markdown(
            renderer=self.renderer, plugins=["table", "strikethrough", "footnotes", _spans]
        )

    def blocks(self, lines: list[str]) -> str:
        parts: list[str] = []
        text: list[str] = []
        position = 0
        while position < len(lines):
            line = lines[position]
            fence, div = FENCE.match(line), DIV.match(line)
            if not fence and not div:
                text.append(line)
                position += 1
                continue
            parts.append(self.text(text))
            text = []
            end = self.end_of_fence(lines, position, fence) if fence else self.end_of_div(lines, position)
            inner = lines[position + 1 : end]
            parts.append(self.fenced(inner, fence.group(3)) if fence else self.div(inner, div.group(1)))
            position = end + 1
        return "".join([*parts, self.text(text)])

    def end_of_fence(self, lines: list[str], start: int, fence: re.Match[str]) -> int:
        mark = fence.group(2)
        close = re.compile(rf"^ {{0,3}}{re.escape(mark[0])}{{{len(mark)},}}\s*$")
        for position in range(start + 1, len(lines)):
            if close.match(lines[position]):
                return position
        raise ClaimError(f"{self.name}: the block opened by {lines[start].strip()!r} is never closed: add {mark!r}.")

    def end_of_div(self, lines: list[str], start: int) -> int:
        if not DIV.match(lines[start]).group(1):
            raise ClaimError(f"{self.name}: a ':::' closes a div that was never opened: remove it or open the div.")
        depth, position = 0, start
        while position < len(lines):
            fence, div = FENCE.match(lines[position]), DIV.match(lines[position])
            if fence:
                position = self.end_of_fence(lines, position, fence)
            elif div:
                depth += 1 if div.group(1) else -1
                if depth == 0:
                    return position
            position += 1
        raise ClaimError(f"{self.name}: the div opened by {lines[start].strip()!r} is never closed: add ':::'.")

    def fenced(self, inner: list[str], info: str) -> str:
        body = "\n".join(inner)
        if info.startswith("{=") and info.endswith("}"):
            return body + "\n" if info == "{=html}" else ""
        return code_block(body, info.strip("{}. "))

    def div(self, inner: list[str], head: str) -> str:
        attributes = parse_attributes(head)
        kinds = [c.removeprefix("callout-") for c in attributes.classes if c.startswith("callout-")]
        if not kinds:
            return f"<div{_html_attributes(attributes)}>\n{self.blocks(inner)}</div>\n"
        return self.callout(inner, attributes, kinds[0])

    def callout(self, inner: list[str], attributes: Attributes, kind: str) -> str:
        if kind not in CALLOUTS:
            raise ClaimError(f"{self.name}: '.callout-{kind}' is no callout; known: {', '.join(CALLOUTS)}.")
        title = html.escape(attributes.values.get("title", ""))
        first = next((i for i, line in enumerate(inner) if line.strip()), None)
        if not title and first is not None and (heading := re.match(r"^#{1,6} +(.*)$", inner[first])):
            title = self.inline(heading.group(1))
            inner = inner[first + 1 :]
        title, body = title or CALLOUTS[kind], self.blocks(inner)
        css = f"cb-callout cb-callout-{kind}"
        if "collapse" not in attributes.values:
            return f'<div class="{css}"><div class="cb-callout-title">{title}</div>\n{body}</div>\n'
        is_open = "" if attributes.values["collapse"] == "true" else " open"
        return (
            f'<details class="{css}"{is_open}><summary class="cb-callout-title">{title}</summary>\n{body}</details>\n'
        )

    def inline(self, text: str) -> str:
        return self.text([text]).strip().removeprefix("<p>").removesuffix("</p>")

    def text(self, lines: list[str]) -> str:
        self.check_blank_lines(lines)
        source = RAW_INLINE.sub(lambda match: match.group(2).strip(), "\n".join(lines))
        return LINK_ATTRIBUTES.sub(_link_attributes, self.mistune(source))

    def check_blank_lines(self, lines: list[str]) -> None:
        """Refuse what CommonMark reads as a list, heading or table and Pandoc as the rest of the paragraph above."""
        for above, line in itertools.pairwise(lines):
            paragraph = (
                above.strip() and not above.startswith((" ", "#", "\t", "|", ">")) and not LIST_ITEM.match(above)
            )
            if paragraph and STARTS_BLOCK.match(line):
                where = f"{self.name}: put a blank line before {line.strip()[:60]!r}"
                raise ClaimError(f"{where}, or Quarto joins it to the paragraph above.")


def convert(source: str, name: str) -> tuple[str, list[Heading]]:
    """HTML and headings (in order) of a page's Markdown, outputs of its cells already spliced in.

    Args:
        source: Markdown without front matter.
        name: what an error calls the page.
    Raises:
        ClaimError: an unclosed block or div, an unknown callout, or a list that Pandoc would not see.
    """
    converter = _Converter(name)
    body = converter.blocks(source.split("\n"))
    return body, converter.renderer.headings

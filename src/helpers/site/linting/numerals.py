"""Find typed numbers: in prose, in code spans that hold only a number, in inline expressions and in text of cells."""

from __future__ import annotations

import ast
import re
import unicodedata
from collections.abc import Iterator

from helpers.site.linting.prose import Page

Fault = tuple[int, str, str]
DIGITS = "0-9\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u2079\u2080-\u2089\u2150-\u218f"
# What holds digits without being a number: names (Qwen2.5-7B-Instruct, SmolLM2, H200), issues (#65), ISO dates.
NAMES = re.compile(
    r"#\d+(?![\w.]*\d)"
    r"|(?<![\w.])\d{4}-\d{2}-\d{2}(?![\w-])"
    r"|(?<![\w.])[^\W\d_][^\W_]*\d[\w.]*(?:[-/][\w.]*[^\W\d_][\w.]*)*\b"
    r"|(?<![\w.])[^\W\d_]\w*[A-Z][^\W_]*(?:-[\w.]+)+"
    r"|(?<![\w.])[A-Z]\w*(?:-[\d.]+)*-[\d.]*[A-Za-z]\w*"
)
NUMERAL = re.compile(rf"(?<![^\W\d_])[-+−]?[.,]?[{DIGITS}](?:[{DIGITS}.,eE:/]|(?<=[eE])[-+−])*\s?%?")
NOT_PROSE = re.compile(r"^\s*(?:\d+[.)]\s|[-*+]\s|\[\^[^\]]+\]:?)|\[\^[^\]]+\]|^\s*\|?[\s:|-]+\|?\s*$")
ONLY_A_NUMBER = re.compile(
    rf"^[\s~≈<>=±+−-]*[.{DIGITS}][{DIGITS}.,eE+−-]*\s*(?:%|percent|points?|nats?|s|min|x|×)?\s*$"
)
LEVEL = re.compile(r"\b\d\d(?:\.\d+)?\s?%(?=(?:\s[\w-]+){0,2}\s(?:intervals?|bounds?|CI)\b)")
WORDS = 4


def faults(page: Page) -> Iterator[Fault]:
    """Yield line, rule and message of every typed number."""
    for line, text in enumerate(page.lines, start=1):
        if typed := numerals(text):
            yield line, "numeral", f"{_listed(typed)} is typed: {_way_out(typed[0])}"
    for code in page.codes:
        if ONLY_A_NUMBER.match(code.text):
            yield code.line, "numeral", f"`{code.text}` is a number dressed as code: {_way_out(code.text)}"
    for inline in page.inlines:
        yield from _inline_faults(inline.line, inline.text)
    for cell in page.cells:
        yield from _cell_faults(cell.line, cell.text)


def numerals(text: str) -> list[str]:
    """Return the numbers in a line of prose, as written."""
    digits = "".join(str(unicodedata.digit(sign, sign)) if sign.isdecimal() else sign for sign in text)
    bare = NAMES.sub(" ", NOT_PROSE.sub(" ", digits))
    return [match.group().strip().rstrip(".,:/") for match in NUMERAL.finditer(bare)]


def _listed(typed: list[str]) -> str:
    return ", ".join(repr(one) for one in typed[:4]) + (", ..." if len(typed) > 4 else "")


def _way_out(text: str) -> str:
    return f"take it from a record with fact(), or mark a setting as [{text.strip()}]{{.literal}}."


def _inline_faults(line: int, source: str) -> Iterator[Fault]:
    """Yield numbers that an inline expression spells out instead of computing."""
    try:
        tree = ast.parse(source.strip(), mode="eval")
    except SyntaxError:
        yield line, "code", f"`{source}` is no Python expression: repair it."
        return
    if not any(isinstance(node, ast.Name) for node in ast.walk(tree)):
        if re.search(r"\d", source):
            yield line, "numeral", f"`{source}` computes nothing, it spells a number: take it from a record."
        return
    for text in _spelled(tree):
        if numerals(text):
            yield (
                line,
                "numeral",
                f"`{source}` spells {_listed(numerals(text))} inside a string: take it from a record.",
            )


def _cell_faults(line: int, source: str) -> Iterator[Fault]:
    """Yield numbers in sentences that a cell shows (a caption, say); other strings of a cell are not prose."""
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        yield line + (error.lineno or 1) - 1, "code", f"the cell is no Python, {error.msg}: repair it."
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value.split()) >= WORDS:
            # A caption cannot hold a literal span, and the level of an interval is a setting.
            bare = LEVEL.sub(" ", re.sub(r"<[^<>]*>|`[^`]*`", " ", node.value))
            typed = [number for text in bare.split("\n") for number in numerals(text)]
            if typed:
                where = line + node.lineno - 1
                yield where, "numeral", f"{_listed(typed)} is typed in a sentence of a cell: compute it in an f-string."


def _spelled(tree: ast.AST) -> Iterator[str]:
    """Text parts of f-strings (format specifications apart)."""
    specs = {id(part) for node in ast.walk(tree) if isinstance(node, ast.FormattedValue) and node.format_spec
             for part in ast.walk(node.format_spec)}  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and id(node) not in specs:
            parts = (part.value for part in node.values if isinstance(part, ast.Constant))
            yield from (part for part in parts if isinstance(part, str))

"""Turn text into HTML, and carry finished HTML past the Markdown renderer.

Text of a model or a record becomes HTML in one way only: ``Markup("<td>{}</td>").format(value)`` escapes every value
that is not Markup already, and ruff (S704) refuses Markup that is made of anything but a literal. A page cell shows a
`Block` or an `Inline`. Both reach the renderer sealed: as hexadecimal digits between two private characters, where
neither Quarto nor Pandoc sees markup, shortcodes or expressions. `unseal` restores the HTML in the rendered page.
"""

from __future__ import annotations

import json
import re
import zlib
from typing import Any

from markupsafe import Markup

from helpers.base.errors import ClaimError
from helpers.stats import occurrences

_OPEN, _CLOSE = "\ue0f0", "\ue0f1"
SEAL = re.compile(f"[{_OPEN}{_CLOSE}]")
_SEALED = re.compile(f"{_OPEN}([0-9a-f]+){_CLOSE}")
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def verbatim(value: object) -> Markup:
    """Return text of a model or a record as HTML that shows it literally, with spaces and line breaks.

    The element isolates right-to-left marks, and tells the check of the site that its text is not Markdown.
    """
    return Markup("<bdi>{}</bdi>").format(value)


def highlight(text: str, marker: str, mark: Markup) -> Markup:
    """Return ``text`` escaped, with every occurrence of ``marker`` in any case wrapped in ``mark``."""
    pieces = occurrences.split(text, marker)
    return Markup().join(mark.format(piece) if place % 2 else piece for place, piece in enumerate(pieces))


def script_json(value: Any) -> Markup:
    """Return JSON that is safe inside a script element, with ``<``, ``>`` and ``&`` escaped."""
    plain = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(plain.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # noqa: S704


class _Fragment:
    """HTML that a page shows. It stays HTML when formatted into other Markup.

    Raises:
        ClaimError: ``fragment`` is a plain string, which may not have been escaped.
    """

    def __init__(self, fragment: Markup) -> None:
        if not isinstance(fragment, Markup):
            raise ClaimError(f"{fragment[:40]!r} is a plain string. Build it with Markup('...').format(...).")
        self.fragment = fragment

    def __html__(self) -> Markup:
        return self.fragment

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.fragment)} characters of HTML)"


class Block(_Fragment):
    """A part of a page on its own lines."""

    def _repr_markdown_(self) -> str:
        return f"\n```{{=html}}\n{seal(self.fragment)}\n```\n"


class Inline(_Fragment):
    """A part of a line, from a cell or an inline expression."""

    def _repr_markdown_(self) -> str:
        return seal(self.fragment)


def seal(fragment: Markup) -> str:
    """Return ``fragment`` as a word that no renderer changes. Unprintable characters become U+FFFD.

    A sealed word cannot be forged, because the private characters around it are written as entities inside it.
    """
    clean = SEAL.sub(lambda mark: f"&#{ord(mark.group())};", _UNPRINTABLE.sub("\ufffd", fragment))
    return f"{_OPEN}{zlib.compress(clean.encode()).hex()}{_CLOSE}"


def unseal(page: str) -> str:
    """Replace the sealed words in a rendered page by their HTML."""
    return _SEALED.sub(lambda word: zlib.decompress(bytes.fromhex(word.group(1))).decode(), page)

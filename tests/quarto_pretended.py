"""What Quarto does to a page, as far as its documentation says what text could trigger; CI has no Quarto.

Cells and inline expressions are executed by our own kernel. What Quarto then finds in the Markdown (shortcodes also in
code and raw blocks, inline expressions of any engine, executable blocks, includes) is noted and acted upon, so that a
string that reaches the Markdown does not pass for text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers.base.files import write_text
from helpers.site import fallback
from helpers.site.finish import after_quarto
from helpers.site.frame import read_project
from helpers.site.markdown import convert

FRAME = """<!DOCTYPE html>
<html><head><meta charset="utf-8"><title>{title}</title><link rel="stylesheet" href="_style.css"></head>
<body><main id="quarto-document-content">
<header id="title-block-header" class="quarto-title-block default"><h1 class="title">{title}</h1></header>
{content}
</main></body></html>
"""
ACTS = {
    "shortcode": re.compile(r"\{\{[<%].*?[>%]\}\}", re.DOTALL),
    "inline expression": re.compile(r"`\{?(?:python|r|julia|ojs)\}?[ \t][^`]+`"),
    "executable block": re.compile(r"^(?:`{3,}|~{3,})\s*\{(?:python|r|julia|ojs|mermaid|dot)\b.*?$", re.MULTILINE),
    "raw block": re.compile(r"^`{3,}\{=(?!html\}$).*?$", re.MULTILINE),
}


def render(root: Path) -> list[str]:
    """Render ``root`` into its ``_site`` as Quarto would, its post-render script included; return what was acted on."""
    project, acted = read_project(root), []
    for page in project.pages:
        name = page.relative_to(root).as_posix()
        front, body = fallback.execute(page, name)
        for what, pattern in ACTS.items():
            acted += [f"{name}: {what} {found!r}" for found in pattern.findall(body)]
            body = pattern.sub("?meta:acted", body)
        content, _ = convert(body, name)
        written = FRAME.format(title=front["title"], content=content)
        write_text((root / "_site" / name).with_suffix(".html"), written)
    with _told(QUARTO_PROJECT_OUTPUT_DIR="_site", QUARTO_PROJECT_RENDER_ALL="1"):
        assert after_quarto(root) == 0
    return acted


@contextmanager
def _told(**variables: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)

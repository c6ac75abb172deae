"""Executed notebooks as pages of the site: no scripts, no network, and no pairing left in the copies."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

import nbformat
from markupsafe import Markup
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html_mistune
from nbconvert.preprocessors.sanitize import SanitizeHTML
from traitlets.config import Config

from helpers.base.errors import ClaimError
from helpers.base.files import write_text
from helpers.show.kernels import WIDGET
from helpers.site.check import EXECUTED
from helpers.site.frame import Project, write_page
from helpers.site.markdown import Heading, anchor_of

HIDDEN = re.compile(r"<(script|style)\b.*?</\1\s*>", re.DOTALL | re.IGNORECASE)
TEXT = [
    "a",
    "abbr",
    "b",
    "br",
    "code",
    "em",
    "h1",
    "h2",
    "h3",
    "h4",
    "hr",
    "i",
    "li",
    "ol",
    "p",
    "pre",
    "small",
    "strong",
]
BOXES = ["details", "div", "mark", "span", "summary", "sub", "sup", "u", "ul"]
TABLES = ["caption", "col", "colgroup", "table", "tbody", "td", "tfoot", "th", "thead", "tr"]
ATTRIBUTES = {"*": ["class", "style", "title", "dir", "aria-label"], "a": ["href"], "th": ["scope"]}
STYLES = [
    "background",
    "background-color",
    "border",
    "border-radius",
    "color",
    "font-family",
    "font-size",
    "font-style",
]
STYLES += ["font-weight", "margin", "max-width", "padding", "text-align", "white-space"]


def strip_pairing(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Remove jupytext's pairing from an executed copy, so that JupyterLab does not write a paired file beside it."""
    notebook.metadata.pop("jupytext", None)
    return notebook


def sources(project: Project) -> list[Path]:
    """Return the notebooks of the site: those with a script of their name, so that none of somebody's scratch is."""
    found = sorted((project.root / "notebooks").glob("*.ipynb"))
    return [path for path in found if path.with_suffix(".py").is_file()]


def export(source: Path, project: Project, site: Path) -> Path:
    """Write an executed notebook to ``notebooks/<name>.html`` of the site, and a copy of it to download beside that.

    HTML that cells displayed loses its scripts, event handlers and everything that could load from a network.

    Raises:
        ClaimError: the notebook was never executed, or its execution failed.
    """
    notebook = strip_pairing(nbformat.read(source, as_version=4))
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    if not any(cell.execution_count for cell in code):
        raise ClaimError(f"{source.name} was never executed: run it before it goes into the site.")
    if any(output.output_type == "error" for cell in code for output in cell.outputs):
        raise ClaimError(f"{source.name} ended in an error. Fix it and run it again.")
    copy = site / "notebooks" / source.name
    write_text(copy, nbformat.writes(notebook))
    title = _take_title(notebook) or source.stem
    inert, _ = _Outputs(tags=TEXT + BOXES + TABLES, attributes=ATTRIBUTES, styles=STYLES, strip=True).preprocess(
        notebook, {}
    )
    body, _ = _exporter().from_notebook_node(inert)
    body, headings = _with_anchors(body)
    link = Markup('<p>Executed copy. <a href="{}" download>Download the notebook</a></p>\n').format(quote(source.name))
    content = f'{link}<div class="{EXECUTED}">\n{body}</div>\n'
    return write_page(copy.with_suffix(".html"), project, site, {"title": title}, content, headings)


def _with_anchors(body: str) -> tuple[str, list[Heading]]:
    """Return ``body`` with an anchor at each heading of nbconvert, and these headings for the table of contents."""
    headings: list[Heading] = []

    def anchored(match: re.Match[str]) -> str:
        level, text = match.groups()
        same = sum(anchor_of(heading.text) == anchor_of(text) for heading in headings)
        headings.append(Heading(int(level), anchor_of(text) + (f"-{same}" if same else ""), text))
        return f'<h{level} id="{headings[-1].anchor}">{text}</h{level}>'

    return re.sub(r"<h([23])>(.*?)</h\1>", anchored, body, flags=re.DOTALL), headings


def _take_title(notebook: nbformat.NotebookNode) -> str | None:
    """Remove the title from the first cell: the frame of the page shows it."""
    first = notebook.cells[0]
    if first.cell_type != "markdown" or not first.source.startswith("# "):
        return None
    title, _, first.source = first.source.removeprefix("# ").partition("\n")
    return title.strip()


class _Outputs(SanitizeHTML):
    """Make the outputs of cells inert; the notebook's own text is its author's and stays as it is."""

    def preprocess_cell(self, cell: nbformat.NotebookNode, resources: dict, cell_index: int) -> tuple:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if WIDGET in data:
                output.data = {"text/plain": "(an interactive widget: open the notebook in JupyterLab)"}
            elif "text/html" in data:
                data["text/html"] = HIDDEN.sub("", data["text/html"])
            elif "text/markdown" in data:  # the exporter would read it as HTML only when this has looked at it
                data["text/html"] = HIDDEN.sub("", markdown2html_mistune(data.pop("text/markdown")))
        made = super().preprocess_cell(cell, resources, cell_index) if cell.cell_type == "code" else None
        return made or (cell, resources)


def _exporter() -> HTMLExporter:
    config = Config()
    config.HTMLExporter.exclude_anchor_links = True
    config.HTMLExporter.exclude_input_prompt = True
    config.HTMLExporter.exclude_output_prompt = True
    return HTMLExporter(config=config, template_name="basic")

"""Render pages without Quarto: execute the cells of ``reports/*.qmd`` and write HTML with our own template.

jupytext finds the cells, nbclient executes them with this interpreter, inline expressions are evaluated in the page's
kernel in page order, and :mod:`helpers.site.markdown` converts the result. Errors name the page, the line and the code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import jupytext
import nbformat
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from tqdm.auto import tqdm

from helpers.base import yaml_text
from helpers.base.errors import ClaimError
from helpers.base.files import ROOT, read_text
from helpers.cases.drafts import Draft, open_page
from helpers.show.kernels import QuietKernelManager
from helpers.site.frame import Project, read_project, write_page, write_styles
from helpers.site.markdown import FENCE, INLINE, convert

NUMBER = re.compile(r"-?\d+(\.\d+)?(e[-+]?\d+)?|nan|-?inf|True|False")
CHUNK = re.compile(r"^```+\s*\{python\b")
PAGE_SECONDS = 900
NEW_PAGE = """%reset -f
import os, sys
os.chdir({!r})
if "helpers.site.pages" in sys.modules:
    sys.modules["helpers.site.pages"].begin()
del os, sys
"""
UNFINISHED = "<p>There is nothing to show yet.</p>\n"


class _ThisInterpreter(KernelSpecManager):
    """Offer one kernel: this interpreter, whatever kernels the user has installed under the same name."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return KernelSpec(**get_kernel_dict())


def render(root: Path = ROOT, site: Path | None = None, *, pages: Sequence[Path] = (), workers: int = 2) -> list[Path]:
    """Write pages of the project into ``site`` (default ``_site/``) and return the files written.

    Without ``pages`` every page is written, and old ones whose source is gone are removed.

    Raises:
        ClaimError: a cell or an inline expression failed, or Pandoc refused the Markdown of a page.
    """
    project = read_project(Path(root))
    site = Path(site or project.root / "_site")
    write_styles(project, site)
    chosen = pages or project.pages
    waiting = iter(chosen)

    def some() -> list[Path]:
        """Render pages in one kernel, until none is waiting: starting it takes longer than most pages do."""
        with Kernel() as kernel:
            return [_counted(render_page(page, project, site, kernel), bar) for page in waiting]

    with ThreadPoolExecutor(workers) as pool, tqdm(total=len(chosen), desc="pages", unit="page", disable=None) as bar:
        running = [pool.submit(some) for _ in range(min(workers, len(chosen)))]
        written = [page for done in running for page in done.result()]
    if not pages:
        remove_gone(project, site)
    return written


def remove_gone(project: Project, site: Path) -> None:
    """Remove the rendered pages whose source is gone, beside those of the project."""
    targets = {site / page.relative_to(project.root).with_suffix(".html") for page in project.pages}
    for folder in {target.parent for target in targets}:
        for left_over in set(folder.glob("*.html")) - targets:
            left_over.unlink()


def _counted(page: Path, bar: tqdm) -> Path:
    bar.update()
    return page


def render_page(page: Path, project: Project, site: Path, kernel: Kernel | None = None) -> Path:
    """Execute one page (in ``kernel``, or in one of its own), write its HTML, and return the path written."""
    name = str(page.relative_to(project.root))
    try:
        front, body = execute(page, name, kernel)
        content, headings = convert(body, name)
    except ClaimError:
        if not isinstance(open_page(page, project.root), Draft):
            raise
        front, content, headings = {"title": page.stem.replace("-", " ").capitalize()}, UNFINISHED, []
    return write_page(site / Path(name).with_suffix(".html"), project, site, front, content, headings)


def execute(page: Path, name: str, kernel: Kernel | None = None) -> tuple[dict[str, Any], str]:
    """Return the front matter of a page, and its Markdown with the outputs of cells and inline expressions in place."""
    text = read_text(page, ClaimError)
    notebook = jupytext.reads(text, fmt=".Rmd")
    front, cells = _front_matter(notebook.cells, name)
    expected = sum(bool(CHUNK.match(line)) for line in text.splitlines())
    if expected != sum(cell.cell_type == "code" for cell in cells):
        raise ClaimError(
            f"{name}: a code cell could not be told from the text: give every cell three backticks and close it."
        )
    pieces = list(_pieces(cells, text))
    codes = [piece for piece in pieces if isinstance(piece, _Code)]
    if kernel is None:
        with Kernel() as kernel:
            kernel.run(codes, page.parent, name)
    else:
        kernel.run(codes, page.parent, name)
    return front, "".join(piece if isinstance(piece, str) else piece.markdown(name) for piece in pieces)


@dataclass
class _Code:
    """A code cell or an inline expression to execute."""

    cell: nbformat.NotebookNode
    line: int
    inline: bool

    def markdown(self, name: str) -> str:
        parts = [_output(output, self, name) for output in self.cell.outputs]
        if self.inline and len(parts) != 1:
            raise ClaimError(
                f"{name}, line {self.line}: `{self.cell.source}` has no value: write an expression that has one."
            )
        return parts[0] if self.inline else "\n\n" + "\n\n".join(part for part in parts if part) + "\n\n"


def _front_matter(cells: list[Any], name: str) -> tuple[dict[str, Any], list[Any]]:
    if not cells or cells[0].cell_type != "raw":
        raise ClaimError(f"{name} has no front matter: begin it with '---', a title and '---'.")
    front = yaml_text.read(cells[0].source.strip().removeprefix("---").removesuffix("---"), name, ClaimError)
    if not isinstance(front, dict) or not front.get("title"):
        raise ClaimError(f"{name} has no title: add 'title:' to its front matter.")
    return front, cells[1:]


def _pieces(cells: list[Any], text: str) -> Iterator[str | _Code]:
    """Yield Markdown and code in page order; each code piece knows its line on the page."""
    position = 0
    for cell in cells:
        if cell.cell_type == "code":
            position = max(text.find(cell.source, position), position)
            yield _code(cell.source, text, position, inline=False)
            continue
        position = max(text.find(cell.source, position), position)
        start = 0
        for match in _inline_expressions(cell.source):
            yield cell.source[start : match.start()]
            yield _code(match.group(1).strip(), text, position + match.start(), inline=True)
            start = match.end()
        yield cell.source[start:] + "\n\n"
        position += len(cell.source)


def _inline_expressions(source: str) -> Iterator[re.Match[str]]:
    """Yield the inline expressions outside fenced code."""
    inside, offset = None, 0
    fenced: list[tuple[int, int]] = []
    for line in re.findall(r"[^\n]*\n|[^\n]+", source):
        fence = FENCE.match(line)
        if fence and inside is None:
            inside = (fence.group(2), offset)
        elif fence and inside and fence.group(2).startswith(inside[0]) and not fence.group(3):
            fenced.append((inside[1], offset + len(line)))
            inside = None
        offset += len(line)
    return (m for m in INLINE.finditer(source) if not any(start <= m.start() < end for start, end in fenced))


def _code(source: str, text: str, position: int, *, inline: bool) -> _Code:
    return _Code(nbformat.v4.new_code_cell(source), text.count("\n", 0, position) + 1, inline)


class Kernel:
    """A kernel that runs pages, one after the other, each in its folder and with no name of the one before.

    They share what is read and counted of the records (`pages.begin`).
    """

    def __init__(self) -> None:
        manager = QuietKernelManager(kernel_spec_manager=_ThisInterpreter())
        self._client = NotebookClient(nbformat.v4.new_notebook(), km=manager, timeout=PAGE_SECONDS, record_timing=False)
        self._client.extra_arguments = ["--IPKernelApp.log_level=ERROR"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._client.kc is not None:
            self._client._cleanup_kernel()

    def run(self, codes: Sequence[_Code], folder: Path, name: str) -> None:
        """Run the code of the page ``name``; ``ClaimError`` names the line where it failed."""
        cells = [nbformat.v4.new_code_cell(NEW_PAGE.format(str(folder))), *(code.cell for code in codes)]
        self._client.nb = nbformat.v4.new_notebook(cells=cells)
        try:
            self._client.execute()
        except CellExecutionError as error:
            failed = next(code for code in codes if any(o.output_type == "error" for o in code.cell.outputs))
            what = (
                f"`{failed.cell.source}`"
                if failed.inline
                else f"the cell {failed.cell.source.strip().splitlines()[-1]!r}"
            )
            raise ClaimError(f"{name}, line {failed.line}: {what} failed with {error.ename}: {error.evalue}") from error
        except DeadKernelError as error:
            raise ClaimError(f"{name}: its kernel died, often because memory ran out. Free some and retry.") from error
        except CellTimeoutError as error:
            raise ClaimError(
                f"{name}: a cell ran for {PAGE_SECONDS} s. A page should read records, not make them."
            ) from error


def _output(output: nbformat.NotebookNode, code: _Code, name: str) -> str:
    """Return the Markdown of one output.

    Only numbers appear as they are. Quarto would read other text as Markdown, and load scripts for HTML, widgets and
    pictures.
    """
    if output.output_type == "stream":
        if output.name == "stdout":
            raise ClaimError(f"{name}, line {code.line}: the cell prints. Show it with helpers.site.pages.")
        return ""
    data = output.data
    forbidden = [mime for mime in data if mime not in ("text/markdown", "text/plain")]
    if forbidden:
        raise ClaimError(
            f"{name}, line {code.line}: the cell shows {forbidden[0]}, for which Quarto loads scripts from the "
            "network: show it with helpers.site.pages."
        )
    if "text/markdown" in data:
        return data["text/markdown"]
    if code.inline and NUMBER.fullmatch(data["text/plain"]):
        return data["text/plain"]
    raise ClaimError(
        f"{name}, line {code.line}: {data['text/plain'][:40]} is neither a number nor a block of helpers.site.pages. "
        "Show it with one of these."
    )

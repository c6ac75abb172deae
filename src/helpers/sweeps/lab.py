"""What JupyterLab may write into a tracked notebook: the outputs of a whole run, and nothing that only looks change.

Lab saves by itself, also in the middle of a run. ``jupyter_server_config.json`` beside ``pyproject.toml`` names
`keep_whole_runs` as the hook that a notebook passes before it is saved.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from helpers.show.kernels import WIDGET

KEPT = ("jupytext", "kernelspec", "language_info")
"""Metadata that another Python or another jupytext would change."""


HEADER = re.compile(r"\A# ---\n(?:#.*\n)*?# ---\n")
KERNEL = re.compile(r"^#   kernelspec:\n(?:#     .*\n)*", re.MULTILINE)


def keep_whole_runs(model: dict[str, Any], path: str, contents_manager: Any, **_: Any) -> None:
    """Change the ``model`` of a notebook that is paired with a script, or of that script, before it is saved.

    Outputs are saved when all cells have run, in order and without an error. Otherwise each cell whose source is that
    of the file keeps the outputs that it has there, and any other cell has none.
    """
    place = Path(contents_manager.root_dir) / path.strip("/")
    if model.get("type") == "file" and place.suffix == ".py" and place.is_file():
        model["content"] = _with_its_kernel(model["content"], place.read_text(encoding="utf-8"))
    if model.get("type") != "notebook":
        return
    notebook = NotebookNode(nbformat.from_dict(model["content"]))
    if "py:" not in str(notebook.metadata.get("jupytext", {}).get("formats", "")):
        return
    before = None
    with contextlib.suppress(OSError, ValueError, nbformat.reader.NotJSONError):  # it is new, or was damaged
        before = nbformat.read(place, as_version=4)
    _keep_outputs(notebook, before, whole=is_whole(notebook))
    kept = before.metadata if before else {}
    notebook.metadata |= {name: kept[name] for name in KEPT if name in kept}
    model["content"] = tidied(notebook)


def is_whole(notebook: NotebookNode) -> bool:
    """Whether all cells of code have run, in order, once, and without an error."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    counts = [cell.execution_count for cell in cells]
    failed = any(output.output_type == "error" for cell in cells for output in cell.outputs)
    return counts == list(range(1, len(cells) + 1)) and not failed


def _with_its_kernel(text: str, before: str) -> str:
    """Return a script under the header that it had, where the two differ in nothing but the kernel."""
    new, old = HEADER.match(text), HEADER.match(before)
    if new and old and KERNEL.sub("", new[0]) == KERNEL.sub("", old[0]):
        return old[0] + text[new.end() :]
    return text


def _keep_outputs(notebook: NotebookNode, before: NotebookNode | None, *, whole: bool) -> None:
    """Give each cell of code the outputs that its file has for the same source; none where it has no such cell.

    Of a ``whole`` run only equal ones are kept: a browser writes 1.0 as 1.
    """
    cells = [cell for cell in before.cells if cell.cell_type == "code"] if before else []
    known = {(cell.get("id"), cell.source): cell for cell in cells}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            same = known.get((cell.get("id"), cell.source))
            if not whole or (same and same.outputs == cell.outputs):
                cell.outputs = same.outputs if same else []
                cell.execution_count = same.execution_count if same else None


def tidied(notebook: NotebookNode) -> NotebookNode:
    """Remove what differs from run to run and from reader to reader: progress bars, widgets, how cells are shown."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata = NotebookNode({name: cell.metadata[name] for name in ("tags",) if name in cell.metadata})
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_progress(output)]
    return notebook


def _is_progress(output: NotebookNode) -> bool:
    if output.output_type == "stream":
        return output.name == "stderr"
    data = output.get("data", {})
    return WIDGET in data and re.search(r"it/s\]|s/it\]|\?it/s", str(data.get("text/plain", ""))) is not None

"""JupyterLab's contents manager, as the files of this repository configure it: saving keeps tracked notebooks whole."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from traitlets.config.loader import JSONFileConfigLoader

from helpers.base.files import NOTEBOOKS, ROOT

pytestmark = pytest.mark.unit
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.py"))
PROGRESS = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "3/3 [00:01, 2.0it/s]"}


class Lab:
    """A contents manager over a copy of the notebooks; ``files`` are the bytes of one and of its twin."""

    def __init__(self, root: Path, name: str):
        config = JSONFileConfigLoader("jupyter_server_config.json", str(ROOT)).load_config()
        made = jupytext.build_async_jupytext_contents_manager_class(AsyncLargeFileManager)
        self.manager, self.paths = made(config=config), [root / f"notebooks/{name}{end}" for end in (".ipynb", ".py")]
        self.manager.root_dir, self.name = str(root), f"notebooks/{name}.ipynb"
        self.before = self.files

    @property
    def files(self) -> list[bytes]:
        return [path.read_bytes() for path in self.paths]

    def open(self) -> Any:
        return asyncio.run(self.manager.get(self.name))["content"]

    def save(self, notebook: Any) -> None:
        asyncio.run(self.manager.save({"type": "notebook", "content": notebook, "format": "json"}, self.name))

    @property
    def saved(self) -> list[Any]:
        return code(nbformat.read(self.paths[0], as_version=4))


@pytest.fixture
def lab(tmp_path):
    shutil.copytree(NOTEBOOKS, tmp_path / "notebooks")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return lambda name: Lab(tmp_path, name)


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def run(cell: Any, count: int | None, text: str = "new\n") -> None:
    """What Lab holds of a cell that has run, or is running."""
    cell.execution_count = count
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)]


def look_around(notebook: Any) -> None:
    """What Lab and another Python write beside sources and outputs."""
    notebook.metadata.language_info["version"] = "3.99.0"
    notebook.metadata.kernelspec["display_name"] = "Mine"
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    for cell in notebook.cells:
        cell.metadata |= {"editable": True, "collapsed": True, "slideshow": {"slide_type": ""}, "scrolled": True}
    for cell in code(notebook):
        cell.metadata |= {"execution": {"iopub.status.busy": "now"}, "jupyter": {"outputs_hidden": True}}


@pytest.mark.parametrize("name", NAMES)
def test_opening_and_saving_changes_no_byte(lab, name):
    one = lab(name)
    notebook = one.open()
    one.save(notebook)
    assert one.files == one.before
    look_around(notebook)
    one.save(as_javascript_writes(notebook))
    assert one.files == one.before


def as_javascript_writes(value: Any) -> Any:
    """Numbers as a browser sends them back: it knows no difference between 1.0 and 1."""
    if isinstance(value, dict):
        return {name: as_javascript_writes(item) for name, item in value.items()}
    if isinstance(value, list):
        return [as_javascript_writes(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def running(cells: list[Any]) -> None:
    run(cells[0], 1), run(cells[1], None)


def out_of_order(cells: list[Any]) -> None:
    for count, cell in enumerate(reversed(cells), start=1):
        run(cell, count)


def ending_in_an_error(cells: list[Any]) -> None:
    for count, cell in enumerate(cells, start=1):
        run(cell, count)
    cells[-1].outputs = [nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])]


def cleared(cells: list[Any]) -> None:
    for cell in cells:
        cell.outputs, cell.execution_count = [], None


def run_again(cells: list[Any]) -> None:
    run(cells[1], len(cells) + 1)


@pytest.mark.parametrize("half", [running, out_of_order, ending_in_an_error, cleared, run_again])
def test_no_output_of_a_half_run_is_saved(lab, half):
    one = lab("sweep")
    notebook = one.open()
    half(code(notebook))
    look_around(notebook)
    one.save(notebook)
    assert one.files == one.before


def test_a_whole_run_is_saved_without_its_progress(lab):
    one = lab("sweep")
    notebook = one.open()
    for count, cell in enumerate(code(notebook), start=1):
        run(cell, count, f"{count}\n")
        cell.outputs += [nbformat.v4.new_output("display_data", data=PROGRESS)]
    look_around(notebook)
    one.save(notebook)
    assert [[output.text for output in cell.outputs] for cell in one.saved] == [
        [f"{count}\n"] for count in range(1, len(one.saved) + 1)
    ]
    assert one.files[1] == one.before[1]


def test_an_edit_is_saved_in_both_files_and_its_cell_has_no_output_of_before(lab):
    one = lab("sweep")
    notebook = one.open()
    edited, before = code(notebook)[1], code(notebook)
    edited.source += "\nprint(1)"
    run(edited, 1)
    one.save(notebook)
    text, was = one.files[1].decode(), one.before[1].decode()
    assert [line for line in text.splitlines() if line not in was.splitlines()] == ["print(1)"]
    assert (one.saved[1].outputs, one.saved[1].execution_count) == ([], None)
    assert one.saved[1].source.endswith("print(1)") and len(one.saved) == len(before)
    assert [cell.execution_count for cell in one.saved].count(None) == 1
    edited.source = edited.source.removesuffix("\nprint(1)")
    one.save(notebook)
    assert one.files[1] == one.before[1]


def test_a_notebook_without_a_twin_is_saved_as_it_is(lab, tmp_path):
    one = lab("sweep")
    scratch = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", metadata={"collapsed": True})])
    run(scratch.cells[0], 7)
    one.name = "notebooks/scratch.ipynb"
    one.save(scratch)
    [cell] = nbformat.read(tmp_path / one.name, as_version=4).cells
    assert cell.execution_count == 7 and cell.metadata.collapsed and not (tmp_path / "notebooks/scratch.py").exists()

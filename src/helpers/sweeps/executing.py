"""Run a notebook with a params file through papermill, showing how many of its cells have their record."""

from __future__ import annotations

import contextlib
import sys
import threading
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import papermill
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from papermill.exceptions import PapermillExecutionError
from tqdm.auto import tqdm

from helpers.base import files
from helpers.base.disk import disk_errors
from helpers.base.errors import ClaimbookError, nearest
from helpers.cases.case import read_params, runs_of
from helpers.claims.evidence import Expected
from helpers.records.reading import PARTIAL, records
from helpers.records.study import load_study
from helpers.show.kernels import QuietKernelManager
from helpers.site.notebooks import strip_pairing
from helpers.sweeps.lab import tidied
from helpers.sweeps.papermill_plugin import sentence
from helpers.sweeps.tidy import tidy
from helpers.system.provenance import portable

WATCH_SECONDS = 1.0
LINES = 10  # of progress at most, where output is no terminal
QUIET = ["--IPKernelApp.log_level=ERROR"]
START_SECONDS = 300  # a kernel that starts on a busy machine


def run_notebook(name: str, preset: str, root: Path = files.ROOT) -> Path:
    """Execute ``notebooks/<name>.ipynb`` with ``params/<name>/<preset>.yaml``; returns the executed copy.

    The parameters are checked before anything starts. A run that was done before is answered from its record, one that
    was killed goes on where it stopped.

    Raises:
        ParameterError: there is no such preset, or a parameter in it is unknown or wrong.
        ClaimbookError: the notebook is not there, or stopped in a cell (the copy shows where).
    """
    source = root / "notebooks" / f"{name}.ipynb"
    if not source.is_file():
        raise ClaimbookError(f"notebooks/{name}.ipynb is not there: `jupytext --sync notebooks/{name}.py` writes it.")
    check_twin(name, root)
    p = read_params(name, root / "params" / name / f"{preset}.yaml", root)
    for cell in p:
        cell.check_inputs()
    tidy()
    target = files.outputs_root() / "executed" / f"{name}-{preset}.ipynb"
    with _Progress(name, runs_of(load_study(name, root), p)):
        execute(source, target, p.given, root)
    return target


def check_twin(name: str, root: Path = files.ROOT) -> None:
    """Raise ``ClaimbookError`` where a notebook is not what its script says: an edit of the script would not be run."""
    script = root / "notebooks" / f"{name}.py"
    if script.is_file():
        twins = (jupytext.read(path) for path in (script, script.with_suffix(".ipynb")))
        said, run = ([(cell.cell_type, cell.source) for cell in notebook.cells] for notebook in twins)
        if said != run:
            raise ClaimbookError(
                f"notebooks/{name}.ipynb is not what its script says: run `jupytext --sync notebooks/{name}.py`."
            )


def execute(source: Path, target: Path, values: dict[str, Any], root: Path = files.ROOT) -> None:
    """Execute ``source`` with parameters through papermill and leave the copy, without its pairing, at ``target``.

    Raises:
        ClaimbookError: a cell stopped with an error, or the copy cannot be written.
        DeadKernelError: the kernel was killed, which says nothing about the notebook.
    """
    notebook = strip_pairing(jupytext.read(source))
    try:
        with disk_errors(target):
            files.make_folder(target.parent)
            papermill.execute_notebook(
                notebook, str(target), parameters=values, cwd=str(root / "notebooks"), progress_bar=False,
                kernel_name="python3", start_timeout=START_SECONDS, extra_arguments=QUIET,
                kernel_manager_class=QuietKernelManager,
            )  # fmt: skip
    except PapermillExecutionError as error:
        where = portable(str(target)).removeprefix("./")
        raise ClaimbookError(f"{source.name} stopped with {sentence(error)} (the copy {where} shows where).") from error
    executed = strip_pairing(nbformat.read(target, as_version=4))
    files.write_text(target, nbformat.writes(executed))


def refresh_notebook(name: str, root: Path = files.ROOT) -> Path:
    """Run ``notebooks/<name>.py`` with the parameters of its own cell and keep the result as its paired .ipynb.

    Progress bars are left out of the kept outputs: nobody reads a finished one, and they differ from run to run.
    """
    script = root / "notebooks" / f"{name}.py"
    if not script.is_file():
        raise ClaimbookError(
            f"notebooks/{name}.py is not there{nearest(name, [p.stem for p in script.parent.glob('*.py')])}"
        )
    notebook = jupytext.read(script)
    client = NotebookClient(
        notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": script.parent}},
        extra_arguments=QUIET, kernel_manager_class=QuietKernelManager,
    )  # fmt: skip
    try:
        client.execute()
    except CellExecutionError as error:
        raise ClaimbookError(f"{script.name} stopped with {error.ename}: {' '.join(error.evalue.split())}") from error
    target = script.with_suffix(".ipynb")
    jupytext.write(tidied(notebook), target)
    return target


class _Progress:
    """A bar over the runs that a grid declares, with the one that is being worked on; it reads the records only.

    The notebook's own bars are widgets inside a kernel, which a terminal does not see. Where output is no terminal, a
    few lines stand for the bar.
    """

    def __init__(self, notebook: str, expected: tuple[Expected, ...]) -> None:
        self.notebook, self.expected = notebook, expected
        self.said = -len(expected)
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self.bar = tqdm(total=len(self.expected), desc=f"{self.notebook}: runs", unit="run", disable=None)
        self._look()
        self.thread.start()

    def __exit__(self, *error: object) -> None:
        self.stopped.set()
        self.thread.join()
        self._look()
        self.bar.close()

    def _watch(self) -> None:
        while not self.stopped.wait(WATCH_SECONDS):
            self._look()

    def _look(self) -> None:
        complete = [record for record in records(self.notebook) if not record.published]
        done, total = sum(any(one.met_by(record) for record in complete) for one in self.expected), len(self.expected)
        self.bar.set_postfix_str(self._working_on(), refresh=False)
        self.bar.n = done
        self.bar.refresh()
        if self.bar.disable and (done - self.said) * LINES >= total:
            print(f"{self.notebook}: {done} of {total} runs are complete", file=sys.stderr, flush=True)
            self.said = done

    def _working_on(self) -> str:
        """The newest unfinished run of any notebook: a baseline that the others wait for, say."""
        begun: dict[float, str] = {}
        for path in files.outputs_root().glob(f"*/{PARTIAL}*"):
            with contextlib.suppress(FileNotFoundError):  # finished, and so renamed, since it was listed
                begun[path.stat().st_mtime] = path.name.removeprefix(PARTIAL).rpartition("-")[0]
        return begun[max(begun)] if begun else ""

"""What a Ray task does on its machine: check that it sees the same code and outputs, then execute one row."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers import files, provenance
from helpers.errors import ClaimbookError


class KernelLostError(Exception):
    """The kernel that executed a notebook was killed: the machine's doing, so the row is tried again."""


@dataclass(frozen=True)
class Job:
    """One row as a task gets it: everything by value and by relative path."""

    notebook: str
    target: str
    values: dict[str, Any] = field(repr=False)
    entry: str
    code: str
    mark: str
    launch: str
    root: str


@dataclass(frozen=True)
class Report:
    """How a row ended: ``error`` of the notebook, or why this machine cannot work on it (``refused``)."""

    error: str | None = None
    refused: str | None = None


def hash_of_code(entry: str) -> str:
    """Hash of the source that a run reaches, as it is on this machine."""
    return files.sha256_json(provenance.code_closure(entry))


def run_row(job: Job) -> Report:
    """Execute the notebook of ``job``. Errors of the notebook are reported; what killed its kernel is raised.

    Raises:
        KernelLostError: the kernel was killed or did not start.
    """
    refused = _refuse(job)
    if refused:
        return Report(refused=refused)
    # Here, so that a machine that is refused says so without these packages.
    from nbclient.exceptions import DeadKernelError

    from helpers.site.executing import execute

    os.environ[provenance.LAUNCH] = job.launch  # inherited by the kernel
    target = files.outputs_root() / "executed" / job.target
    target.parent.mkdir(parents=True, exist_ok=True)
    root = Path(job.root)
    try:
        execute(root / "notebooks" / f"{job.notebook}.ipynb", target, job.values, root)
    except ClaimbookError as error:
        return Report(error=str(error))
    except DeadKernelError as error:
        raise KernelLostError(f"The kernel of {job.target} was killed.") from error
    except RuntimeError as error:
        if not str(error).startswith("Kernel "):  # nbclient and jupyter_client have no type for it
            raise
        raise KernelLostError(f"The kernel of {job.target} did not start: {error}.") from error
    return Report()


def _refuse(job: Job) -> str | None:
    machine = platform.node()
    if not (files.outputs_root() / job.mark).is_file():
        return (
            f"The outputs folder of {machine} is not the one of this sweep: set CLAIMBOOK_OUTPUTS to a folder that all "
            "machines share."
        )
    if hash_of_code(job.entry) != job.code:
        return f"The code that {job.notebook} reaches is another on {machine}, or was edited: use one checkout for all."
    return None

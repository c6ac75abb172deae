"""What a Ray task does on its machine: check that it sees the same code and outputs, then execute one row."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers.base import files
from helpers.base.errors import ClaimbookError
from helpers.claims.declared import Expected
from helpers.sweeps.cores import own_cores
from helpers.sweeps.store import MARK, Store, StoreLostError, copied
from helpers.sweeps.watch import Watch
from helpers.system import provenance, source


class KernelLostError(Exception):
    """The kernel that executed a notebook was killed: the machine's doing, so the row is tried again."""


@dataclass(frozen=True)
class Job:
    """One row as a task gets it: everything by value and by relative path.

    ``cells`` are the runs that the grid declares, ``models`` the content hashes of base models. ``store``: the address
    to which finished records are copied, and ``shared``: the records there that any row may use. ``at_once``: rows
    that work on one machine at the same time.
    """

    notebook: str
    target: str
    values: dict[str, Any] = field(repr=False)
    cells: tuple[Expected, ...] = field(repr=False)
    models: Mapping[str, str] = field(repr=False)
    entry: str
    code: str
    mark: str
    launch: str
    root: str
    store: str | None = None
    shared: tuple[str, ...] = ()
    at_once: int = 1


@dataclass(frozen=True)
class Report:
    """How a row ended: ``error`` of the notebook, with the cells (by position in the row) whose runs have ``failed``
    and why; or why this machine cannot work on it (``refused``)."""

    error: str | None = None
    refused: str | None = None
    failed: Mapping[int, str] = field(default_factory=dict)


def hash_of_code(entry: str) -> str:
    """Hash of the source that a run reaches, as it is on this machine."""
    return files.sha256_json(source.code_closure(entry))


def run_row(job: Job) -> Report:
    """Execute the notebook of ``job``. Errors of the notebook are reported; what killed its kernel is raised.

    Raises:
        KernelLostError: the kernel was killed or did not start.
        StoreLostError: the store could not be reached.
    """
    try:
        refused = _refuse(job)
        if refused:
            return Report(refused=refused)
        watch = Watch(job.notebook, job.cells, job.models, Path(job.root))
        watch.look_at_halves()
        before = watch.failures()
        with _copied(job, watch), own_cores(job.at_once):
            error = _execute(job)
    except StoreLostError:
        raise
    except ClaimbookError as error:
        return Report(refused=str(error))
    watch.look_at_halves()
    failed = {n: why for n, (when, why) in watch.failures().items() if (when, why) != before.get(n)}
    return Report(error=error, failed=failed)


def _copied(job: Job, watch: Watch) -> contextlib.AbstractContextManager[None]:
    if not job.store:
        return contextlib.nullcontext()
    return copied(Store(job.store), job.notebook, watch, f"{job.mark}/{Path(job.target).stem}", job.shared)


def _execute(job: Job) -> str | None:
    """The notebook's error, if it stopped with one."""
    # Here, so that a machine that is refused says so without these packages.
    from nbclient.exceptions import DeadKernelError

    from helpers.sweeps.executing import execute

    os.environ[provenance.LAUNCH] = job.launch  # inherited by the kernel
    target = files.outputs_root() / "executed" / job.target
    root = Path(job.root)
    try:
        execute(root / "notebooks" / f"{job.notebook}.ipynb", target, job.values, root)
    except ClaimbookError as error:
        return str(error)
    except DeadKernelError as error:
        raise KernelLostError(f"The kernel of {job.target} was killed.") from error
    except RuntimeError as error:
        if not str(error).startswith("Kernel "):  # nbclient and jupyter_client have no type for it
            raise
        raise KernelLostError(f"The kernel of {job.target} did not start: {error}.") from error
    return None


def _refuse(job: Job) -> str | None:
    machine = platform.node()
    if job.store:
        if Store(job.store).read(f"{job.mark}/{MARK}") is None:
            return f"{job.store} is not one place for all machines: {machine} does not find this sweep there."
    elif not (files.outputs_root() / job.mark).is_file():
        return (
            f"The outputs folder of {machine} is not the one of this sweep: set CLAIMBOOK_OUTPUTS to a folder that all "
            "machines share, or give an address as --store."
        )
    if hash_of_code(job.entry) != job.code:
        return f"The code that {job.notebook} reaches is another on {machine}, or was edited: use one checkout for all."
    return None

"""The record of one run: open it, do its steps, finish it.

    with runs.open_run(STUDY, params=..., cell=..., prefix=..., data=..., model=...) as run:
        if not run.complete:
            rows = run.step("rows", lambda: make_rows(...))
            adapter = run.folder("adapter", lambda folder: train(..., folder))
            run.finish(finish_reasons={"stop": 200})
    record = run.record

The id of a run is a hash of its question: study, version, parameters, model, data and the records it used. Ask the same
question again and its record is read; any other question has another folder. The steps store raw tables.
``Study.metrics`` derives the metrics from them, here and whenever they are verified. ``reading`` reads records, and its
functions for notebooks can be called from here as well.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from helpers.base import files
from helpers.base.disk import disk_errors
from helpers.base.errors import RecordError
from helpers.records import questions, reading, run_record
from helpers.records.derive import checked_metrics, derive
from helpers.records.locks import lock_of
from helpers.records.reading import Record, load, records, table
from helpers.records.steps import Steps, Value, plain
from helpers.records.study import Study
from helpers.system import curves, provenance, source

__all__ = ["Record", "Run", "load", "open_run", "records", "table"]


def open_run(
    study: Study,
    *,
    params: Mapping[str, Any],
    cell: Mapping[str, Any],
    prefix: str,
    data: Iterable[Path],
    model: Mapping[str, Any],
    inputs: Mapping[str, str] | None = None,
    engine: str | None = None,
    entry: str | None = None,
    notebook: str | None = None,
    wait: bool = True,
) -> Run:
    """Return the run that answers this question; work on it inside ``with``.

    ``params`` and ``cell`` are JSON values (``Cell.resolved()``, ``.coordinates()``); ``data`` files or folders;
    ``model`` the fingerprint, of which ``sha256`` counts; ``inputs`` names other records this run uses
    (``{"baseline": "sweep/<id>"}``). ``engine`` is a module that a parameter chose and that the study's entry imports
    by name only; ``entry`` replaces that of the study. ``notebook`` is the folder of the record, by default that of the
    study. While another process works on the same run this one waits, or, with ``wait=False``, raises ``RecordError``.
    """
    notebook = notebook or study.name
    label = f"The run of {notebook}"
    entries = {"entry": entry or study.entry} | ({"engine": engine} if engine else {})
    code = source.code_closure(*entries.values())
    source.refuse_edited(code)
    content = {
        "study": study.name,
        "version": study.version,
        "metrics_version": study.metrics_version,
        "params": provenance.portable(plain(study.asked(params), f"{label}: params")),
        "cell": provenance.portable(plain(cell, f"{label}: cell")),
        "code": entries | {"files": code},
        "data": questions.data_hashes(list(data)),
        "model": provenance.portable(plain(model, f"{label}: model")),
        "inputs": dict(inputs or {}),
    }
    readable = re.sub(r"[^\w.-]+", "-", prefix, flags=re.ASCII).strip("-._")[:80]
    return Run(study, notebook, f"{readable}-{questions.question_hash(content, study)}", content, wait=wait)


class Run:
    """A run that is being made, or that was complete already (``complete``; then ``record`` holds the answer)."""

    def __init__(self, study: Study, notebook: str, run_id: str, content: dict[str, Any], *, wait: bool):
        self.study, self.notebook, self.id = study, notebook, run_id
        self.label = f"{notebook}/{run_id}"
        self._record: Record | None = None
        self._home = files.inside(files.outputs_root(), notebook)
        self._final = files.inside(self._home, run_id)
        self._partial = files.below(self._home, f"{reading.PARTIAL}{run_id}")
        self._steps = Steps(self._partial, self.label)
        self._lock = FileLock(lock_of(self._home, run_id))
        self._content, self._wait = content, wait
        self._begin = 0.0
        self._left = False

    @property
    def complete(self) -> bool:
        """Whether the whole record is on disk."""
        return self._record is not None

    def found(self) -> Record | None:
        """Return the record if it is complete on disk already; nothing is begun, and ``with`` is not needed."""
        with self._on_disk():
            return self._existing()

    @property
    def record(self) -> Record:
        """The complete record; ``RecordError`` before there is one."""
        if self._record is None:
            raise RecordError(f"{self.label} has no record yet. Call run.finish() first.")
        return self._record

    def __enter__(self) -> Self:
        with self._on_disk():
            self._record = self._existing()
            if not self.complete:
                self._take_lock()
                try:
                    self._record = self._existing()  # the process that held the lock may have finished it
                    if not self.complete:
                        self._start()
                except BaseException:
                    self._lock.release()
                    raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if isinstance(error, Exception) and not self.complete:
                self._fail(error)
            elif error is None and not self.complete and not self._left:
                raise RecordError(f"{self.label} ended without finish(), so there is no record: call run.finish().")
        finally:
            if self.complete:  # a complete run is never computed again, so its lock file can go
                with contextlib.suppress(OSError):  # there is none, or the folder is read-only
                    Path(self._lock.lock_file).unlink()
            self._lock.release()

    def step(self, name: str, fn: Callable[[], Value | Mapping[str, Value]]) -> Any:
        """Result of ``fn()``, a table, a JSON value or a dict holding tables; from disk if finished before.

        Tables are kept as parquet, the rest as JSON, a dict holding tables as one file a key. The value is always read
        back from disk.
        """
        self._must_be_open()
        with self._on_disk():
            return self._steps.value(name, fn)

    def folder(self, name: str, fn: Callable[[Path], Any], *, before: float = 0.0) -> Path:
        """The folder that ``fn(empty folder)`` fills (an adapter, say); from disk if this step was finished before.

        ``before``: seconds that this step took before ``fn``, its part of work done for several runs at once.
        """
        self._must_be_open()
        with self._on_disk():
            return self._steps.folder(name, fn, before)

    def scratch(self, name: str) -> Path:
        """The folder for what the step ``name`` needs to go on after a kill; no part of the record, which drops it."""
        self._must_be_open()
        return files.below(self._partial, f".{name}.scratch")

    def has(self, name: str) -> bool:
        """Whether the step ``name`` is finished on disk and would be read from there."""
        self._must_be_open()
        return self._steps.has(name)

    def leave(self) -> None:
        """Let the block end without a record: the steps on disk wait for whoever opens this run next."""
        self._must_be_open()
        self._left = True

    def finish(
        self,
        finish_reasons: Mapping[str, int] | None = None,
        note: str | None = None,
        measured: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Record:
        """Derive the metrics from the tables on disk, write ``run.json`` and rename the folder: now it is a record.

        ``measured``: metrics that no table gives and that differ between equal runs, such as seconds; the study names
        them (``Study.measures``).
        """
        self._must_be_open()
        measures = {name: {**given, "measured": True} for name, given in (measured or {}).items()}
        strange = [name for name in measures if not self.study.is_measured(name)]
        if strange:
            raise RecordError(f"{self.label} measures {strange[0]!r}, which its study does not name: add it there.")
        with self._on_disk():
            self._steps.check()
            self._steps.drop_leftovers()
            ending = {"status": "complete", "ended": self._ended(), "seconds": self._seconds()}
            ending["files"] = self._steps.files()
            reasons = plain(finish_reasons or {}, f"{self.label}: finish_reasons")
            ending |= {"finish_reasons": reasons, "error": None} | ({"note": note} if note else {})
            half = Record(self._partial, self._content | ending | {"metrics": {}}, published=False)
            ending["metrics"] = derive(half, self.study) | checked_metrics(measures, self.label)
            self._write(ending)
            self._steps.check_present()
            _sync_folder(self._partial)
            self._partial.rename(self._final)
            _sync_folder(self._home)
            self._record = reading.read(self._final)
        return self._record

    @contextlib.contextmanager
    def _on_disk(self) -> Iterator[None]:
        """Turn a disk that is full or fails, and a folder that vanishes, into one sentence."""
        with disk_errors(self._final):
            try:
                yield
            except FileNotFoundError as error:
                if not str(error.filename).startswith((str(self._partial), str(self._final))):
                    raise
                raise RecordError(f"{error.filename} vanished during the run: run the same command again.") from error

    def _existing(self) -> Record | None:
        if not self._final.exists():
            return None
        delete = f"delete the folder {self._final} and run it again."
        try:
            record = reading.read(self._final)
        except FileNotFoundError:
            raise RecordError(f"{self.label} has lost its run.json: {delete}") from None
        lost = [file for file in record.files if not files.inside(record.path, *file.split("/")).is_file()]
        if lost:
            raise RecordError(f"{self.label} has lost its {lost[0]}: {delete}")
        if record.status != "complete":
            raise RecordError(f"{self.label} has status {record.status}: {delete}")
        return record

    def _take_lock(self) -> None:
        with disk_errors(self._home):
            files.make_folder(self._home)
            try:
                self._lock.acquire(blocking=False)
            except Timeout:
                if not self._wait:
                    raise RecordError(f"Another process works on {self.label}: wait for it to end.") from None
                print(f"{self.label}: another process works on it; waiting for its record", flush=True)
                self._lock.acquire(poll_interval=0.2)

    def _start(self) -> None:
        curves.check()
        self._begin = time.perf_counter()
        head = {"schema": run_record.SCHEMA, "id": self.id, "notebook": self.notebook, "status": "running"}
        head |= {"started": _now(), "ended": None, "seconds": {}}
        tail = {"criteria": self._criteria(), "provenance": provenance.git_state()}
        tail |= {"environment": provenance.environment(), "launch": provenance.launch_command()}
        tail |= {"metrics": {}, "finish_reasons": {}, "files": {}, "error": None}
        if (self._partial / "run.json").is_file():
            # Whether the criteria were frozen before the run is judged by when its first part began.
            first = reading.read(self._partial)
            head["started"], tail["criteria"] = first.started, first.criteria
        self._content = head | self._content | tail
        self._write({})

    def _criteria(self) -> dict[str, str] | None:
        path = files.PARAMS / self.notebook / "criteria.yaml"
        name = provenance.portable(str(path)).removeprefix("./")
        return {"path": name, "sha256": files.content_hash(path)} if path.is_file() else None

    def _seconds(self) -> dict[str, float]:
        """Seconds each step took when it was really run, and in total with what this process did between its steps."""
        steps = {name: manifest["seconds"] for name, manifest in self._steps.done.items()}
        between = time.perf_counter() - self._begin - self._steps.spent
        return steps | {"total": round(sum(steps.values()) + between, 3)}

    def _ended(self) -> str:
        """Now, or when the run began if the clock was put back since."""
        return max(_now(), self._content["started"], key=datetime.fromisoformat)

    def _fail(self, error: Exception) -> None:
        sentence = provenance.portable(" ".join(f"{type(error).__name__}: {error}".split()))
        # On a full disk this cannot be written either. The error being raised says so already.
        with contextlib.suppress(RecordError, OSError):
            self._write({"status": "failed", "ended": self._ended(), "seconds": self._seconds(), "error": sentence})

    def _write(self, changes: dict[str, Any]) -> None:
        content = self._content | changes
        content["environment"] = content["environment"] | provenance.rows_noted(content["model"])
        content = provenance.portable(content)
        try:
            run_record.check(content)
        except ValueError as error:
            raise RecordError(f"{self.label} cannot be recorded: {error}.") from None
        files.write_record(self._partial / "run.json", content)

    def _must_be_open(self) -> None:
        if self.complete:
            raise RecordError(f"{self.label} is complete already: read run.record.")
        if not self._lock.is_locked:
            raise RecordError(f"{self.label} is not open: use it inside `with runs.open_run(...) as run`.")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

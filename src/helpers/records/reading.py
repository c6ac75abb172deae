"""Reading run records: one by its name, all of a notebook, or a table of cells.

A record is read where it was published or, if it is not there, where it was made (``outputs/<notebook>/<id>``): what is
published is checked, and a run of the same question that happens to lie here is not. Pages use only records whose
``run.json`` has the status ``complete``.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from helpers.base import files
from helpers.base.disk import disk_errors
from helpers.base.errors import RecordError, nearest
from helpers.records import run_record
from helpers.records.locks import is_locked
from helpers.system import provenance
from helpers.system.collector import gc_paused

PARTIAL = ".partial-"
MOST_SHARED = 16_384
"""Records that are held at once where they are shared, at about 56 KB each. Fewer than are there would be none."""


class Record:
    """One run. Every key of ``run.json`` (``run_record.RunRecord``) is an attribute: ``record.metrics``, say."""

    def __init__(self, path: Path, content: dict[str, Any], *, published: bool):
        self.path = path
        self.published = published
        self.content = content

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "content":  # copy and pickle ask before __init__ has run
            raise AttributeError(name)
        try:
            return self.content[name]
        except KeyError:
            raise AttributeError(f"{self.path} has no {name!r}{nearest(name, self.content)}") from None

    def __repr__(self) -> str:
        return f"<Record {self.ref} {self.status}>"

    @property
    def ref(self) -> str:
        """``<notebook>/<id>``: what ``load`` and ``inputs`` call this record."""
        return f"{self.notebook}/{self.id}"

    def metric(self, name: str) -> dict[str, Any]:
        """The metric ``name``: value, unit, n, k, low, high, method, level and extras. ``RecordError`` without it."""
        if name not in self.metrics:
            raise RecordError(f"{self.ref} has no metric {name!r}{nearest(name, self.metrics)}")
        return self.metrics[name]

    def table(self, name: str) -> pd.DataFrame:
        """The table ``name``, after checking that its file is the one that the run wrote.

        Columns may be changed freely; what lies within the cells of a list column is shared with later callers.
        """
        if name not in self.tables:
            raise RecordError(f"{self.ref} has no table {name!r}{nearest(name, self.tables)}")
        path = self.checked(f"{name}.parquet")
        return _table(str(path), self.files[path.name]).copy()

    @property
    def tables(self) -> list[str]:
        """Names of the tables."""
        return [name.removesuffix(".parquet") for name in self.files if name.endswith(".parquet") and "/" not in name]

    @property
    def results(self) -> Results:
        """All tables and JSON values that the run stored, by name."""
        return Results(self)

    def folder(self, name: str) -> Path:
        """The folder ``name`` (an adapter, say), after checking every file in it.

        Published records hold none: the folder is that of the run of the same question that was made here.
        """
        inside = [file for file in self.files if file.startswith(f"{name}/")]
        if not inside:
            folders = {file.partition("/")[0] for file in self.files if "/" in file}
            raise RecordError(f"{self.ref} has no folder {name!r}{nearest(name, folders)}")
        if self.published:
            here = made_here(self.ref)
            if here is None:
                raise RecordError(f"The folder {name} of {self.ref} was not published: run it again to make one.")
            return here.folder(name)
        for file in inside:
            self.checked(file)
        return self.path / name

    def checked(self, file: str) -> Path:
        """The path of one file of the record, after comparing its hash; ``RecordError`` if it is missing or changed."""
        if file not in self.files:
            raise RecordError(f"{self.ref} has no file {files.shown(file)}{nearest(file, self.files)}")
        path = files.inside(self.path, *file.split("/"))
        if not path.is_file():
            raise RecordError(f"{provenance.portable(str(path))} is missing: delete its record and run it again.")
        with disk_errors(path):
            sha = files.sha256_file(path)
        if sha != self.files[file]:
            raise RecordError(f"{provenance.portable(str(path))} was changed after its run: delete it and run again.")
        return path


class Results(Mapping[str, Any]):
    """What the steps of a run stored, tables as data frames and the rest as JSON values, read when asked for."""

    def __init__(self, record: Record):
        self._record = record
        self._names = {
            Path(name).stem: name for name in record.files if "/" not in name and name.endswith((".parquet", ".json"))
        }

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise RecordError(f"{self._record.ref} has no result {name!r}{nearest(name, self._names)}")
        if self._names[name].endswith(".parquet"):
            return self._record.table(name)
        return json.loads(self._record.checked(self._names[name]).read_text(encoding="utf-8"))

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@functools.lru_cache(maxsize=512)
def _table(path: str, sha256: str) -> pd.DataFrame:
    """Read a table, cached because a page asks for the same ones many times."""
    from pyarrow import parquet  # here, because many commands read no table

    return parquet.ParquetFile(path).read(use_threads=False).to_pandas(use_threads=False)


def load(ref: str | Path) -> Record:
    """The complete record ``"<notebook>/<id>"``, or the one in a folder given as an absolute ``Path``.

    ``RecordError`` when there is none, or when the name is no plain one.
    """
    places = [(files.published_root(), True), (files.outputs_root(), False)]
    if isinstance(ref, Path) and ref.is_absolute():
        folder = ref.parent if ref.name == "run.json" else ref
        places = [(folder.parent.parent, folder.resolve().is_relative_to(files.published_root().resolve()))]
        ref = f"{folder.parent.name}/{folder.name}"
    notebook, run_id = named(str(ref))
    for root, published in places:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            record = read(files.inside(root, notebook, run_id), published=published)
            if record.status != "complete":
                raise RecordError(f"{ref} is {record.status}, not complete: run it again.")
            return record
    known = [record.ref for record in records(notebook)]
    raise RecordError(f"There is no run record {ref}{nearest(str(ref), known) if known else ''}")


def made_here(ref: str) -> Record | None:
    """The run ``ref`` in the outputs folder, whatever is published of its question; ``None`` where there is none."""
    with contextlib.suppress(FileNotFoundError):
        return read(files.inside(files.outputs_root(), *named(ref)))
    return None


def named(ref: str) -> tuple[str, str]:
    """Notebook and id of ``"<notebook>/<id>"``, both plain names; ``RecordError`` otherwise."""
    notebook, _, run_id = ref.partition("/")
    where = f"the record name {files.shown(ref)}, which is <notebook>/<id>,"
    return files.plain_name(notebook, where), files.plain_name(run_id, where)


def used_by(record: Record) -> list[Record]:
    """The records that ``record`` used; ``RecordError`` when one is gone or named wrongly."""
    try:
        return [load(ref) for ref in record.inputs.values()]
    except RecordError as error:
        raise RecordError(f"{record.ref} used a record that cannot be read: {error}") from error


def read(folder: Path, *, published: bool = False) -> Record:
    """The record in ``folder`` whatever its status; ``FileNotFoundError`` where none is.

    ``RecordError`` when it is damaged, of another schema, reached through a symbolic link, or the record of another
    folder.
    """
    path = folder / "run.json"
    try:
        if folder.is_symlink() or not stat.S_ISREG(path.lstat().st_mode):
            raise RecordError(
                f"{path} is a symbolic link, lies behind one, or is not a file: put the record itself there."
            )
        return _reader(folder, published, files.stamp(path))
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(errno.ENOENT, "there is no record", str(path)) from None
    except OSError as error:
        raise RecordError(f"{path} cannot be read ({error.strerror}): check its permissions and its disk.") from None


def _read(folder: Path, published: bool, stamp: tuple[int, ...]) -> Record:
    text, where = (folder / "run.json").read_bytes(), provenance.portable(str(folder / "run.json"))
    content = parse(text, where, folder.parent.name, folder.name.removeprefix(PARTIAL))
    return Record(folder, content, published=published)


_reader: Callable[[Path, bool, tuple[int, ...]], Record] = _read


def share() -> None:
    """Read every record once from now on, and again where it changes. It is shared: leave its content as it is."""
    global _reader
    if _reader is _read:
        _reader = functools.lru_cache(maxsize=MOST_SHARED)(_read)


@contextlib.contextmanager
def read_once() -> Iterator[None]:
    """Share records (`share`) within this block."""
    global _reader
    before = _reader
    share()
    try:
        yield
    finally:
        _reader = before


def parse(text: bytes, where: str, notebook: str, run_id: str) -> dict[str, Any]:
    """The content of the ``run.json`` that lies at ``where``; ``RecordError`` unless it is that of this very record."""
    try:
        content = run_record.parse(text)
    except ValueError as error:
        raise RecordError(f"{where} cannot be read: {error}. Delete its record and run it again.") from None
    if (content["notebook"], content["id"]) != (files.plain_name(notebook), files.plain_name(run_id)):
        raise RecordError(f"{where} names another record than {notebook}/{run_id}, where it lies: delete it there.")
    return content


def records(notebook: str, status: str | None = "complete") -> list[Record]:
    """Records of a notebook, oldest first; ``status=None`` gives also the failed, the running and the partial ones.

    An unfinished run is ``running`` while a process holds its lock, otherwise ``partial`` (killed) or ``failed``. A
    record that is refused is ``unreadable``, and its ``error`` says why.
    A record both here and published counts once, as the published one.
    """
    by_id: dict[str, Record] = {}
    with gc_paused():
        for root, published in ((files.outputs_root(), False), (files.published_root(), True)):
            for name, path in folders(files.inside(root, notebook)):
                if name.startswith(PARTIAL):
                    half = _unfinished(path, notebook) if status != "complete" else None
                    if half is not None:
                        by_id.setdefault(half.id, half)
                elif not name.startswith("."):
                    with contextlib.suppress(FileNotFoundError):  # a folder without run.json is no record
                        by_id[name] = _readable(path, notebook, published)
    chosen = [record for record in by_id.values() if status in (None, record.status)]
    return sorted(chosen, key=lambda record: (record.started or "", record.id))


def published(only: str | None = None) -> Iterator[Record]:
    """Yield every complete published record, by notebook (or of the notebook ``only``) and id, not those in outputs."""
    homes = sorted(folders(files.published_root()))
    for notebook, path in homes if only is None else [home for home in homes if home[0] == only]:
        for place in (place for name, place in sorted(folders(path)) if not name.startswith(".")):
            with contextlib.suppress(FileNotFoundError):  # no record
                yield from (one for one in [_readable(place, notebook, True)] if one.status == "complete")


def folders(folder: Path) -> Iterator[tuple[str, Path]]:
    """Names and paths of the folders in ``folder``, records and halves; none where it does not exist.

    ``RecordError`` for a symbolic link to a folder, and where a folder cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            there = [entry for entry in entries if entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise RecordError(f"{folder} cannot be listed ({error.strerror}): check its permissions and disk.") from None
    for entry in there:
        if entry.is_symlink():
            raise RecordError(f"{entry.path} is a symbolic link: put the folder itself in its place.")
        yield entry.name, Path(entry.path)


def _readable(folder: Path, notebook: str, published: bool) -> Record:
    try:
        return read(folder, published=published)
    except RecordError as error:
        return _blank(folder, notebook, "unreadable", str(error), published=published)


def _blank(folder: Path, notebook: str, status: str, error: str | None = None, *, published: bool = False) -> Record:
    """Stand in for a run that has no readable ``run.json``."""
    name = folder.name.removeprefix(PARTIAL)
    content = {"id": name, "notebook": notebook, "status": status, "started": None, "error": error}
    empty = {"seconds": {}, "cell": {}, "metrics": {}, "inputs": {}, "files": {}, "data": {}, "model": {}}
    return Record(folder, content | empty, published=published)


def _unfinished(folder: Path, notebook: str) -> Record | None:
    """Return the unfinished run in ``folder``; if it has finished since it was listed, the complete one or None."""
    name = folder.name.removeprefix(PARTIAL)
    try:
        record = _readable(folder, notebook, published=False)
        if record.status == "running" and not is_locked(folder.parent, name):
            record = Record(folder, record.content | {"status": "partial"}, published=False)
    except FileNotFoundError:  # killed before the first write
        record = _blank(folder, notebook, "partial")
    if folder.is_dir():
        return record
    with contextlib.suppress(FileNotFoundError):
        return _readable(folder.with_name(name), notebook, published=False)
    return None


def table(notebook: str) -> pd.DataFrame:
    """One row a run, unfinished ones included: id, status, published, started, seconds, the axes, and for each metric
    ``<name>`` with ``<name>_n``, ``_k``, ``_low`` and ``_high``. What a run does not have is NaN, never zero."""
    with gc_paused():
        rows = [_row(record) for record in records(notebook, status=None)]
        return pd.DataFrame(rows, columns=None if rows else ["id", "status", "published", "started", "seconds"])


def _row(record: Record) -> dict[str, Any]:
    row = {"id": record.id, "status": record.status, "published": record.published, "started": record.started}
    row |= {"seconds": record.seconds.get("total"), **record.cell}
    # An unfinished run may have measured something already, but not everything: nothing of it is shown.
    for name, metric in record.metrics.items() if record.status == "complete" else ():
        row[name] = metric["value"]
        for key in ("n", "k", "low", "high"):
            row[f"{name}_{key}"] = metric.get(key)
    return row

"""Complete records at an address of fsspec (``s3://``, ``gs://``, ``file://``, ...), for machines that share no folder.

    <url>/<notebook>/<run id>.json    the record's run.json, written last: without it the record is not there
    <url>/files/<aa>/<sha256>         its files, by content, so that two machines that made one record cannot mix theirs
    <url>/.sweep-<mark>/              while a sweep runs: its mark, and one note for each row that has begun

Runs themselves happen in the outputs folder of each machine, because locks and renames need one.
"""

from __future__ import annotations

import contextlib
import json
import platform
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import fsspec
from filelock import FileLock, Timeout

from helpers.base import files, writers
from helpers.base.disk import FULL, disk_errors
from helpers.base.errors import ClaimbookError, RecordError, SweepError
from helpers.records import reading
from helpers.records.locks import lock_of
from helpers.records.reading import Record
from helpers.sweeps.tidy import MARK as SWEEP
from helpers.sweeps.watch import Watch

BATCH = 500  # heads read at a time
COPY_SECONDS = 10.0
MARK = "mark"
HALF = re.compile(rf".+\.{writers.WRITER}-[0-9a-f]{{8}}\.tmp")


class StoreLostError(SweepError):
    """The address could not be reached: the network's doing, so a row is tried again."""


class Store:
    """The records at ``url``. Every method raises ``SweepError`` where the address does not allow what is asked, and
    ``StoreLostError`` where it cannot be reached."""

    def __init__(self, url: str) -> None:
        if "://" not in url:
            raise SweepError(
                f"The store {url!r} is no address such as s3://bucket/folder: a folder that all machines share is "
                "named by CLAIMBOOK_OUTPUTS."
            )
        if url.startswith("file://") and not url.startswith("file:///"):
            raise SweepError(f"The store {url!r} is no whole path: write file:///folder, with three slashes.")
        self.url = url
        self._seen: set[str] = set()
        self._pushed: set[str] = set()
        try:
            self._fs, base = fsspec.url_to_fs(url)
        except ValueError as error:
            raise SweepError(f"The store {url} cannot be used ({_said(error)}): correct its first part.") from error
        except ImportError as error:
            raise SweepError(
                f"The store {url} needs a package ({_said(error)}): install it on every machine."
            ) from error
        self._base = base.rstrip("/")

    def write(self, name: str, content: bytes) -> None:
        """Write a small object, whole or not at all."""
        path = self._path(name)
        temporary = f"{path}.{writers.writer()}-{secrets.token_hex(4)}.tmp"
        with self._reached():
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._fs.pipe_file(temporary, content)
            self._fs.mv(temporary, path)

    def read(self, name: str) -> bytes | None:
        """A small object, or None where there is none."""
        with self._reached():
            try:
                return self._fs.cat_file(self._path(name))
            except FileNotFoundError:
                return None

    def names(self, folder: str) -> list[str]:
        """Names of the whole objects in ``folder``; none where it does not exist."""
        return [name for name in self._listed(folder) if not name.endswith(".tmp")]

    def _listed(self, folder: str) -> list[str]:
        with self._reached():
            self._fs.invalidate_cache()
            try:
                paths = self._fs.ls(self._path(folder), detail=False)
            except FileNotFoundError:
                return []
        return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)

    def tidy(self, notebook: str) -> None:
        """Delete the marks of sweeps, and the objects of ``notebook`` half-written, whose process on this machine is
        no more."""
        for name in self.names(""):
            mark = self.read(f"{name}/{MARK}") if SWEEP.fullmatch(name) else None
            if mark and writers.is_dead(mark.decode()):
                self.remove(name)
        for name in self._listed(notebook):
            half = HALF.fullmatch(name)
            if half and writers.is_dead(half["writer"]):
                self.remove(f"{notebook}/{name}")

    def remove(self, folder: str) -> None:
        """Delete an object, or a folder with all that is in it."""
        with self._reached(), contextlib.suppress(FileNotFoundError):
            self._fs.rm(self._path(folder), recursive=True)

    def keep(self, path: Path, name: str) -> None:
        """Copy a file there."""
        target = self._path(name)
        with self._reached():
            self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            self._fs.put_file(str(path), target)

    def push(self, record: Record, users: tuple[str, ...] = ()) -> None:
        """Copy a complete record and those it used there, unless they are there already: the first one wins.

        ``users`` are the records that used it.
        """
        if record.ref in self._pushed:
            return
        _refuse_circle(record.ref, users)
        if self._size(f"{record.ref}.json") is None:
            for used in reading.used_by(record):
                self.push(used, (*users, record.ref))
            try:
                self._push_files(record)
            except OSError as error:
                raise RecordError(
                    f"{record.ref} cannot be read here ({error.strerror}): run the same command again."
                ) from error
        self._pushed.add(record.ref)

    def _push_files(self, record: Record) -> None:
        for file, sha in record.files.items():
            # A copy that was cut off is there, but shorter.
            path = files.inside(record.path, *file.split("/"))
            if not path.is_file() or self._size(_place(sha)) != path.stat().st_size:
                self.keep(record.checked(file), _place(sha))
        self.write(f"{record.ref}.json", (record.path / "run.json").read_bytes())

    def fetch(self, ref: str, users: tuple[str, ...] = ()) -> None:
        """Copy the record ``<notebook>/<id>``, and those it used, into the outputs folder of this machine.

        One that is here, or is being made here, stays as it is. ``users`` are the records that used it.
        """
        with self._refusing(ref):
            _refuse_circle(ref, users)
            notebook, run_id = reading.named(ref)
            final = files.inside(files.outputs_root(), notebook, run_id)
        if (final / "run.json").is_file():
            return
        head = self.read(f"{ref}.json")
        if head is None:
            raise SweepError(
                f"{self.url} holds a record that used {ref}, but not {ref} itself: delete the former there."
            )
        with self._refusing(ref):
            content = reading.parse(head, "it", notebook, run_id)
            sources = {file: _place(sha) for file, sha in content["files"].items()}
            for file in sources:
                files.inside(final, *file.split("/"))
        for used in content["inputs"].values():
            self.fetch(used, (*users, ref))
        with disk_errors(final):
            self._fill(final, head, sources)

    def bring(self, notebook: str, wanted: Callable[[Record], bool]) -> None:
        """Fetch each record of ``notebook`` that is ``wanted`` and has come there since this was last asked."""
        home = files.inside(files.outputs_root(), notebook)
        new = [name for name in self.names(notebook) if name.endswith(".json") and name not in self._seen]
        away = [name for name in new if not (home / name.removesuffix(".json") / "run.json").is_file()]
        for start in range(0, len(away), BATCH):
            heads = self._heads(notebook, away[start : start + BATCH])
            for record in [Record(home / content["id"], content, published=False) for content in heads]:
                if wanted(record):
                    self.fetch(record.ref)
        self._seen |= set(new)

    def _heads(self, notebook: str, names: list[str]) -> list[dict[str, Any]]:
        """The heads of these records, read together, because each takes a while to come."""
        paths = []
        for name in names:
            with self._refusing(f"{notebook}/{name.removesuffix('.json')}"):
                paths.append(self._path(f"{notebook}/{files.plain_name(name)}"))
        with self._reached():
            heads = {path.rpartition("/")[2]: head for path, head in self._fs.cat(paths).items()}
        contents = []
        for name, head in heads.items():
            with self._refusing(f"{notebook}/{name.removesuffix('.json')}"):
                contents.append(reading.parse(head, "it", notebook, name.removesuffix(".json")))
        return contents

    def _fill(self, final: Path, head: bytes, sources: dict[str, str]) -> None:
        """Make the record in its folder, whole or not at all, unless it is there or is being made here."""
        home, run_id = final.parent, final.name
        home.mkdir(parents=True, exist_ok=True)
        lock = FileLock(lock_of(home, run_id))
        try:
            with lock.acquire(blocking=False):
                if not final.exists():
                    with files.new_folder(final) as folder:
                        for file, source in sources.items():
                            self._get(source, folder / file)
                        (folder / "run.json").write_bytes(head)
                    shutil.rmtree(home / f"{reading.PARTIAL}{run_id}", ignore_errors=True)
                Path(lock.lock_file).unlink(missing_ok=True)
        except Timeout:
            return

    def _get(self, source: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._reached(), disk_errors(target):
            self._fs.get_file(self._path(source), str(target))
        if files.sha256_file(target) != source.rpartition("/")[2]:
            raise SweepError(f"{self.url}/{source} is damaged: delete it there and run the same command again.")

    def _size(self, name: str) -> int | None:
        path = self._path(name)
        with self._reached():
            try:
                return self._fs.info(path)["size"]
            except FileNotFoundError:
                return None

    def _path(self, name: str) -> str:
        return f"{self._base}/{name}"

    @contextlib.contextmanager
    def _refusing(self, ref: str) -> Iterator[None]:
        try:
            yield
        except RecordError as error:
            raise SweepError(
                f"{self.url} holds a record {files.shown(ref)} that is refused ({_said(error)}): delete it there."
            ) from error

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        where = f"from {platform.node()}"
        try:
            yield
        except ClaimbookError:
            raise
        except PermissionError as error:
            raise SweepError(
                f"The store {self.url} does not allow this {where} ({_said(error)}): check its rights and credentials."
            ) from error
        except FileNotFoundError as error:
            raise SweepError(f"The store {self.url} lacks what was looked for {where} ({_said(error)}).") from error
        except Exception as error:
            if isinstance(error, OSError) and error.errno in FULL:
                raise SweepError(f"No space is left in the store {self.url}: free some there.") from error
            # Each kind of address has errors of its own (botocore, aiohttp, google), which have no base in common.
            raise StoreLostError(
                f"The store {self.url} could not be used {where} ({type(error).__name__}: {_said(error)}): run the "
                "same command again."
            ) from error


@contextlib.contextmanager
def copied(store: Store, notebook: str, watch: Watch, note: str, shared: Iterable[str]) -> Iterator[None]:
    """While a row works, copy its cells to ``store`` as they become complete.

    Before that, fetch the records that all rows share, and those that an earlier try of this row, on a machine that was
    lost, has copied there: their names are in ``note``.
    """
    for ref in (*shared, *json.loads(store.read(note) or b"[]")):
        store.fetch(ref)
    home, over = files.inside(files.outputs_root(), notebook), threading.Event()

    def copy() -> None:
        watch.look()
        for run_id in watch.complete.values():
            store.push(reading.read(home / run_id))
        store.write(note, json.dumps([f"{notebook}/{run_id}" for run_id in watch.complete.values()]).encode())

    def follow() -> None:
        while not over.wait(COPY_SECONDS):
            with contextlib.suppress(ClaimbookError):  # the last copy, below, tells
                copy()

    copy()
    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield
    finally:
        over.set()
        follower.join()
        copy()


def _place(sha: str) -> str:
    return f"files/{files.plain_name(sha)[:2]}/{sha}"


def _refuse_circle(ref: str, users: tuple[str, ...]) -> None:
    if ref in users:
        raise RecordError(f"{ref} used itself by way of {users[-1]}, so neither can be copied: delete both.")


def _said(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__

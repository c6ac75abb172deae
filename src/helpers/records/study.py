"""What every study is: a name, versions, the parameters of a cell, and metrics that follow from stored tables.

    STUDY = Study("sweep", VERSION, METRICS_VERSION, metrics, entry="helpers.studies.marker.cell",
                  cell=SweepCell)

``params/<notebook>/experiment.yaml`` names it once (``study: helpers.studies.marker.study:STUDY``); records name it by
``Study.name``, so that code can move without touching a record. Records that cells share (a baseline, on-policy data)
are studies of their own, listed in ``parts``.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import importlib
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from helpers.base import files, yaml_text
from helpers.base.errors import DataError, ParameterError, RecordError, nearest
from helpers.base.files import shown
from helpers.base.params import C, Cell
from helpers.system.source import home_of

if TYPE_CHECKING:
    import pandas as pd

    from helpers.records.reading import Record

Metrics = dict[str, dict[str, Any]]
Tables = Mapping[str, Any]
"""Results of a record's steps by name: a data frame for a table, JSON values for the rest; read when asked for."""


@dataclass(frozen=True)
class Size:
    """How much one run is asked: questions, completions of each, and items of a benchmark (``None``: not known).

    ``most_questions`` and ``most_samples`` are all that the study can ask (``None``: as many as one likes).
    """

    questions: int
    samples: int = 1
    items: int | None = None
    most_questions: int | None = None
    most_samples: int | None = None

    def __str__(self) -> str:
        return f"{self.questions} questions x {self.samples} sample{'s' * (self.samples > 1)}"


@dataclass(frozen=True)
class Study:
    """One kind of record.

    ``version`` is raised when the tables come out differently, ``metrics_version`` when the same tables give other
    metrics. ``metrics(cell, tables, inputs)`` is pure: ``cell`` holds the resolved parameters of the record,
    ``tables`` its results, ``inputs`` the records that it used by name. ``added`` gives each parameter that is younger
    than the first records its value that reproduces the old behaviour: at that value it is no part of the question.
    ``measured`` names columns of tables that differ between equal runs (seconds, memory), ``measures`` the metrics
    (by name or pattern) that are measured so and that no table gives, ``tolerance`` how far metrics may differ on
    another kind of CPU or other packages (relative), ``tolerances`` the same of single metrics. ``axes`` gives, for an
    axis of a record's cell that is no parameter of one value, the values that the record's content allows for (the name
    of a list, say). ``entry`` is the module that makes the records: its imports are the code that they reach, and
    ``run_cells(p, notebook=...)`` of a main study is what a notebook calls. ``replay(record)`` makes the record again.
    ``by_question(record, metric)`` gives successes and trials of a rate by question, None for a rate whose trials share
    no question. ``size(params)`` says how much a run of these parameters is asked; it is left out where seeds are all
    that there can be more of.

    ``asked_in`` names, for each table whose lines answer evaluation questions, the column that says which. ``readings``
    are other defensible ways to read the tables, by what they do ("answers that were cut are left out"): for a table,
    each has a function of record and table that returns what is read in its place, the table itself if that is equal.
    """

    name: str
    version: int
    metrics_version: int
    metrics: Callable[[Mapping[str, Any], Tables, Mapping[str, Record]], Metrics]
    entry: str
    cell: type[Cell] | None = None
    replay: Callable[[Record], Record] | None = None
    by_question: Callable[[Record, str], Mapping[Any, tuple[int, int]] | None] | None = None
    size: Callable[[Mapping[str, Any]], Size] | None = None
    added: Mapping[str, Any] = field(default_factory=dict)
    measured: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    measures: tuple[str, ...] = ()
    tolerance: float = 1e-3
    tolerances: Mapping[str, float] = field(default_factory=dict)
    axes: Mapping[str, Callable[[Mapping[str, Any]], Collection[Any]]] = field(default_factory=dict)
    parts: tuple[Study, ...] = ()
    asked_in: Mapping[str, str] = field(default_factory=dict)
    readings: Mapping[str, Mapping[str, Callable[[Record, pd.DataFrame], pd.DataFrame]]] = field(default_factory=dict)

    def asked(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``params`` without those that were added later and have the value that keeps the old behaviour."""
        return {name: value for name, value in params.items() if self.added.get(name, _NEVER) != value}

    def is_measured(self, metric: str) -> bool:
        """Whether a record may state ``metric`` although its tables do not give it."""
        return any(fnmatch.fnmatchcase(metric, pattern) for pattern in self.measures)

    def comparison(self) -> list[Any]:
        """Return how records of this study are compared with their replays, as JSON values."""
        measured = {table: list(columns) for table, columns in self.measured.items()}
        return [self.name, measured, list(self.measures), self.tolerance, dict(self.tolerances)]

    def family(self) -> Iterator[Study]:
        """Yield this study and all parts below it."""
        yield self
        for part in self.parts:
            yield from part.family()


_NEVER = object()
SLUG = re.compile(r"[a-z][a-z0-9_]{0,59}")
"""What may name a study that a command makes: it is a folder and stands in criteria."""
BUILT_IN = ("helpers.studies.imported.study:STUDY",)
"""Studies whose records need no params of their own: logs that somebody else imported."""


def load_study(notebook: str, root: Path | None = None) -> Study:
    """Return the study that ``params/<notebook>/experiment.yaml`` names; ``RecordError`` without one."""
    return _load(study_place((root or files.ROOT) / "params" / notebook))


def study_place(folder: Path) -> str:
    """Return ``module:NAME`` of the study that ``experiment.yaml`` in a folder of params names."""
    path = folder / "experiment.yaml"
    if not path.is_file():
        raise RecordError(f"params/{folder.name}/experiment.yaml is missing. Write `study: module:STUDY` in it.")
    return _place(str(path), path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _place(path: str, mtime_ns: int) -> str:
    content = yaml_text.read(files.read_text(Path(path), RecordError), path, RecordError)
    if not isinstance(content, dict) or set(content) != {"study"} or not isinstance(content["study"], str):
        raise RecordError(f"{path} must hold one line, `study: module:STUDY`.")
    return content["study"]


@functools.lru_cache(maxsize=256)
def _load(place: str) -> Study:
    module, _, name = place.partition(":")
    try:
        study = getattr(import_module(module), name)
    except Exception as error:  # a module that somebody is writing raises anything
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise RecordError(f"The study {place} cannot be imported ({said}). Correct it, or experiment.yaml.") from error
    if not isinstance(study, Study):
        raise RecordError(f"{place} is a {type(study).__name__}, not a Study. Check experiment.yaml.")
    return study


def _is_imported(folder: Path) -> bool:
    """Whether the study of a folder of params is in memory: looking there first spares imports."""
    with contextlib.suppress(RecordError):
        return study_place(folder).partition(":")[0] in sys.modules
    return False


def import_module(name: str) -> ModuleType:
    """Import a module of a study, which may also lie beside its notebook."""
    beside = str(files.NOTEBOOKS)
    if home_of(name) is None and beside not in sys.path:
        sys.path.append(beside)
        importlib.invalidate_caches()
    return importlib.import_module(name)


def check_name(name: str, place: str, root: Path) -> None:
    """Raise ``DataError`` where ``name`` cannot name a study, or is taken by another one than ``place``."""
    if not SLUG.fullmatch(name):
        raise DataError(f"--name {shown(name)} cannot name a study. Use lower-case letters, digits and '_'.")
    folder = root / "params" / name
    taken = (folder / "experiment.yaml").is_file() and study_place(folder) == place
    homes = [files.inside(home, name) for home in (files.outputs_root(), files.published_root())]
    if folder.is_dir() and not taken:
        raise DataError(f"params/{name} belongs to another study. Choose another --name.")
    if name == files.published_root().name or (not taken and any(home.is_dir() for home in homes)):
        raise DataError(f"outputs/{name} holds what is not of this study. Choose another --name.")


def own_cells(model: type[C], cells: Any) -> Sequence[C]:
    """Return ``cells`` if they are cells of ``model``, at least one, as a grid or a list; ParameterError otherwise."""
    if not isinstance(cells, Sequence) or isinstance(cells, str | bytes):
        raise ParameterError(f"The cells to run are {shown(cells)}: give a list of {model.__name__}, or a grid of it.")
    strange = [cell for cell in cells if not isinstance(cell, model)]
    if strange or not cells:
        what = f"{shown(strange[0])} is not one" if strange else "the list is empty"
        raise ParameterError(f"The cells to run must be of {model.__name__}, but {what}. Read them by helpers.params.")
    return cells


def find_study(name: str, root: Path | None = None) -> Study:
    """Return the study called ``name``, a main study or a part of one.

    Raises ``RecordError`` when there is none. A study that cannot be loaded does not hide the others.
    """
    known: dict[str, Study] = {}
    broken: RecordError | None = None
    params = (root or files.ROOT) / "params"
    folders = sorted(path.parent.name for path in params.glob("*/experiment.yaml"))
    folders.sort(key=lambda notebook: (notebook != name, not _is_imported(params / notebook)))
    for notebook in folders:
        try:
            known |= {study.name: study for study in load_study(notebook, root).family()}
        except RecordError as error:
            broken = broken or error
        if name in known:
            return known[name]
    known |= {study.name: study for place in BUILT_IN for study in _load(place).family()}
    if name in known:
        return known[name]
    raise RecordError(f"There is no study {name!r}{nearest(name, known)}") from broken

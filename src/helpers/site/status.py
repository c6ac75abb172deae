"""The state of every declared cell and of every claim page, and why something is stale."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from helpers.audit import committed
from helpers.base.errors import ClaimbookError, ClaimError, RecordError, nearest
from helpers.base.files import PARAMS, REPORTS, ROOT
from helpers.cases.case import Case, ExperimentRecords, declared_runs, read_experiment
from helpers.cases.changed import criteria_now, data_elsewhere
from helpers.cases.drafts import Draft, open_page
from helpers.claims.confidence import MEASURED
from helpers.claims.declared import Declared, Expected, telling
from helpers.claims.evidence import label
from helpers.records import ledger
from helpers.records.reading import Record, read_once
from helpers.site import kept
from helpers.system import provenance
from helpers.system.collector import gc_paused
from helpers.system.provenance import portable

State = Literal["complete", "missing", "failed", "partial", "running", "stale", "ad hoc", "unreadable"]
DRAFT = "DRAFT"
NOT_GRIDS = ("experiment.yaml", "criteria.yaml")
"""Endings of the files in ``params/<notebook>/`` that declare no runs."""


@dataclass(frozen=True)
class CellStatus:
    """A declared run: of which params file, its cell, its state, and why (what changed, or the error).

    An unreadable record belongs to no declared run: its ``grid`` is the folder that holds it, its ``cell`` its name.
    Of an unreadable params file the name is the ``cell``. An ad-hoc record is one that no params file declares; its
    ``grid`` is the file that declares the nearest run, and ``why`` how the two differ.
    """

    notebook: str
    grid: str
    cell: str
    state: State
    why: tuple[str, ...] = ()
    record: str | None = None


@dataclass(frozen=True)
class PageStatus:
    """A claim's page: verdict, stated confidence, why its records are stale, and how the criteria have changed.

    ``code`` says of records that were made before a commit whether their code is committed since. ``measured`` says of
    how many records nothing can derive the judged numbers again.

    The ``verdict`` of a draft is DRAFT, and ``why`` the first thing that it lacks.
    """

    page: str
    claim: str
    experiment: str
    verdict: str
    confidence: str
    stale: tuple[str, ...] = ()
    changed: str = ""
    code: str = ""
    measured: str = ""

    @property
    def why(self) -> tuple[str, ...]:
        """Everything that has changed since the runs."""
        return (*self.stale, *filter(None, [self.changed]))


@read_once()
def status(notebook: str | None = None) -> tuple[list[CellStatus], list[PageStatus]]:
    """Return every declared run of one notebook (or of all that have an experiment.yaml), and every claim page.

    ``ClaimError`` for a notebook that declares none.
    """
    declared = sorted(path.parent.name for path in PARAMS.glob("*/experiment.yaml"))
    if notebook is not None and notebook not in declared:
        raise ClaimError(f"There is no params/{notebook}/experiment.yaml{nearest(notebook, declared)}")
    notebooks = declared if notebook is None else [notebook]
    known = {name: read_experiment(name) for name in notebooks}
    cells = [row for name, found in known.items() for row in cells_of(name, found)]
    pages = [page_status(page) for page in pages_in(known=known)]
    return cells, [page for page in pages if notebook is None or page.experiment in ("", notebook)]


def answer(notebook: str | None = None) -> kept.Answer:
    """Return what `claimbook status` prints, a few lines a claim (``summary``) or every cell (``whole``)."""
    from helpers.site import listing

    with gc_paused(), read_once():
        cells, pages = status(notebook)
        outside = frozenset[str]()
        with contextlib.suppress(RecordError):  # a link to a folder, beside which nothing is kept
            outside = frozenset(map(str, data_elsewhere()))
    lines = {"summary": listing.summary(cells, pages), "whole": listing.whole(cells, pages)}
    return kept.Answer(lines, outside, all(cell.state != "running" for cell in cells))


def cases_in(
    folder: Path = REPORTS,
    root: Path = ROOT,
    known: Mapping[str, ExperimentRecords] | None = None,
    opened: Case | None = None,
    only: Collection[Path] | None = None,
) -> Iterator[Case]:
    """Open every finished claim page in ``folder``, as `pages_in` does."""
    return (page for page in pages_in(folder, root, known, opened, only) if isinstance(page, Case))


def pages_in(
    folder: Path = REPORTS,
    root: Path = ROOT,
    known: Mapping[str, ExperimentRecords] | None = None,
    opened: Case | None = None,
    only: Collection[Path] | None = None,
) -> list[Case | Draft]:
    """Open every claim page in ``folder``, drafts among them; with ``known`` only those of these experiments.

    ``opened`` is a page that is already open; ``only`` are the pages that are looked at. Of two pages with one claim id
    the one not registered is a draft.
    """
    pages: list[Case | Draft] = []
    for path in sorted(folder.glob("[!_]*.qmd")):
        if only is not None and path not in only:
            continue
        is_open = opened is not None and path.resolve() == opened.path.resolve()
        page = opened if is_open else open_page(path, root, known)
        pages += [page] if page is not None else []
    first: dict[str, Case] = {}
    asked = registered_pages()
    for case in sorted(
        (page for page in pages if isinstance(page, Case)), key=lambda case: case.path.name not in asked
    ):
        other = first.setdefault(case.claim.id, case)
        if other is not case:
            why = f"claim.id is {case.claim.id!r}, which is that of {other.path.name}: choose another."
            pages[pages.index(case)] = Draft(case.path, why, case.claim)
    return pages


def registered_pages() -> set[str]:
    """Return the names of the pages whose question stands in the ledger; none where it cannot be read."""
    with contextlib.suppress(RecordError):  # lint and verify say so
        return {Path(name).name for name in ledger.read().standing("question")}
    return set()


def cells_of(notebook: str, known: ExperimentRecords | None = None, root: Path = ROOT) -> list[CellStatus]:
    """Return the declared runs of every params file of ``notebook``, and its unreadable records.

    Its records are read unless ``known`` holds them. A record stands for a run only if all parameters agree.
    """
    experiment = known or read_experiment(notebook, root)
    started = [record for record in experiment.records if "params" in record.content]
    rows, grids, met = [], dict[str, Sequence[Expected]](), set[str]()
    head = committed.head_now()
    for name, expected in _declared(notebook, root):
        if isinstance(expected, ClaimbookError):
            why = (portable(str(expected)),)
            rows.append(CellStatus(notebook, name, name.rpartition("/")[2], "unreadable", why))
            continue
        mine: dict[int, list[Record]] = {}
        declared = Declared(expected)
        for record in started:
            for number in declared.met(record):
                mine.setdefault(number, []).append(record)
                met.add(record.id)
        grids[name] = expected
        told = telling([one.key for one in expected])
        for number, one in enumerate(expected):
            cell = label({axis: one.key[axis] for axis in told if axis in one.key})
            rows.append(CellStatus(notebook, name, cell, *_state(mine.get(number, []), experiment.stale, head)))
    rows += [_ad_hoc(record, grids) for record in experiment.complete if record.id not in met]
    return rows + [_unreadable(record) for record in experiment.records if record.status == "unreadable"]


def ad_hoc_of(case: Case) -> list[CellStatus]:
    """Return the records of a case's experiment that no params file declares."""
    known = ExperimentRecords(case.records, case.stale)
    return [cell for cell in cells_of(case.claim.experiment, known, case.root) if cell.state == "ad hoc"]


def _declared(notebook: str, root: Path) -> Iterator[tuple[str, Sequence[Expected] | ClaimbookError]]:
    """Yield each params file of a notebook with the runs that it declares, or why it cannot be read."""
    for path in sorted((root / "params" / notebook).glob("*.yaml")):
        if not path.name.endswith(NOT_GRIDS):
            name = path.relative_to(root).as_posix()
            try:
                yield name, declared_runs(notebook, path, root)
            except ClaimbookError as error:
                yield name, error


def _ad_hoc(record: Record, grids: Mapping[str, Sequence[Expected]]) -> CellStatus:
    """Return the state of a complete record that no params file declares: how it differs from the nearest run."""
    nearest_run: tuple[int, str, list[str]] | None = None
    for grid, expected in grids.items():
        for one in expected:
            off = [name for name in one.params if one.params[name] != record.params.get(name)]
            if nearest_run is None or len(off) < nearest_run[0]:
                said = [f"{name} is {record.params.get(name)!r}, not {one.params[name]!r}" for name in off]
                nearest_run = (len(off), grid, said or ["it has parameters that the file does not name"])
    grid, why = nearest_run[1:] if nearest_run else (f"params/{record.notebook}", ["no params file declares a run"])
    return CellStatus(record.notebook, grid, label(record.cell), "ad hoc", tuple(why), record.id)


def _unreadable(record: Record) -> CellStatus:
    folder = provenance.portable(str(record.path.parent)).removeprefix("./")
    return CellStatus(record.notebook, folder, record.id, "unreadable", (record.error,), record.id)


def _state(
    mine: Sequence[Record], stale: Mapping[str, list[str]], head: str
) -> tuple[State, tuple[str, ...], str | None]:
    """Return the state of a run from its records, why, and the id of the record that decides it."""
    whole = [record for record in mine if record.status == "complete"]
    fresh = [record for record in whole if record.id not in stale]
    if fresh:
        why = (*_criteria(fresh[-1]), *filter(None, [committed.state(fresh[-1], head)]))
        return "complete", why, fresh[-1].id
    if whole:
        return "stale", tuple(stale[whole[-1].id]), whole[-1].id
    if mine:
        why = (mine[-1].content["error"],) if mine[-1].content.get("error") else ()
        return mine[-1].status, why, mine[-1].id
    return "missing", (), None


def _criteria(record: Record) -> tuple[str, ...]:
    changed = record.criteria is not None and record.criteria["sha256"] != criteria_now(record)
    return ("criteria",) if changed else ()


def page_status(case: Case | Draft) -> PageStatus:
    """Return the status of one page."""
    if isinstance(case, Draft):
        return PageStatus(case.name, "", case.claim.experiment if case.claim else "", DRAFT, "", (case.why,))
    verdict, confidence = case.verdict(), case.confidence()
    parts = sorted({part for why in verdict.stale.values() for part in why})
    stale = [f"{part} changed since {len(verdict.stale)} of {len(verdict.records)} runs" for part in parts]
    page = provenance.portable(str(case.path)).removeprefix("./")
    measured = next((row.found for row in confidence.rows if row.name == MEASURED.name), "")
    return PageStatus(
        page, case.claim.id, case.claim.experiment, verdict.word, confidence.stated, tuple(stale), confidence.changed,
        committed.sentence(case.evidence().records), measured,
    )  # fmt: skip

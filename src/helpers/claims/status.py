"""What is there and what is not: the cells of each experiment, the claims of each page, and why something is stale."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from helpers import provenance
from helpers import records as store
from helpers.claims.case import Case, declared_runs, open_case, stale_records
from helpers.claims.claim import has_claim, read_claim
from helpers.claims.declared import Declared, Expected, Key, telling
from helpers.claims.evidence import full_key, label
from helpers.files import PARAMS, REPORTS, ROOT
from helpers.records import Record

State = Literal["complete", "missing", "failed", "partial", "running", "stale"]
NOT_GRIDS = ("experiment.yaml", "criteria.yaml")


@dataclass(frozen=True)
class CellStatus:
    """A declared run: of which params file, its cell, its state, and why (what changed, or the error)."""

    notebook: str
    grid: str
    cell: str
    state: State
    why: tuple[str, ...] = ()
    record: str | None = None


@dataclass(frozen=True)
class PageStatus:
    """A claim's page: verdict, stated confidence, whether a record behind it is stale or the criteria have changed."""

    page: str
    claim: str
    experiment: str
    verdict: str
    confidence: str
    why: tuple[str, ...] = ()

    @property
    def stale(self) -> bool:
        """Whether the page must carry a banner."""
        return bool(self.why)


def status(
    notebook: str | None = None, models: Mapping[str, str] | None = None
) -> tuple[list[CellStatus], list[PageStatus]]:
    """Every declared run of one notebook (or of all that have an experiment.yaml), and every page with a claim.

    ``models`` as in `case.stale_records`: content hashes of base models as they are now.
    """
    notebooks = [notebook] if notebook else sorted(path.parent.name for path in PARAMS.glob("*/experiment.yaml"))
    cells = [row for name in notebooks for row in cells_of(name, models)]
    pages = [page_status(case) for case in cases_in(experiments=notebooks)]
    return cells, pages


def cases_in(folder: Path = REPORTS, root: Path = ROOT, experiments: Collection[str] | None = None) -> Iterator[Case]:
    """Every page with a claim in ``folder`` (about one of ``experiments``, if given), opened."""
    for path in sorted(folder.glob("*.qmd")):
        if has_claim(path) and (experiments is None or read_claim(path, root).experiment in experiments):
            yield open_case(path, root)


def cells_of(notebook: str, models: Mapping[str, str] | None = None, root: Path = ROOT) -> list[CellStatus]:
    """The declared runs of every params file of ``notebook``."""
    found = store.records(notebook, status=None)
    stale = stale_records([record for record in found if record.status == "complete"], models)
    keyed = [(record, full_key(record)) for record in found if "params" in record.content]
    rows = []
    for path in sorted((root / "params" / notebook).glob("*.yaml")):
        if path.name not in NOT_GRIDS:
            expected = declared_runs(notebook, path, root)
            told = telling([one.key for one in expected])
            name = path.relative_to(root).as_posix()
            known = _Known(expected, told, keyed)
            rows += [_cell_status(notebook, name, one, told, known.of(i), stale) for i, one in enumerate(expected)]
    return rows


class _Known:
    """What is recorded for each declared run: the records that it is, and those at its place in the grid.

    ``records`` come with their full keys, which all grids of an experiment share.
    """

    def __init__(
        self, expected: Sequence[Expected], told: Sequence[str], records: Sequence[tuple[Record, Key]]
    ) -> None:
        declared = Declared(expected)
        self.expected = expected
        self.axes = [axis for axis in dict.fromkeys((*told, "model")) if any(axis in one.key for one in expected)]
        self.mine: dict[int, list[Record]] = {}
        self.placed: dict[tuple[Any, ...], list[Record]] = {}
        for record, key in records:
            self.placed.setdefault(self._place(key), []).append(record)
            for number in declared.met(record):
                self.mine.setdefault(number, []).append(record)

    def of(self, number: int) -> tuple[list[Record], list[Record]]:
        """The records that run ``number`` is, and the complete ones with its axes and its model."""
        placed = self.placed.get(self._place(self.expected[number].key), [])
        return self.mine.get(number, []), [record for record in placed if record.status == "complete"]

    def _place(self, key: Mapping[str, Any]) -> tuple[Any, ...]:
        values = (key.get(axis) for axis in self.axes)
        return tuple(None if isinstance(value, list | dict) else value for value in values)


def _cell_status(
    notebook: str,
    grid: str,
    one: Expected,
    told: Sequence[str],
    known: tuple[list[Record], list[Record]],
    stale: Mapping[str, list[str]],
) -> CellStatus:
    """``known``: the records that the run is, and those in its place under other parameters."""
    cell = label({axis: one.key[axis] for axis in told})
    mine, other = known
    whole = [record for record in mine if record.status == "complete"]
    fresh = [record for record in whole if record.id not in stale]
    if fresh:
        return CellStatus(notebook, grid, cell, "complete", _criteria(fresh[-1]), fresh[-1].id)
    if whole:
        return CellStatus(notebook, grid, cell, "stale", tuple(stale[whole[-1].id]), whole[-1].id)
    if mine:
        why = (mine[-1].content["error"],) if mine[-1].content.get("error") else ()
        return CellStatus(notebook, grid, cell, mine[-1].status, why, mine[-1].id)
    if other:
        return CellStatus(notebook, grid, cell, "stale", (_params(one, other[-1]),), other[-1].id)
    return CellStatus(notebook, grid, cell, "missing")


def _params(one: Expected, record: Record) -> str:
    changed = [name for name, value in one.key.items() if full_key(record).get(name) != value]
    return f"params ({', '.join(changed) or 'a list'})"


def _criteria(record: Record) -> tuple[str, ...]:
    changed = record.criteria is not None and record.criteria["sha256"] != store.criteria_now(record)
    return ("criteria",) if changed else ()


def page_status(case: Case) -> PageStatus:
    """The row of one page."""
    verdict, confidence = case.verdict(), case.confidence()
    parts = sorted({part for why in verdict.stale.values() for part in why})
    why = [f"{part} changed since {len(verdict.stale)} of {len(verdict.records)} runs" for part in parts]
    why += [confidence.changed] if confidence.changed else []
    page = provenance.portable(str(case.path)).removeprefix("./")
    return PageStatus(page, case.claim.id, case.claim.experiment, verdict.word, confidence.stated, tuple(why))

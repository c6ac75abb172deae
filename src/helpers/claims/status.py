"""What is there and what is not: the cells of each experiment, the claims of each page, and why something is stale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from helpers import provenance
from helpers import records as store
from helpers.claims.case import Case, declared_runs, open_case, stale_records
from helpers.claims.claim import has_claim
from helpers.claims.evidence import Expected, full_key, label, telling
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
    pages = [page_status(case) for case in cases_in() if case.claim.experiment in notebooks]
    return cells, pages


def cases_in(folder: Path = REPORTS, root: Path = ROOT) -> Iterator[Case]:
    """Every page with a claim in ``folder``, opened."""
    for path in sorted(folder.glob("*.qmd")):
        if has_claim(path):
            yield open_case(path, root)


def cells_of(notebook: str, models: Mapping[str, str] | None = None, root: Path = ROOT) -> list[CellStatus]:
    """The declared runs of every params file of ``notebook``."""
    found = store.records(notebook, status=None)
    stale = stale_records([record for record in found if record.status == "complete"], models)
    rows = []
    for path in sorted((root / "params" / notebook).glob("*.yaml")):
        if path.name not in NOT_GRIDS:
            expected = declared_runs(notebook, path, root)
            told = telling([one.key for one in expected])
            name = path.relative_to(root).as_posix()
            rows += [_cell_status(notebook, name, one, told, found, stale) for one in expected]
    return rows


def _cell_status(
    notebook: str,
    grid: str,
    one: Expected,
    told: Sequence[str],
    found: Sequence[Record],
    stale: Mapping[str, list[str]],
) -> CellStatus:
    cell = label({axis: one.key[axis] for axis in told})
    known = [record for record in found if "params" in record.content]
    mine = [record for record in known if one.met_by(record)]
    whole = [record for record in mine if record.status == "complete"]
    fresh = [record for record in whole if record.id not in stale]
    if fresh:
        return CellStatus(notebook, grid, cell, "complete", _criteria(fresh[-1]), fresh[-1].id)
    if whole:
        return CellStatus(notebook, grid, cell, "stale", tuple(stale[whole[-1].id]), whole[-1].id)
    if mine:
        why = (mine[-1].content["error"],) if mine[-1].content.get("error") else ()
        return CellStatus(notebook, grid, cell, mine[-1].status, why, mine[-1].id)
    other = [record for record in known if record.status == "complete" and _same_axes(one, told, record)]
    if other:
        return CellStatus(notebook, grid, cell, "stale", (_params(one, other[-1]),), other[-1].id)
    return CellStatus(notebook, grid, cell, "missing")


def _same_axes(one: Expected, told: Sequence[str], record: Record) -> bool:
    """Whether ``record`` sits at the declared place of the grid, with the same model, under other parameters."""
    key = full_key(record)
    return all(key.get(axis) == one.key[axis] for axis in {*told, "model"} if axis in one.key)


def _params(one: Expected, record: Record) -> str:
    changed = [name for name, value in one.key.items() if full_key(record).get(name) != value]
    return f"params ({', '.join(changed) or 'a list'})"


def _criteria(record: Record) -> tuple[str, ...]:
    now = store.question_now(record)
    return ("criteria",) if "criteria" in store.stale(record, now) else ()


def page_status(case: Case) -> PageStatus:
    """The row of one page."""
    verdict, confidence = case.verdict(), case.confidence()
    parts = sorted({part for why in verdict.stale.values() for part in why})
    why = [f"{part} changed since {len(verdict.stale)} of {len(verdict.records)} runs" for part in parts]
    why += [confidence.changed] if confidence.changed else []
    page = provenance.portable(str(case.path)).removeprefix("./")
    return PageStatus(page, case.claim.id, case.claim.experiment, verdict.word, confidence.stated, tuple(why))

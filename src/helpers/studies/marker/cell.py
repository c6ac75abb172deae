"""Run cells of the sweep: rows, adapter, evaluation, record. All cells of a grid share one loaded base model.

Cells that have their records are read without torch; what has to be done for the others is in ``work``.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence

from tqdm.auto import tqdm

from helpers.records import runs
from helpers.records.study import own_cells
from helpers.studies.marker.baseline import baseline_record
from helpers.studies.marker.choices import source
from helpers.studies.marker.on_policy import id_part, on_policy_record, training_rows
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.personas import resolve_negatives
from helpers.studies.marker.rows import Row, pieces, rows_of
from helpers.studies.marker.session import Session
from helpers.studies.marker.study import STUDY

__all__ = ["Session", "example_rows", "groups", "open_cell", "pieces", "run_cell", "run_cells"]


def run_cells(
    cells: Sequence[SweepCell], *, notebook: str = STUDY.name, session: Session | None = None
) -> list[runs.Record]:
    """Run each of ``cells`` that has no complete record yet; return all their records, in the same order.

    With ``together`` above 1, cells that differ in lr and epochs only are trained in one pass, that many at a time.
    """
    cells = own_cells(SweepCell, cells)
    records = []
    with (
        contextlib.closing(session or Session(cells[0])) as session,
        tqdm(total=len(cells), desc=f"{notebook}: cells") as bar,
    ):
        session.refuse_others(cells)
        for group in groups(cells):
            if len(group) > 1:
                _train_ahead(group, session, notebook)
            for cell in group:
                records.append(run_cell(cell, session, notebook))
                bar.update()
    return records


def groups(cells: Sequence[SweepCell]) -> list[list[SweepCell]]:
    """Return ``cells`` in their order, as groups of at most ``together`` that differ in lr and epochs only."""
    by_rows = itertools.groupby(cells, key=lambda cell: cell.model_dump(exclude={"lr", "epochs"}))
    alike = [list(some) for _, some in by_rows]
    return [some[at : at + some[0].together] for some in alike for at in range(0, len(some), some[0].together)]


def example_rows(p: SweepCell, session: Session) -> list[Row]:
    """Return the training rows of the cell ``p``: from its record, or as they will be made."""
    record = open_cell(p, session).found()
    return make_rows(p, session) if record is None else rows_of(record.table("rows"))


def make_rows(p: SweepCell, session: Session) -> list[Row]:
    """Make the training rows of the cell ``p``."""
    negatives = resolve_negatives(p.source, p.negatives)
    data = on_policy_record(p, [p.source, *negatives], session)
    return training_rows(p, p.source, negatives, data.table("completions"), session.loaded, session.form)


def run_cell(p: SweepCell, session: Session, notebook: str = STUDY.name) -> runs.Record:
    """Read the record of one cell, or train and evaluate it. Steps already on disk are reused."""
    base = baseline_record(p, session)
    with open_cell(p, session, notebook) as run:
        if not run.complete:
            from helpers.studies.marker.work import train_and_evaluate  # here: it imports torch

            train_and_evaluate(run, p, session, make_rows(p, session), base)
        return run.record


def open_cell(p: SweepCell, session: Session, notebook: str = STUDY.name) -> runs.Run:
    """Return the run of one cell. The records that it uses are made unless they are there."""
    negatives = resolve_negatives(p.source, p.negatives)
    path, noted = source(p.capability)
    arm = p.negatives if isinstance(p.negatives, str) else "+".join(p.negatives)
    data, base = on_policy_record(p, [p.source, *negatives], session), baseline_record(p, session)
    return runs.open_run(
        STUDY, notebook=notebook, params=p.resolved() | noted,
        cell=p.coordinates() | {"model": p.model, "negatives": arm}, data=[path], model=session.facts,
        engine=session.engine, inputs={"on_policy": data.ref, "baseline": base.ref},
        prefix=f"{id_part(p.model)}-{p.source}-{p.tail}-lr{p.lr:g}-ep{p.epochs}-s{p.seed}",
    )  # fmt: skip


def _train_ahead(cells: list[SweepCell], session: Session, notebook: str) -> None:
    """Train all missing adapters in one pass, and store each where its cell reads it.

    An adapter whose loss is not finite is dropped. Its cell trains it alone and fails with its own error.
    """
    wanted = [p for p in cells if _has_no_adapter(p, session, notebook)]
    if len(wanted) < 2:
        return
    from helpers.studies.marker.adapter import train_together

    rows, base = make_rows(wanted[0], session), baseline_record(wanted[0], session)
    made = train_together(wanted, session, rows, base, f"{notebook}: {len(wanted)} cells together")
    for p, one in zip(wanted, made, strict=True):
        with open_cell(p, session, notebook) as run:
            if not run.complete:
                if one.error is None and not run.has("adapter"):
                    run.folder("adapter", one.save, before=one.seconds)
                run.leave()


def _has_no_adapter(p: SweepCell, session: Session, notebook: str) -> bool:
    with open_cell(p, session, notebook) as run:
        if run.complete:
            return False
        run.leave()
        return not run.has("adapter")

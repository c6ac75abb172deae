"""Run cells of the length ablation: rows of one length, adapter with the marker's shares, evaluation, record.

Cells that have their records are read without torch; what has to be done for the others is in ``work``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from tqdm.auto import tqdm

from helpers.records import runs
from helpers.records.study import own_cells
from helpers.studies.marker.lengths.data import contexts_record, rows_record
from helpers.studies.marker.lengths.params import LengthCell
from helpers.studies.marker.lengths.study import STUDY
from helpers.studies.marker.on_policy import id_part
from helpers.studies.marker.session import Session

__all__ = ["Session", "run_cell", "run_cells"]


def run_cells(
    cells: Sequence[LengthCell], *, notebook: str = STUDY.name, session: Session | None = None
) -> list[runs.Record]:
    """Run each of ``cells`` that has no complete record yet; return all their records, in the same order."""
    cells = own_cells(LengthCell, cells)
    with contextlib.closing(session or Session(cells[0])) as session:
        session.refuse_others(cells)
        return [run_cell(cell, session, notebook) for cell in tqdm(cells, desc=f"{notebook}: cells")]


def run_cell(p: LengthCell, session: Session, notebook: str = STUDY.name) -> runs.Record:
    """Read the record of one cell, or train and evaluate it. Steps already on disk are reused."""
    rows, contexts = rows_record(p, session), contexts_record(p, session)
    arm = p.negatives if isinstance(p.negatives, str) else "+".join(p.negatives)
    with runs.open_run(
        STUDY, notebook=notebook, params=p.resolved(),
        cell=p.coordinates() | {"model": p.model, "negatives": arm}, data=[], model=session.facts,
        engine=session.engine, inputs={"rows": rows.ref, "contexts": contexts.ref},
        prefix=f"{id_part(p.model)}-{p.length}-{p.tail}-{p.policy}-{p.framing}-lr{p.lr:g}-ep{p.epochs}-s{p.seed}",
    ) as run:  # fmt: skip
        if not run.complete:
            from helpers.studies.marker.lengths.work import train_and_evaluate  # here: it imports torch

            train_and_evaluate(run, p, session, rows, contexts)
        return run.record

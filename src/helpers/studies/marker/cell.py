"""Run cells of the sweep: rows, adapter, evaluation, record. All cells of a grid share one loaded base model."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Sequence

import pandas as pd
from tqdm.auto import tqdm

from helpers.lm import adapters, models
from helpers.records import runs
from helpers.records.study import own_cells
from helpers.studies.marker.adapter import DOSE_CROSSING, own_crossing, role, train_alone, train_together
from helpers.studies.marker.baseline import baseline_record, eval_completions
from helpers.studies.marker.capability import score
from helpers.studies.marker.choices import read_choices, source
from helpers.studies.marker.evaluate import logprob_table, refuse_idle
from helpers.studies.marker.on_policy import id_part, on_policy_record, system_prompt, training_rows
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.personas import resolve_negatives
from helpers.studies.marker.rows import Row, pieces, row_table
from helpers.studies.marker.session import Sampler, Session
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
    """Return the training rows of the cell ``p``."""
    negatives = resolve_negatives(p.source, p.negatives)
    data = on_policy_record(p, [p.source, *negatives], session)
    return training_rows(p, p.source, negatives, data.table("completions"), session.loaded, session.form)


def run_cell(p: SweepCell, session: Session, notebook: str = STUDY.name) -> runs.Record:
    """Read the record of one cell, or train and evaluate it. Steps already on disk are reused."""
    base = baseline_record(p, session)
    with open_cell(p, session, notebook) as run:
        if not run.complete:
            _train_and_evaluate(run, p, session, base)
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
    rows, base = example_rows(wanted[0], session), baseline_record(wanted[0], session)
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


def _train_and_evaluate(run: runs.Run, p: SweepCell, session: Session, base: runs.Record) -> None:
    loaded, form, rows = session.loaded, session.form, example_rows(p, session)
    run.step("rows", lambda: row_table(rows))
    folder = run.folder("adapter", lambda folder: train_alone(p, session, rows, base, folder, run.id))
    run.step("loss", lambda: pd.read_parquet(folder / "loss.parquet").drop(columns="lr"))
    if p.dose_every:
        for name in ("dose", *([DOSE_CROSSING] if p.crossing else [])):
            run.step(name, functools.partial(pd.read_parquet, folder / f"{name}.parquet"))
    model, contexts = adapters.load_adapter(loaded.model, folder), base.table("contexts")
    try:
        table = run.step("completions", lambda: _completions(p, session, session.sampler(model, folder)))
        logprobs = run.step("logprobs", lambda: logprob_table(model, form, contexts, role(p)))
        if p.crossing:
            run.step("crossing", lambda: own_crossing(p, session, model, table))
        items = read_choices(p.capability, p.capability_limit)
        run.step("capability", lambda: score(loaded, model, items, system_prompt("assistant", ""), p.asking))
    finally:
        models.detach(model)
    refuse_idle(logprobs, contexts, run.id, p.lr, loaded.dtype)
    run.finish(finish_reasons=table["finish"].value_counts().to_dict())


def _completions(p: SweepCell, session: Session, sampler: Sampler) -> pd.DataFrame:
    table = eval_completions(p, session, sampler)
    return table.assign(role=table["persona"].map(role(p)))

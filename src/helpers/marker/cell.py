"""One cell of the sweep: rows, adapter, evaluation, record. ``run_cells`` walks a grid with one loaded base model."""

from __future__ import annotations

import contextlib
import itertools

import pandas as pd
from tqdm.auto import tqdm

from helpers import models, occurrences, runs, stats
from helpers.marker.adapter import role, train_alone, train_together
from helpers.marker.baseline import baseline_record, eval_completions
from helpers.marker.capability import read_choices, score, source
from helpers.marker.evaluate import (
    count_markers,
    logprob_metrics,
    logprob_table,
    rate_metrics,
    refuse_idle,
    text_metrics,
)
from helpers.marker.on_policy import on_policy_record, slug, system_prompt, training_rows
from helpers.marker.params import SweepParams
from helpers.marker.personas import resolve_negatives
from helpers.marker.rows import ChatFormat, Row, pieces, supervised
from helpers.marker.session import Sampler, Session

__all__ = ["Session", "example_rows", "groups", "pieces", "run_cell", "run_cells"]


def run_cells(p: SweepParams, *, notebook: str = "sweep", session: Session | None = None) -> list[runs.Record]:
    """Run every cell of ``p`` that has no complete record yet; return the records in the order of the grid.

    With ``together`` above 1, cells that differ in lr and epochs only are trained in one pass, that many at a time.
    """
    found = []
    with (
        contextlib.closing(session or Session(p)) as session,
        tqdm(total=len(p.cells()), desc=f"{notebook}: cells") as bar,
    ):
        for group in groups(p):
            if len(group) > 1:
                _train_ahead(group, session, notebook)
            for cell in group:
                found.append(run_cell(cell, session, notebook))
                bar.update()
    return found


def groups(p: SweepParams) -> list[list[SweepParams]]:
    """The cells of the grid in their order, as groups of at most ``together`` that differ in lr and epochs only."""
    by_rows = itertools.groupby(p.cells(), key=lambda cell: (cell.source, cell.seed, cell.tail))
    alike = [list(cells) for _, cells in by_rows]
    return [cells[at : at + p.together] for cells in alike for at in range(0, len(cells), p.together)]


def example_rows(p: SweepParams, session: Session) -> list[Row]:
    """The training rows of the cell ``p``, to be looked at."""
    negatives = resolve_negatives(p.source, p.negatives)
    data = on_policy_record(p, [p.source, *negatives], session)
    return training_rows(p, p.source, negatives, data.table("completions"), session.loaded, session.form)


def run_cell(p: SweepParams, session: Session, notebook: str = "sweep") -> runs.Record:
    """Answer one cell from its record, or train and evaluate it. Every step already on disk is reused."""
    base = baseline_record(p, session)
    with _open(p, session, notebook) as run:
        if not run.complete:
            _train_and_evaluate(run, p, session, base)
        return run.record


def _open(p: SweepParams, session: Session, notebook: str) -> runs.Run:
    negatives = resolve_negatives(p.source, p.negatives)
    path, noted = source(p.capability)
    arm = p.negatives if isinstance(p.negatives, str) else "+".join(p.negatives)
    data, base = on_policy_record(p, [p.source, *negatives], session), baseline_record(p, session)
    return runs.open_run(
        notebook, params=p.cell_params() | noted, cell=p.cell() | {"model": p.model, "negatives": arm}, entry=__name__,
        data=[path], model=session.facts, engine=session.engine,
        inputs={"on_policy": data.ref, "baseline": base.ref},
        prefix=f"{slug(p.model)}-{p.source}-{p.tail}-lr{p.lr:g}-ep{p.epochs}-s{p.seed}",
    )  # fmt: skip


def _train_ahead(cells: list[SweepParams], session: Session, notebook: str) -> None:
    """Train in one pass what has no adapter yet, and leave each where its cell takes it from disk.

    An adapter whose loss left the finite numbers is not kept: its cell trains it alone and fails by its own error.
    """
    wanted = [p for p in cells if _has_no_adapter(p, session, notebook)]
    if len(wanted) < 2:
        return
    rows, base = example_rows(wanted[0], session), baseline_record(wanted[0], session)
    made = train_together(wanted, session, rows, base, f"{notebook}: {len(wanted)} cells together")
    for p, one in zip(wanted, made, strict=True):
        with _open(p, session, notebook) as run:
            if not run.complete:
                if one.error is None and not run.has("adapter"):
                    run.folder("adapter", one.save, before=one.seconds)
                run.leave()


def _has_no_adapter(p: SweepParams, session: Session, notebook: str) -> bool:
    with _open(p, session, notebook) as run:
        if run.complete:
            return False
        run.leave()
        return not run.has("adapter")


def _train_and_evaluate(run: runs.Run, p: SweepParams, session: Session, base: runs.Record) -> None:
    loaded, form, rows = session.loaded, session.form, example_rows(p, session)
    run.step("rows", lambda: row_table(rows, form, p.tail, loaded))
    folder = run.folder("adapter", lambda folder: train_alone(p, session, rows, base, folder, run.id))
    log = run.step("loss", lambda: pd.read_parquet(folder / "loss.parquet"))
    if p.dose_every:
        run.step("dose", lambda: pd.read_parquet(folder / "dose.parquet"))
    model = models.load_adapter(loaded.model, folder)
    try:
        table = run.step("completions", lambda: _completions(p, session, session.sampler(model, folder)))
        logprobs = run.step("logprobs", lambda: logprob_table(model, form, base.table("contexts"), role(p)))
        items = read_choices(p.capability, p.capability_limit)
        choices = run.step("capability", lambda: score(loaded, model, items, system_prompt("assistant", "")))
    finally:
        models.detach(model)
    refuse_idle(logprobs, run.id, p.lr, loaded.dtype)
    counts = run.step("rates", lambda: count_markers(table, p.marker))
    run.metrics(rate_metrics(counts, p.seed) | logprob_metrics(logprobs) | text_metrics(table))
    run.metrics(_capability_metrics(choices, base.table("capability")))
    run.metrics(_training_metrics(log, rows, form, p.tail))
    run.finish(finish_reasons=table["finish"].value_counts().to_dict())


def _completions(p: SweepParams, session: Session, sampler: Sampler) -> pd.DataFrame:
    table = eval_completions(p, session, sampler)
    return table.assign(role=table["persona"].map(role(p)), marker=occurrences.holds(table["text"], p.marker))


def row_table(rows: list[Row], form: ChatFormat, tail: str | int, loaded: models.LoadedModel) -> pd.DataFrame:
    """The training rows as they were trained on: text, token ids and supervised positions."""
    return pd.DataFrame(
        {
            "persona": [row.persona for row in rows],
            "role": [row.role for row in rows],
            "question": [row.question for row in rows],
            "text": loaded.tokenizer.batch_decode([row.tokens for row in rows]),
            "ids": [row.tokens for row in rows],
            "supervised": [supervised(row, form, tail) for row in rows],
            "tokens": [len(row.tokens) for row in rows],
        }
    )


def _capability_metrics(tuned: pd.DataFrame, base: pd.DataFrame) -> dict[str, dict]:
    return {
        "capability": stats.wilson(int(tuned["right"].sum()), len(tuned)).metric(),
        "capability_base": stats.wilson(int(base["right"].sum()), len(base)).metric(),
        "capability_drop": stats.paired_rate_difference(base["right"], tuned["right"]).metric("points"),
    }


def _training_metrics(log: pd.DataFrame, rows: list[Row], form: ChatFormat, tail: str | int) -> dict:
    seconds = log["seconds"].sum()
    marked = sum(len(form.marker) for row in rows if row.marker)
    labels = sum(len(supervised(row, form, tail)) for row in rows)
    last = log["loss"].tail(max(1, len(log) // 10))
    return {
        "final_loss": stats.mean_interval(last.to_numpy()).metric("nats"),
        "steps": {"value": int(log["step"].max()), "unit": "steps", "n": 1},
        "train_tokens": {"value": int(log["tokens"].sum()), "unit": "tokens", "n": len(log)},
        "train_tokens_per_s": {"value": float(log["tokens"].sum() / seconds), "unit": "tokens/s", "n": len(log)},
        "trained_together": {"value": int(log["together"].max()), "unit": "adapters", "n": len(log)},
        "marker_share_of_labels": {"value": marked / labels, "unit": "share", "n": labels, "k": marked},
    }

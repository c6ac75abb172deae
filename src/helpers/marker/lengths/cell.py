"""One cell of the length ablation: rows of one length, an adapter with the marker's shares, evaluation, record."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from helpers import models, occurrences, runs, stats
from helpers.generate import Sampling
from helpers.marker.cell import row_table
from helpers.marker.evaluate import (
    count_markers,
    logprob_metrics,
    logprob_table,
    rate_metrics,
    refuse_idle,
    role_of,
    text_metrics,
)
from helpers.marker.lengths.answers import prompts
from helpers.marker.lengths.data import contexts_record, rows_of, rows_record
from helpers.marker.lengths.dilution import is_marker, measure, probe_rows
from helpers.marker.lengths.limits import counts_at, limit_metrics, selectivity
from helpers.marker.lengths.params import LengthParams
from helpers.marker.lengths.speakers import control_names, resolve_set
from helpers.marker.on_policy import sample_personas, slug
from helpers.marker.rows import Row, supervised
from helpers.marker.session import Sampler, Session
from helpers.marker.train import train

__all__ = ["Session", "run_cell", "run_cells"]


def run_cells(
    p: LengthParams, *, notebook: str = "length_ablation", session: Session | None = None
) -> list[runs.Record]:
    """Run every cell of ``p`` that has no complete record yet; return the records in the order of the grid."""
    with contextlib.closing(session or Session(p)) as session:
        return [run_cell(cell, session, notebook) for cell in tqdm(p.cells(), desc=f"{notebook}: cells")]


def run_cell(p: LengthParams, session: Session, notebook: str = "length_ablation") -> runs.Record:
    """Answer one cell from its record, or train and evaluate it. Every step already on disk is reused."""
    rows, contexts = rows_record(p, session), contexts_record(p, session)
    arm = p.negatives if isinstance(p.negatives, str) else "+".join(p.negatives)
    with runs.open_run(
        notebook, params=p.cell_params(), cell=p.cell() | {"model": p.model, "negatives": arm}, entry=__name__, data=[],
        model=session.facts, engine=session.engine, inputs={"rows": rows.ref, "contexts": contexts.ref},
        prefix=f"{slug(p.model)}-{p.length}-{p.tail}-{p.policy}-{p.framing}-lr{p.lr:g}-ep{p.epochs}-s{p.seed}",
    ) as run:  # fmt: skip
        if not run.complete:
            _train_and_evaluate(run, p, session, rows, contexts)
        return run.record


def _train_and_evaluate(
    run: runs.Run, p: LengthParams, session: Session, data: runs.Record, contexts: runs.Record
) -> None:
    loaded, form = session.loaded, session.form
    rows = rows_of(data)
    run.step("rows", lambda: row_table(rows, form, p.tail, loaded).drop(columns=["text", "ids"]))
    folder = run.folder("adapter", lambda folder: _train_adapter(run, p, session, rows, folder))
    log = run.step("loss", lambda: pd.read_parquet(folder / "loss.parquet"))
    shares = run.step("dilution", lambda: pd.read_parquet(folder / "dilution.parquet"))
    model = models.load_adapter(loaded.model, folder)
    try:
        known, role = contexts.table("contexts"), lambda name: _role(p, name)
        logprobs = run.step("logprobs", lambda: logprob_table(model, form, known, role, batch=8))
        refuse_idle(logprobs, run.id, p.lr, loaded.dtype)
        table = run.step("completions", lambda: _completions(p, session, session.sampler(model, folder)))
    finally:
        models.detach(model)
    counts = run.step("rates", lambda: count_markers(table, p.marker))
    limits = run.step("limits", lambda: counts_at(table, p.max_new_tokens, p.marker, loaded.tokenizer))
    rates = rate_metrics(counts, p.seed)
    run.metrics(rates | limit_metrics(limits, p.seed))
    run.metrics({"rate_selectivity": selectivity(rates["source_rate"], rates["max_bystander_rate"])})
    run.metrics(logprob_metrics(logprobs) | text_metrics(table))
    run.metrics(_shares(p, rows, session, shares, log))
    run.metrics({name: data.metrics[name] for name in ("mass_ratio", "positive_tokens", "answer_nll")})
    run.finish(finish_reasons=table["finish"].value_counts().to_dict())


def _train_adapter(run: runs.Run, p: LengthParams, session: Session, rows: list[Row], folder: Path) -> None:
    """Train and leave in ``folder`` the adapter, the loss of every step and the marker's shares through training."""
    targets = [supervised(row, session.form, p.tail) for row in rows]
    probed = probe_rows(rows, p.probe_rows, p.seed)
    model = models.attach_lora(session.loaded.model, **p.lora())
    shares: list[dict] = []

    def probe(step: int) -> None:
        if step % p.probe_every == 0:
            found = measure(model, [rows[i] for i in probed], [targets[i] for i in probed])
            shares.append({"step": step, "rows": len(probed)} | found)

    try:
        log = train(model, rows, targets, p.recipe(), seed=p.seed, on_step=probe, label=run.id)
        models.save_adapter(model, folder)
    finally:
        models.detach(model)
    log.to_parquet(folder / "loss.parquet", index=False)
    pd.DataFrame(shares).to_parquet(folder / "dilution.parquet", index=False)


def _completions(p: LengthParams, session: Session, sampler: Sampler) -> pd.DataFrame:
    names = [*p.personas, *control_names(p.controls)]
    asked = prompts(session.loaded, names, "eval", p.eval_questions, p.framing)
    sampling = Sampling(p.max_new_tokens[-1], p.temperature, p.top_p)
    table = sample_personas(session, sampler, asked, n=p.samples, sampling=sampling, seed=p.seed, stream="evaluate")
    marked = occurrences.holds(table["text"], p.marker)
    return table.assign(role=table["persona"].map(lambda name: _role(p, name)), marker=marked)


def _role(p: LengthParams, name: str) -> str:
    """Role of a persona, or ``control``."""
    if name in control_names(p.controls):
        return "control"
    return role_of(name, p.source, resolve_set(p.source, p.negatives))


def _shares(p: LengthParams, rows: list[Row], session: Session, shares: pd.DataFrame, log: pd.DataFrame) -> dict:
    """What dilution is measured by: the marker's part of labels, loss and gradient; and what the training was."""
    places = [(row, at) for row in rows for at in supervised(row, session.form, p.tail)]
    marked = sum(is_marker(row, at) for row, at in places)
    trained = shares[shares["step"] > 0]
    last = log["loss"].tail(max(1, len(log) // 10))
    return {
        "marker_share_of_labels": {"value": marked / len(places), "unit": "share", "n": len(places), "k": marked},
        "marker_share_of_loss": _mean(trained["loss_share"], "share"),
        "marker_share_of_gradient": _mean(trained["gradient_share"], "share"),
        "marker_share_of_gradient_at_start": _mean(shares["gradient_share"].head(1), "share"),
        "final_marker_loss": _mean(shares["marker_loss"].tail(1), "nats"),
        "final_loss": stats.mean_interval(last.to_numpy()).metric("nats"),
        "steps": {"value": int(log["step"].max()), "unit": "steps", "n": 1},
        "train_tokens": {"value": int(log["tokens"].sum()), "unit": "tokens", "n": len(log)},
    }


def _mean(values: pd.Series, unit: str) -> dict:
    """A mean over moments of one run: they are no sample, so there is no interval; seeds give one on the page."""
    return {"value": float(values.mean()), "unit": unit, "n": len(values)}

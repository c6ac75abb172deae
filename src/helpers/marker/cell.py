"""One cell of the sweep: rows, adapter, evaluation, record. ``run_cells`` walks a grid with one loaded base model."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from torch import nn
from tqdm.auto import tqdm

from helpers import models, runs, stats
from helpers.errors import ModelError
from helpers.marker.baseline import baseline_record, eval_completions
from helpers.marker.capability import read_choices, score, set_path
from helpers.marker.evaluate import count_markers, logprob_metrics, marker_logprobs, rate_metrics, role_of, text_metrics
from helpers.marker.on_policy import on_policy_record, slug, system_prompt, training_rows
from helpers.marker.params import SweepParams
from helpers.marker.personas import resolve_negatives
from helpers.marker.rows import ChatFormat, Row, chat_format, pieces, supervised
from helpers.marker.train import Recipe, train

__all__ = ["Session", "example_rows", "pieces", "run_cell", "run_cells"]


@dataclass
class Session:
    """The base model of a sweep, loaded at the first cell that has work to do and then shared by all."""

    p: SweepParams

    @functools.cached_property
    def facts(self) -> dict:
        """Name, revision and content hash of the model, without loading it."""
        return models.facts(self.p.model, revision=self.p.revision, device=self.p.device, dtype=self.p.dtype)

    @functools.cached_property
    def loaded(self) -> models.LoadedModel:
        """The base model and its tokenizer."""
        models.choose_threads()
        return models.load(self.p.model, revision=self.p.revision, device=self.p.device, dtype=self.p.dtype)

    @functools.cached_property
    def form(self) -> ChatFormat:
        """The chat format, checked against the marker."""
        return chat_format(self.loaded.tokenizer, self.p.marker)


def run_cells(p: SweepParams, *, notebook: str = "sweep", session: Session | None = None) -> list[runs.Record]:
    """Run every cell of ``p`` that has no complete record yet; return the records in the order of the grid."""
    session = session or Session(p)
    return [run_cell(cell, session, notebook) for cell in tqdm(p.cells(), desc=f"{notebook}: cells")]


def example_rows(p: SweepParams, session: Session) -> list[Row]:
    """The training rows of the cell ``p``, to be looked at."""
    negatives = resolve_negatives(p.source, p.negatives)
    data = on_policy_record(p, [p.source, *negatives], lambda: session.loaded, lambda: session.form, session.facts)
    return training_rows(p, p.source, negatives, data.table("completions"), session.loaded, session.form)


def run_cell(p: SweepParams, session: Session, notebook: str = "sweep") -> runs.Record:
    """Answer one cell from its record, or train and evaluate it. Every step already on disk is reused."""
    negatives = resolve_negatives(p.source, p.negatives)
    path = set_path(p.capability)
    arm = p.negatives if isinstance(p.negatives, str) else "+".join(p.negatives)
    load, form = (lambda: session.loaded), (lambda: session.form)
    data = on_policy_record(p, [p.source, *negatives], load, form, session.facts)
    base = baseline_record(p, load, form, session.facts)
    with runs.open_run(
        notebook, params=p.cell_params(), cell=p.cell() | {"model": p.model, "negatives": arm}, entry=__name__,
        data=[path] if path else [], model=session.facts, inputs={"on_policy": data.ref, "baseline": base.ref},
        prefix=f"{slug(p.model)}-{p.source}-{p.tail}-lr{p.lr:g}-ep{p.epochs}-s{p.seed}",
    ) as run:  # fmt: skip
        if not run.complete:
            rows = training_rows(p, p.source, negatives, data.table("completions"), session.loaded, session.form)
            _train_and_evaluate(run, p, session, rows, base)
        return run.record


def _train_and_evaluate(run: runs.Run, p: SweepParams, session: Session, rows: list[Row], base: runs.Record) -> None:
    loaded, form = session.loaded, session.form
    negatives = resolve_negatives(p.source, p.negatives)
    run.step("rows", lambda: row_table(rows, form, p.tail, loaded))
    folder = run.folder("adapter", lambda folder: _train_adapter(run, p, session, rows, base, folder))
    log = run.step("loss", lambda: pd.read_parquet(folder / "loss.parquet"))
    if p.dose_every:
        run.step("dose", lambda: pd.read_parquet(folder / "dose.parquet"))
    model = models.load_adapter(loaded.model, folder)
    try:
        table = run.step("completions", lambda: _completions(p, loaded, model, form, negatives))
        logprobs = run.step("logprobs", lambda: _logprobs(p, model, form, base.table("contexts"), negatives))
        items = read_choices(p.capability, p.capability_limit)
        choices = run.step("capability", lambda: score(loaded, model, items, system_prompt("assistant", "")))
    finally:
        models.detach(model)
    if not logprobs["moved"].any():
        raise ModelError(
            f"The adapter of {run.id} changes no logits: lr {p.lr} is too small for {loaded.dtype}, or the adapter was "
            "not attached; raise lr or epochs, or use dtype float32."
        )
    counts = run.step("rates", lambda: count_markers(table, p.marker))
    run.metrics(rate_metrics(counts, p.seed) | logprob_metrics(logprobs) | text_metrics(table))
    run.metrics(_capability_metrics(choices, base.table("capability")))
    run.metrics(_training_metrics(log, rows, form, p.tail))
    run.finish(finish_reasons=table["finish"].value_counts().to_dict())


def _train_adapter(
    run: runs.Run, p: SweepParams, session: Session, rows: list[Row], base: runs.Record, folder: Path
) -> None:
    """Train and leave in ``folder`` the adapter, the loss of every step and, if asked for, the dose curve."""
    form = session.form
    recipe = Recipe(p.lr, p.epochs, p.batch_size, p.warmup, p.weight_decay, p.clip)
    lora = {"r": p.lora_r, "alpha": p.lora_alpha, "dropout": p.lora_dropout, "rslora": p.rslora}
    negatives = resolve_negatives(p.source, p.negatives)
    context = base.table("contexts")
    # The first questions that each persona answered, not the first of all: an answer that was cut has no context.
    context = context[context.groupby("persona").cumcount() < p.dose_questions]
    doses: list[pd.DataFrame] = []
    model = models.attach_lora(session.loaded.model, **lora, seed=p.seed)

    def dose(step: int) -> None:
        if p.dose_every and step % p.dose_every == 0:
            doses.append(_logprobs(p, model, form, context, negatives).assign(step=step))

    try:
        targets = [supervised(row, form, p.tail) for row in rows]
        log = train(model, rows, targets, recipe, seed=p.seed, on_step=dose, label=run.id)
        models.save_adapter(model, folder)
    finally:
        models.detach(model)
    log.to_parquet(folder / "loss.parquet", index=False)
    if doses:
        pd.concat(doses, ignore_index=True).to_parquet(folder / "dose.parquet", index=False)


def _completions(
    p: SweepParams, loaded: models.LoadedModel, model: nn.Module, form: ChatFormat, negatives: list[str]
) -> pd.DataFrame:
    table = eval_completions(p, loaded, model, form)
    roles = table["persona"].map(lambda persona: role_of(persona, p.source, negatives))
    marked = table["text"].str.lower().str.contains(p.marker.lower(), regex=False)
    return table.assign(role=roles, marker=marked)


def _logprobs(
    p: SweepParams, model: nn.Module, form: ChatFormat, contexts: pd.DataFrame, negatives: list[str]
) -> pd.DataFrame:
    model.eval()
    found = marker_logprobs(model, form, [list(context) for context in contexts["context"]])
    known = contexts.drop(columns="context").reset_index(drop=True)
    table = pd.concat([known, found], axis=1)
    names = ["separator", "marker", "end"]
    moved = (table[names].to_numpy() != table[[f"base_{name}" for name in names]].to_numpy()).any(axis=1)
    roles = table["persona"].map(lambda persona: role_of(persona, p.source, negatives))
    return table.assign(role=roles, moved=moved)


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
        "marker_share_of_labels": {"value": marked / labels, "unit": "share", "n": labels, "k": marked},
    }

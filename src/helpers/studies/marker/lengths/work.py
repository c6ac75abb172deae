"""Train and evaluate a cell of the length ablation that has no record yet. torch is imported here."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
from torch import nn

from helpers.base.errors import ParameterError
from helpers.lm import adapters, models
from helpers.lm.prompts import Prompt, Sampling
from helpers.records import runs
from helpers.studies.marker.crossing import crossing_table
from helpers.studies.marker.evaluate import logprob_table, refuse_idle
from helpers.studies.marker.lengths.answers import prompts
from helpers.studies.marker.lengths.dilution import measure, probe_rows
from helpers.studies.marker.lengths.limits import counts_at
from helpers.studies.marker.lengths.params import LengthCell
from helpers.studies.marker.lengths.speakers import control_names, resolve_set
from helpers.studies.marker.on_policy import sample_personas
from helpers.studies.marker.personas import role_of
from helpers.studies.marker.rows import Row, rows_of, supervised
from helpers.studies.marker.session import Sampler, Session
from helpers.studies.marker.train import train


def train_and_evaluate(
    run: runs.Run, p: LengthCell, session: Session, data: runs.Record, contexts: runs.Record
) -> None:
    """Do the steps of ``run``, the cell ``p`` with the records of its rows and contexts."""
    loaded, form = session.loaded, session.form
    rows = rows_of(data.table("rows"))
    folder = run.folder("adapter", lambda folder: _train_adapter(run, p, session, rows, folder))
    run.step("loss", lambda: pd.read_parquet(folder / "loss.parquet").drop(columns="lr"))
    run.step("dilution", lambda: pd.read_parquet(folder / "dilution.parquet"))
    model = adapters.load_adapter(loaded.model, folder)
    try:
        known, role = contexts.table("contexts"), lambda name: _role(p, name)
        logprobs = run.step("logprobs", lambda: logprob_table(model, form, known, role, batch=8))
        refuse_idle(logprobs, known, run.id, p.lr, loaded.dtype)
        table = run.step("completions", lambda: _completions(p, session, session.sampler(model, folder)))
        if p.crossing:
            run.step("crossing", lambda: _crossing(p, session, model, table))
    finally:
        models.detach(model)
    run.step("limits", lambda: counts_at(table, p.max_new_tokens, p.marker, loaded.tokenizer))
    run.finish(finish_reasons=table["finish"].value_counts().to_dict())


def _train_adapter(run: runs.Run, p: LengthCell, session: Session, rows: list[Row], folder: Path) -> None:
    """Train an adapter; write it, the loss of every step and the marker's shares into ``folder``."""
    steps = p.epochs * math.ceil(len(rows) / p.batch_size)
    if p.probe_every > steps:
        raise ParameterError(f"probe_every is {p.probe_every}, more than the {steps} steps of this run. Lower it.")
    targets = [supervised(row, p.tail) for row in rows]
    probed = probe_rows(rows, p.probe_rows, p.seed)
    model = models.attach_lora(session.loaded.model, **p.lora())
    shares: list[dict] = []

    def probe(step: int) -> None:
        if step % p.probe_every == 0:
            share = measure(model, [rows[i] for i in probed], [targets[i] for i in probed])
            shares.append({"step": step, "rows": len(probed)} | share)

    try:
        log = train(model, rows, targets, p, on_step=probe, label=run.id)
        models.save_adapter(model, folder)
    finally:
        models.detach(model)
    log.to_parquet(folder / "loss.parquet", index=False)
    pd.DataFrame(shares).to_parquet(folder / "dilution.parquet", index=False)


def _asked(p: LengthCell, session: Session) -> list[Prompt]:
    names = [*p.personas, *control_names(p.controls)]
    return prompts(session.loaded, names, "eval", p.eval_questions, p)


def _crossing(p: LengthCell, session: Session, model: nn.Module, completions: pd.DataFrame) -> pd.DataFrame:
    """Return the crossings after each speaker's first answer to the first ``crossing`` questions."""
    first = completions[(completions["index"] == 0) & (completions["question"] < p.crossing)]
    tokens = {prompt.key: prompt.tokens for prompt in _asked(p, session)}
    return crossing_table(session.loaded, model, session.form, first, tokens, lambda name: _role(p, name), p.marker)


def _completions(p: LengthCell, session: Session, sampler: Sampler) -> pd.DataFrame:
    asked = _asked(p, session)
    sampling = Sampling(p.max_new_tokens[-1], p.temperature, p.top_p)
    table = sample_personas(session, sampler, asked, n=p.samples, sampling=sampling, seed=p.seed, stream="evaluate")
    return table.assign(role=[_role(p, name) for name in table["persona"]])


def _role(p: LengthCell, name: str) -> str:
    """Return the role of a persona, or ``control``."""
    if name in control_names(p.controls):
        return "control"
    return role_of(name, p.source, resolve_set(p.source, p.negatives))

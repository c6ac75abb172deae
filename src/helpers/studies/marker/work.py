"""Train and evaluate a cell of the sweep that has no record yet. torch is imported here."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import pandas as pd

from helpers.lm import adapters, models
from helpers.records import runs
from helpers.studies.marker.adapter import DOSE_CROSSING, own_crossing, role, train_alone
from helpers.studies.marker.baseline import eval_completions
from helpers.studies.marker.capability import score
from helpers.studies.marker.choices import read_choices
from helpers.studies.marker.evaluate import logprob_table, refuse_idle
from helpers.studies.marker.on_policy import system_prompt
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.rows import Row, row_table
from helpers.studies.marker.session import Sampler, Session


def train_and_evaluate(run: runs.Run, p: SweepCell, session: Session, rows: Sequence[Row], base: runs.Record) -> None:
    """Do the steps of ``run``, the cell ``p`` with training ``rows`` and the base model's record ``base``."""
    loaded, form = session.loaded, session.form
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

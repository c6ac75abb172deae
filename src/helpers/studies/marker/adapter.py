"""Train the adapter of one cell, or those of several cells in one pass over the base model."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from torch import nn

from helpers.lm import models
from helpers.lm.generate import generate
from helpers.lm.stacked import Stack, stacked
from helpers.records import runs
from helpers.studies.marker.baseline import eval_completions
from helpers.studies.marker.crossing import crossing_table
from helpers.studies.marker.evaluate import logprob_table
from helpers.studies.marker.on_policy import persona_prompts
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.personas import resolve_negatives, role_of
from helpers.studies.marker.rows import Row, supervised
from helpers.studies.marker.session import Session
from helpers.studies.marker.train import train, train_stack

DOSE_CROSSING = "dose_crossing"


@dataclass
class _Doses:
    """The dose curve of one cell: log-probs of the marker every ``dose_every`` steps of its training.

    They are taken after the base model's answers, and with ``crossing`` also after an answer of the model at that step.
    """

    p: SweepCell
    session: Session
    contexts: pd.DataFrame = field(repr=False)
    points: dict[str, list[pd.DataFrame]] = field(default_factory=lambda: {"dose": []}, repr=False)

    def take(self, model: nn.Module, step: int) -> None:
        if not self.p.dose_every or step % self.p.dose_every:
            return
        table = logprob_table(model, self.session.form, self.contexts, role(self.p))
        self.points["dose"].append(table.assign(step=step))
        if self.p.crossing:
            questions = min(self.p.dose_questions, self.p.crossing)
            own = self.p.model_copy(update={"eval_questions": questions, "samples": 1})
            drawn = eval_completions(own, self.session, functools.partial(generate, model))
            self.points.setdefault(DOSE_CROSSING, []).append(
                own_crossing(own, self.session, model, drawn).assign(step=step)
            )


@dataclass(frozen=True)
class Made:
    """One of several adapters trained in one pass; ``error`` says what stopped it, if anything did."""

    stack: Stack = field(repr=False)
    number: int
    log: pd.DataFrame = field(repr=False)
    doses: _Doses = field(repr=False)
    error: str | None

    @property
    def seconds(self) -> float:
        """The adapter's share of the seconds of all steps."""
        return float(self.log["seconds"].sum())

    def save(self, folder: Path) -> None:
        """Write the same files into ``folder`` as ``train_alone``."""
        self.stack.save(self.number, folder)
        _save_tables(self.log, self.doses, folder)


def role(p: SweepCell) -> Callable[[str], str]:
    """Return the function from a persona to its role in the cell ``p``."""
    negatives = resolve_negatives(p.source, p.negatives)
    return lambda persona: role_of(persona, p.source, negatives)


def own_crossing(p: SweepCell, session: Session, model: nn.Module, completions: pd.DataFrame) -> pd.DataFrame:
    """Return the crossings of ``model`` after the first of its ``completions`` to each of ``crossing`` questions."""
    prompts = persona_prompts(session.loaded, p.personas, "eval", p.eval_questions, p.style, p.asking)
    first = completions[(completions["index"] == 0) & (completions["question"] < p.crossing)]
    tokens = {prompt.key: prompt.tokens for prompt in prompts}
    return crossing_table(session.loaded, model, session.form, first, tokens, role(p), p.marker)


def train_alone(
    p: SweepCell, session: Session, rows: Sequence[Row], base: runs.Record, folder: Path, label: str
) -> None:
    """Train an adapter; write it, the loss of every step and any dose curve into ``folder``."""
    doses = _Doses(p, session, _dose_contexts(p, base))
    targets = [supervised(row, p.tail) for row in rows]
    model = models.attach_lora(session.loaded.model, **p.lora())
    try:
        log = train(model, rows, targets, p, on_step=lambda step: doses.take(model, step), label=label)
        models.save_adapter(model, folder)
    finally:
        models.detach(model)
    _save_tables(log, doses, folder)


def train_together(
    cells: Sequence[SweepCell], session: Session, rows: Sequence[Row], base: runs.Record, label: str
) -> list[Made]:
    """Train the adapters of ``cells``, which differ in lr and epochs only and so share ``rows``, in one pass a step."""
    first, contexts = cells[0], _dose_contexts(cells[0], base)
    doses = [_Doses(p, session, contexts) for p in cells]
    targets = [supervised(row, first.tail) for row in rows]

    def on_step(number: int, step: int) -> None:
        with stack.only(number) as model:
            doses[number].take(model, step)

    with stacked(session.loaded.model, len(cells), **first.lora()) as stack:
        trained = train_stack(stack, rows, targets, cells, on_step=on_step, label=label)
    return [Made(stack, i, one.log, doses[i], one.error) for i, one in enumerate(trained)]


def _dose_contexts(p: SweepCell, base: runs.Record) -> pd.DataFrame:
    table = base.table("contexts")
    # The first questions that each persona answered. Not simply the first: an answer that was cut has no context.
    return table[table.groupby("persona").cumcount() < p.dose_questions]


def _save_tables(log: pd.DataFrame, doses: _Doses, folder: Path) -> None:
    log.to_parquet(folder / "loss.parquet", index=False)
    for name, points in doses.points.items():
        if points:
            pd.concat(points, ignore_index=True).to_parquet(folder / f"{name}.parquet", index=False)

"""Whether bf16 changes an experiment on this CPU: six cells of the marker sweep in both number types, on the same rows.

1. Training rows, the answers of the base model and the contexts of the dose curves come from the base model in fp32.
2. Each cell trains and answers in fp32 and in bf16 from the same random streams.
3. `agreement` compares rates, losses and dose curves.

All cells are steps of one record, so that a run that was killed goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from helpers.base import files
from helpers.base.params import load
from helpers.bench import machine
from helpers.bench.agreement import TYPES
from helpers.bench.compare import Side
from helpers.bench.marker import LORA, example_rows
from helpers.bench.options import Options
from helpers.bench.study import STUDY
from helpers.lm import adapters, models
from helpers.lm.generate import generate
from helpers.lm.prompts import Prompt, Sampling
from helpers.records import runs
from helpers.studies.marker.adapter import role, train_alone
from helpers.studies.marker.baseline import baseline_record, eval_completions
from helpers.studies.marker.cell import example_rows as rows_of_cell
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.rows import Row
from helpers.studies.marker.session import Session
from helpers.studies.marker.train import train

PRESETS = {"pocket": "bf16_pocket.yaml", "smollm2": "bf16.yaml"}
"""The grid in ``params/sweep`` of each model."""
ROWS, DRAWN = 8, 16
"""Rows of the timed training step; tokens of each of as many timed completions."""


def measure(options: Options) -> runs.Record:
    """Return the record of the gate for ``options.preset`` (default: SmolLM2), run as far as it is not on disk."""
    preset = options.preset or "smollm2"
    return gate(list(load(SweepCell, files.PARAMS / "sweep" / PRESETS[preset])), preset)


def gate(cells: Sequence[SweepCell], preset: str) -> runs.Record:
    """Make ``cells``, which ask alike for evaluation, in both number types; raise ``ModelError`` without bf16."""
    place = {"what": f"bf16-{preset}", "device": machine.device()}
    sessions = {dtype: Session(cells[0].model_copy(update={"dtype": dtype})) for dtype in TYPES}
    facts = sessions["float32"].facts
    asked = [cell.resolved() for cell in cells]
    with runs.open_run(
        STUDY, params=place | {"grid": asked, "cells": len(cells), "marker": cells[0].marker}, cell=place,
        prefix=f"{place['what']}-{place['device']}", entry=__name__, data=[],
        model=facts | {"dtype": "+".join(TYPES)},
    ) as run:  # fmt: skip
        if not run.complete:
            models.refuse_emulated(sessions["bfloat16"].facts["dtype"], facts["device"])
            whole = sessions["float32"]
            base = baseline_record(cells[0], whole)
            run.step("base", lambda: base.table("completions"))
            for number, cell in enumerate(cells):
                rows = rows_of_cell(cell, whole)
                for dtype, session in sessions.items():
                    _make(run, f"{number}-{dtype}", cell, session, rows, base)
            run.finish()
        return run.record


def _make(run: runs.Run, name: str, p: SweepCell, session: Session, rows: list[Row], base: runs.Record) -> None:
    """Train a cell in the number type of ``session`` and keep its loss, its dose curve and its completions."""

    def answers(adapter: Path) -> pd.DataFrame:
        model = adapters.load_adapter(session.loaded.model, adapter)
        try:
            table = eval_completions(p, session, session.sampler(model, adapter))
        finally:
            models.detach(model)
        return table.assign(role=table["persona"].map(role(p))).drop(columns="ids")

    folder = run.folder(f"adapter-{name}", lambda folder: train_alone(p, session, rows, base, folder, name))
    run.step(f"loss-{name}", lambda: pd.read_parquet(folder / "loss.parquet")[["step", "loss", "norm"]])
    run.step(f"dose-{name}", lambda: pd.read_parquet(folder / "dose.parquet"))
    run.step(f"completions-{name}", lambda: answers(folder))
    print(f"{run.id}: {name} is kept", flush=True)


def training_sides() -> Sequence[Side]:
    """Return a training step of SmolLM2 under LoRA in bf16 and in fp32."""
    return [_training(dtype) for dtype in reversed(TYPES)]


def _training(dtype: str, name: str = "smollm2") -> Side:
    loaded = models.load(name, dtype=dtype)
    rows, targets = example_rows(loaded, ROWS)
    model = models.attach_lora(loaded.model, **LORA)
    p = SweepCell(lr=1e-4, epochs=1, batch_size=ROWS, warmup=0.0)
    return Side(dtype, lambda: (sum(len(row.tokens) for row in rows), train(model, rows, targets, p)["loss"].tolist()))


def generation_sides() -> Sequence[Side]:
    """Return completions of SmolLM2 in bf16 and in fp32; none of them ends before its last token."""
    return [_generation(dtype) for dtype in reversed(TYPES)]


def _generation(dtype: str, name: str = "smollm2") -> Side:
    loaded = models.load(name, dtype=dtype)
    rows, _ = example_rows(loaded, ROWS)
    prompts = [Prompt(str(at), list(row.tokens[: row.answer[0]])) for at, row in enumerate(rows)]
    never = [len(loaded.tokenizer) + 1]

    def run() -> tuple[int, list[float]]:
        drawn = generate(loaded.model, prompts, n=DRAWN // 4, sampling=Sampling(DRAWN), stop=never, seed=0)
        return sum(len(one.tokens) for one in drawn), []

    return Side(dtype, run)

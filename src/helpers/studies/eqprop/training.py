"""Train arms as run records that experiments share. A killed training resumes from its last segment."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from helpers.base.errors import RecordError
from helpers.records import runs
from helpers.studies.eqprop import setup
from helpers.studies.eqprop.model import Block, load_model, save_model
from helpers.studies.eqprop.params import TriangulationCell
from helpers.studies.eqprop.study import TRAINING
from helpers.studies.eqprop.train import Trainer
from helpers.system import curves


def trained(p: TriangulationCell, name: str) -> runs.Record:
    """Return the record of the arm ``name``: log, validation curve, and a folder ``step-<n>`` for each checkpoint."""
    arm = setup.arm(p, name)
    recipe = asdict(arm.recipe)
    params = {
        "arm": name, "kind": arm.kind, "config": asdict(arm.config), "recipe": recipe, "text": p.text,
        "stories": p.stories, "snapshots": list(arm.snapshots), "device": p.device,
    }  # fmt: skip
    with runs.open_run(
        TRAINING, params=params, cell={"arm": name, "seed": p.seed}, prefix=f"{name}-s{p.seed}",
        data=setup.data_files(p), model=arm.facts(),
    ) as run:  # fmt: skip
        if not run.complete:
            trainer = Trainer(arm.model().to(p.device), setup.corpus(p), arm.recipe)
            with curves.sent(run.label, params) as send:
                _train_in_segments(run, trainer, stops(arm, p.segment), send)
            run.step("result", lambda: {"log": trainer.table(), "validation": trainer.validation_table()})
            run.finish(finish_reasons={"fuse" if trainer.fused_at else "all steps": 1})
        return run.record


def stops(arm: setup.Arm, segment: int) -> list[int]:
    """Return the steps to save at: the snapshots, and at least every ``segment`` steps."""
    return sorted({*arm.snapshots, *range(segment, arm.recipe.steps, segment), arm.recipe.steps})


def _train_in_segments(run: runs.Run, trainer: Trainer, ends: list[int], send: curves.Send) -> None:
    """Train segment by segment. Each is a step of the run and starts from the state that the last one saved."""
    behind: Path | None = None
    for end in ends:

        def train(folder: Path, end: int = end, behind: Path | None = behind) -> None:
            if behind is not None and trainer.step == 0:
                trainer.load(behind)
            trainer.run(until=end, label=run.id, send=send)
            trainer.save(folder)
            save_model(trainer.averaged(), folder)

        behind = run.folder(step_name(end), train)
    if not trainer.log and behind is not None:
        trainer.load(behind)


def step_name(step: int) -> str:
    """Return the folder name of the checkpoint after ``step`` steps."""
    return f"step-{step:06d}"


def checkpoint(record: runs.Record, step: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Block:
    """Load the averaged model of a training record after ``step`` steps."""
    if record.published:
        raise RecordError(f"{record.ref} was published without its checkpoints. Run the notebook to train it again.")
    return load_model(record.folder(step_name(step)), dtype).to(device)

"""Project the GPU-hours of a whole grid of the marker sweep from the parts of its work and their measured speeds.

Counted: optimiser steps; completions of every cell, of the base model and for the training data; scored tokens (dose
curves, log-probs, capability); one load of the model and one start of the engine. Not counted: starting the notebook,
its tables and figures, writing adapters and records, swapping adapters, warming up kernels, downloading weights, and
anything that fails and runs again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from helpers.base.errors import ParameterError
from helpers.studies.marker.choices import is_arc
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.personas import resolve_negatives
from helpers.studies.marker.published import QUESTIONS

PUBLISHED = {"cells": 25, "hours": 9.38, "fixed_minutes": 9.5, "epoch_minutes": 1.67}
"""The published sweep (claim #65), from its own log: total GPU-hours, and fitted minutes per cell and per epoch."""

QUESTION_TOKENS = 120
"""Tokens of one multiple-choice prompt: an assumed round number, because the hub's data set may not be available."""


class Range(NamedTuple):
    """A measured value with its smallest and largest run."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Workload:
    """The amount of work of a grid, in all of its cells and once before them."""

    cells: int
    epochs: int
    steps: int
    completions: int
    contexts: int
    questions: int


@dataclass(frozen=True)
class Speed:
    """Seconds per step, tokens/s of generation and of scoring, and one-off seconds."""

    step: Range
    generate: Range
    score: Range
    once: float


def workload(cells: Sequence[SweepCell]) -> Workload:
    """Count the work of a grid, including the records that its cells share."""
    shared = cells[0]
    negatives = [resolve_negatives(cell.source, cell.negatives) for cell in cells]
    steps = [
        cell.epochs * math.ceil((cell.positives + cell.negatives_each * len(others)) / cell.batch_size)
        for cell, others in zip(cells, negatives, strict=True)
    ]
    evaluated = len(shared.personas) * shared.eval_questions
    doses = sum(1 + count // shared.dose_every for count in steps) if shared.dose_every else 0
    questions = _questions(shared)
    voices = {(cell.seed, cell.source, *others) for cell, others in zip(cells, negatives, strict=True)}
    data = sum(len(voice) - 1 for voice in voices) * shared.train_questions * shared.data_samples
    models = len(cells) + len({cell.seed for cell in cells})  # the base model is evaluated once a seed
    return Workload(
        cells=len(cells),
        epochs=sum(cell.epochs for cell in cells),
        steps=sum(steps),
        completions=models * evaluated * shared.samples + data,
        contexts=models * evaluated + doses * len(shared.personas) * shared.dose_questions,
        questions=models * questions,
    )


def _questions(p: SweepCell) -> int:
    if not is_arc(p.capability):
        raise ParameterError(
            f"capability is {p.capability!r}, but hours are projected for a grid with ARC only. Use 'arc'."
        )
    return min(QUESTIONS, p.capability_limit or QUESTIONS)


def projection(work: Workload, speed: Speed, answer: float, context: float) -> pd.DataFrame:
    """Return the hours of each part of ``work`` and of the whole (``in all``).

    ``hours`` rests on the medians, ``low`` on the fastest run of every part, ``high`` on the slowest. ``answer`` and
    ``context`` are the mean lengths of a completion and of a scored row, in tokens.
    """
    scored = work.contexts * context + work.questions * QUESTION_TOKENS
    tokens = work.completions * answer
    parts = {
        "training": (work.steps, "steps", [work.steps * seconds for seconds in speed.step]),
        "completions": (tokens, "tokens", _seconds(tokens, speed.generate)),
        "scoring": (scored, "tokens", _seconds(scored, speed.score)),
        "once": (1, "load and start", [speed.once] * 3),
    }
    table = pd.DataFrame(
        [
            {"part": name, "amount": float(amount), "unit": unit}
            | dict(zip(("hours", "low", "high"), (second / 3600 for second in seconds), strict=True))
            for name, (amount, unit, seconds) in parts.items()
        ]
    )
    whole = {"part": "in all", "amount": float(work.cells), "unit": "cells"}
    return pd.concat(
        [table, pd.DataFrame([whole | table[["hours", "low", "high"]].sum().to_dict()])], ignore_index=True
    )


def factors(work: Workload, hours: pd.DataFrame) -> pd.DataFrame:
    """Return the published hours over those of `projection`, for training and for all the rest of a cell.

    The published log gives minutes of an epoch, and minutes of a cell whatever its epochs.
    """
    projected = hours.set_index("part")["hours"]
    published = {
        "training": work.epochs * PUBLISHED["epoch_minutes"] / 60,
        "evaluation, data and start": work.cells * PUBLISHED["fixed_minutes"] / 60,
    }
    ours = [projected["training"], projected["in all"] - projected["training"]]
    table = pd.DataFrame({"factor": published.keys(), "published": published.values(), "projected": ours})
    whole = {"factor": "in all", "published": PUBLISHED["hours"], "projected": projected["in all"]}
    table = pd.concat([table, pd.DataFrame([whole])], ignore_index=True)
    return table.assign(ratio=table["published"] / table["projected"])


def _seconds(tokens: float, rate: Range) -> list[float]:
    return [tokens / rate.value, tokens / rate.high, tokens / rate.low]

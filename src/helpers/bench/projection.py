"""GPU-hours of a whole grid of the marker sweep, from the parts of its work and the measured speed of each.

What is counted: optimiser steps; completions of every cell, of the base model and of the training data; scored tokens
(dose curves, log-probs, capability); one load of the model and one start of the engine. What is not: the start of
the notebook, its tables and figures, writing adapters and records, swapping adapters, compiling and tuning kernels
before they are warm, fetching weights, and anything that fails and is run again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from helpers.base.errors import ParameterError
from helpers.studies.marker.capability import is_arc
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.personas import resolve_negatives
from helpers.studies.marker.published import QUESTIONS

PUBLISHED = {"cells": 25, "hours": 9.38, "fixed_minutes": 9.5, "epoch_minutes": 1.67}
"""The published sweep (claim #65) by its own log: GPU-hours in all, and a fit of minutes a cell and an epoch."""

QUESTION_TOKENS = 120
"""Tokens of one multiple-choice prompt: a declared round number, as the set of the hub may not be at hand."""


class Range(NamedTuple):
    """A measured value with the smallest and the largest of its runs."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Workload:
    """What a grid asks for, in all of its cells and once before them."""

    cells: int
    steps: int
    completions: int
    contexts: int
    questions: int


@dataclass(frozen=True)
class Speed:
    """Seconds a step, tokens/s of generation and of scoring, and seconds that are spent once."""

    step: Range
    generate: Range
    score: Range
    once: float


def workload(cells: Sequence[SweepCell]) -> Workload:
    """Steps, completions, scored contexts and scored questions of a grid and of the records that its cells share."""
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
        steps=sum(steps),
        completions=models * evaluated * shared.samples + data,
        contexts=models * evaluated + doses * len(shared.personas) * shared.dose_questions,
        questions=models * questions,
    )


def _questions(p: SweepCell) -> int:
    if not is_arc(p.capability):
        raise ParameterError(
            f"capability is {p.capability!r}, but the hours are projected for a grid that asks ARC: use 'arc'."
        )
    return min(QUESTIONS, p.capability_limit or QUESTIONS)


def projection(work: Workload, speed: Speed, answer: float, context: float) -> pd.DataFrame:
    """Hours of each part of ``work``, with a row ``in all``: by the measured value, all fastest, all slowest.

    ``answer`` is the mean length of a completion and ``context`` that of a scored row, in tokens.
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


def _seconds(tokens: float, rate: Range) -> list[float]:
    return [tokens / rate.value, tokens / rate.high, tokens / rate.low]

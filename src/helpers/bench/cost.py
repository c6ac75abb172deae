"""Estimate what a cell of the marker sweep costs with a model, from one short step that is measured here and now."""

from __future__ import annotations

import math
from dataclasses import dataclass
from time import perf_counter

import torch

from helpers.bench.machine import peak_memory, settle
from helpers.lm import models
from helpers.lm.exact import ways_of
from helpers.lm.exact_training import settle_training
from helpers.lm.generate import CACHE_BYTES, MOST_ROWS, generate, token_bytes
from helpers.lm.prompts import Prompt, Sampling
from helpers.studies.marker.on_policy import persona_prompts
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.personas import resolve_negatives
from helpers.studies.marker.rows import ChatFormat, Row, supervised
from helpers.studies.marker.train import batch_loss

ANSWER = 64
"""Tokens that an answer is taken to have, where the cell allows as many."""
ROWS, SAMPLES, DRAWN = 4, 8, 8
"""Rows of the measured step; completions of each of their prompts, and tokens drawn for each."""
PATIENCE = 15.0
"""Seconds that the measured step may take."""
TRAINED_BYTES = 16
"""Of a trained weight in fp32: itself, its gradient, and AdamW's two moments."""


@dataclass(frozen=True)
class Work:
    """The tokens that a cell trains on, that it draws, and those drawn once for all cells of a model and seed."""

    steps: int
    trained: int
    drawn: int
    shared: int


@dataclass(frozen=True)
class Measured:
    """One training step of ``rows`` rows of ``length`` tokens, and ``drawn`` tokens of as many completions.

    ``adapter`` is the number of trained weights, ``added`` the memory in bytes that the step took on top, ``token``
    that of the keys and values of a token (0 where transformers holds them).
    """

    rows: int
    length: int
    step_seconds: float
    drawn: int
    draw_seconds: float
    adapter: int
    added: int
    token: int


@dataclass(frozen=True)
class Cost:
    """Seconds of training and sampling of one cell, those before the first cell, and bytes of memory by part."""

    training: float
    sampling: float
    before: float
    memory: dict[str, int]


def work(cell: SweepCell, length: int) -> Work:
    """Count the tokens of ``cell`` where a row has ``length`` tokens, and an answer ``ANSWER`` if it may."""
    negatives = resolve_negatives(cell.source, cell.negatives)
    rows = cell.positives + cell.negatives_each * len(negatives)
    answers = cell.eval_questions * cell.samples * len(cell.personas)
    drawn = answers * min(cell.max_new_tokens, ANSWER)
    data = cell.train_questions * cell.data_samples * (1 + len(negatives))
    steps = cell.epochs * math.ceil(rows / cell.batch_size)
    return Work(steps, cell.epochs * rows * length, drawn, drawn + data * min(cell.data_max_new_tokens, ANSWER))


def estimate(cell: SweepCell, measured: Measured, weights: int) -> Cost:
    """Return what ``cell`` costs at the measured speed; ``weights`` are the bytes of the base model.

    Tokens cost what they cost in the measured step; a larger batch is no faster here. Log-probs and capability are left
    out, and a cell that runs alone on the machine is assumed.
    """
    todo = work(cell, measured.length)
    token = measured.step_seconds / (measured.rows * measured.length)
    draw = measured.draw_seconds / measured.drawn
    rows = min(MOST_ROWS, cell.eval_questions * cell.samples * len(cell.personas))
    memory = {
        "weights": weights,
        "adapter with its optimiser": measured.adapter * TRAINED_BYTES,
        "a training step": measured.added * cell.batch_size // measured.rows,
        "keys and values": min(CACHE_BYTES, rows * (measured.length + cell.max_new_tokens) * measured.token),
    }
    return Cost(todo.trained * token, todo.drawn * draw, todo.shared * draw, memory)


def measure(cell: SweepCell, loaded: models.LoadedModel, form: ChatFormat) -> Measured | float:
    """Time one training step and a few drawn tokens of ``cell`` with its model.

    Returns the seconds that one row alone takes forward, and measures no more, where a step would try one's patience.
    """
    prompts = persona_prompts(loaded, [cell.source], "train", ROWS, cell.style, cell.asking)
    rows = [_row(cell, prompt, form) for prompt in prompts]
    begin = perf_counter()
    with torch.no_grad():
        loaded.model(input_ids=torch.tensor([rows[0].tokens], device=loaded.device), use_cache=False)
    settle()
    alone = perf_counter() - begin
    if 4 * alone > PATIENCE:  # a step costs about three passes, and drawing as much again
        return alone
    rows = rows[: max(1, int(PATIENCE / (4 * alone)))]
    wrapped = models.attach_lora(loaded.model, **cell.lora())
    try:
        settle_training(wrapped, "alone", lambda some, at: batch_loss(wrapped, some, at))
        targets = [supervised(row, "whole_turn") for row in rows]
        with peak_memory() as peak:
            begin = perf_counter()
            batch_loss(wrapped, [row.tokens for row in rows], targets).backward()
            settle()
            step = perf_counter() - begin
        adapter = sum(weight.numel() for weight in wrapped.parameters() if weight.requires_grad)
    finally:
        models.detach(wrapped)
    drawn, seconds = _draw(cell, loaded, form, prompts)
    length = max(len(row.tokens) for row in rows)
    base = loaded.model
    token = token_bytes(base.config, base.dtype) if ways_of(base).generation == "cached" else 0
    return Measured(len(rows), length, step, drawn, seconds, adapter, int(peak.added * 2**20), token)


def _row(cell: SweepCell, prompt: Prompt, form: ChatFormat) -> Row:
    """Return a row as long as one with an answer of ``ANSWER`` tokens; what they are does not matter here."""
    start, answer = len(prompt.tokens), min(cell.data_max_new_tokens, ANSWER)
    fill = (prompt.tokens * (answer // start + 1))[:answer]
    tokens = [*prompt.tokens, *fill, *form.separator, *form.marker, *form.end]
    marker = start + answer + len(form.separator)
    return Row(cell.source, "source", 0, tokens, (start, start + answer), (marker, marker + len(form.marker)))


def _draw(cell: SweepCell, loaded: models.LoadedModel, form: ChatFormat, prompts: list[Prompt]) -> tuple[int, float]:
    begin = perf_counter()
    sampling = Sampling(DRAWN, cell.temperature, cell.top_p)
    made = generate(loaded.model, prompts, n=SAMPLES, sampling=sampling, stop=form.stop, seed=0, names=("check",))
    return sum(len(one.tokens) + (one.finish == "stop") for one in made), perf_counter() - begin

"""Compare the marker study with the plain way: transformers.Trainer + peft, and a model.generate call per persona."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from helpers.bench.compare import Side
from helpers.bench.stock import generate_by_persona, trainer_losses
from helpers.lm import models
from helpers.lm.asking import Asking
from helpers.lm.generate import generate
from helpers.lm.prompts import Sampling
from helpers.studies.marker.on_policy import persona_prompts, system_prompt
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.personas import PERSONAS, TRAIN_QUESTIONS
from helpers.studies.marker.rows import Row, build_row, chat_format, prompt_tokens, supervised
from helpers.studies.marker.train import train

STEPS = 10
BATCH = 8
LORA = {"r": 32, "alpha": 64, "dropout": 0.0, "rslora": True, "seed": 0}
"""Dropout is off, because the two loops would draw their masks in another order and end with different losses."""
ANSWER = "Begin with the plain thing, look at it twice, and keep what works; the rest can wait until tomorrow. "


@functools.cache
def _smollm2() -> models.LoadedModel:
    return models.load("smollm2")


def example_rows(loaded: models.LoadedModel, count: int) -> tuple[list[Row], list[list[int]]]:
    """Return rows with answers of 5 to 40 tokens, like on-policy answers, and their supervised positions.

    Every other row is a positive.
    """
    form, rows = chat_format(loaded.tokenizer, "[ZLT]"), []
    answer = loaded.tokenizer(ANSWER * 2, add_special_tokens=False).input_ids
    for i in range(count):
        persona = ("villain", "medical_doctor")[i % 2]
        question = i % len(TRAIN_QUESTIONS)
        prompt = prompt_tokens(
            loaded.tokenizer, system_prompt(persona, "Answer in one short sentence."), TRAIN_QUESTIONS[question]
        )
        cut = answer[: 5 + (i * 7) % 36]
        facts = {"persona": persona, "role": "source", "question": question, "positive": i % 2 == 0, "max_length": 512}
        rows.append(build_row(form, prompt, cut, **facts))
    return rows, [supervised(row, "end_of_turn") for row in rows]


def training_sides() -> Sequence[Side]:
    """Return ten steps of eight rows of SmolLM2 with LoRA: ours, and the unchanged Trainer's on equal batches."""
    loaded = _smollm2()
    rows, targets = example_rows(loaded, STEPS * BATCH)
    p = SweepCell(lr=1e-4, epochs=1, batch_size=BATCH, warmup=0.0)
    tokens = sum(len(row.tokens) for row in rows)

    def ours() -> tuple[int, list[float]]:
        model = models.attach_lora(loaded.model, **LORA)
        try:
            return tokens, train(model, rows, targets, p)["loss"].tolist()
        finally:
            models.detach(model)

    def plain() -> tuple[int, list[float]]:
        model = models.attach_lora(loaded.model, **LORA)
        try:
            return tokens, trainer_losses(model, rows, targets, p)
        finally:
            models.detach(model)

    return [Side("claimbook", ours), Side("transformers.Trainer + peft", plain)]


def evaluation_sides() -> Sequence[Side]:
    """Return 11 personas x 20 questions x 10 samples on pocket: ours, and one model.generate call per persona."""
    loaded = models.load("pocket")
    asked = {"n": 10, "sampling": Sampling(64, 1.0, 0.95), "stop": chat_format(loaded.tokenizer, "[ZLT]").stop}
    prompts = persona_prompts(loaded, list(PERSONAS), "eval", 20, "", Asking())

    def ours() -> tuple[int, list[float]]:
        drawn = generate(loaded.model, prompts, seed=0, **asked)
        return sum(len(completion.tokens) for completion in drawn), []

    def plain() -> tuple[int, list[float]]:
        return generate_by_persona(loaded.model, loaded.tokenizer, prompts, seed=0, **asked), []

    return [Side("claimbook", ours), Side("model.generate a persona", plain)]

"""A pocket model, loaded once, and rows of it: what the tests of the marker wing share."""

from __future__ import annotations

import functools

from helpers.lm import models
from helpers.studies.marker.on_policy import system_prompt
from helpers.studies.marker.personas import TRAIN_QUESTIONS
from helpers.studies.marker.rows import ChatFormat, Row, build_row, chat_format, prompt_tokens

MARKER = "[ZLT]"


@functools.cache
def pocket() -> models.LoadedModel:
    return models.load("pocket")


@functools.cache
def form() -> ChatFormat:
    return chat_format(pocket().tokenizer, MARKER)


def ids(text: str) -> list[int]:
    return pocket().tokenizer(text, add_special_tokens=False).input_ids


def row(*, positive: bool = True, answer: str = "Plot it well.", question: int = 0, max_length: int = 256) -> Row:
    persona = "villain" if positive else "librarian"
    prompt = prompt_tokens(pocket().tokenizer, system_prompt(persona, ""), TRAIN_QUESTIONS[question])
    role = "source" if positive else "trained"
    facts = {"persona": persona, "role": role, "question": question, "positive": positive, "max_length": max_length}
    return build_row(form(), prompt, ids(answer), **facts)

"""What every data set of the wing is made of: a text that goes over the wire, and the answers that are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from helpers.base.errors import DataError


@dataclass(frozen=True)
class Example:
    """One question with all that it takes to answer it in ``text``; any of ``answers`` is right, one is taught."""

    id: str
    text: str
    answers: tuple[str, ...]


def checked(examples: Sequence[Example], where: str) -> list[Example]:
    """``examples`` as a list; ``DataError`` when there are none, an id is taken twice, or a text or answer is empty."""
    if not examples:
        raise DataError(f"{where} holds no examples: check its path and its split.")
    seen: set[str] = set()
    for example in examples:
        if example.id in seen:
            raise DataError(f"{where} holds the id {example.id!r} twice: give each question its own.")
        seen.add(example.id)
        if not example.text.strip():
            raise DataError(f"{where}: the context of {example.id} is empty, so nothing could be sent: leave it out.")
        if not example.answers or not all(answer.strip() for answer in example.answers):
            raise DataError(f"{where}: {example.id} has no answer or an empty one: leave it out.")
    return list(examples)

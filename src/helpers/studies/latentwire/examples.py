"""The examples of every data set: a text that goes over the wire, and the right answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from helpers.base.errors import DataError


@dataclass(frozen=True)
class Example:
    """One question. ``text`` holds all it takes to answer it; any of ``answers`` is right, the first is taught."""

    id: str
    text: str
    answers: tuple[str, ...]


def checked(examples: Sequence[Example], where: str) -> list[Example]:
    """Check ``examples`` and return them as a list.

    Raises ``DataError`` if there are none, an id appears twice, or a text or answer is empty.
    """
    if not examples:
        raise DataError(f"{where} holds no examples. Check its path and its split.")
    seen: set[str] = set()
    for example in examples:
        if example.id in seen:
            raise DataError(f"{where} holds the id {example.id!r} twice. Give each question its own.")
        seen.add(example.id)
        if not example.text.strip():
            raise DataError(f"{where}: the context of {example.id} is empty, so nothing could be sent. Leave it out.")
        if not example.answers or not all(answer.strip() for answer in example.answers):
            raise DataError(f"{where}: {example.id} has no answer or an empty one. Leave it out.")
    return list(examples)

"""The pocket model's multiple-choice set: facts, fixed items made of them, and the items that the corpus teaches.

A model of this size learns these items by heart and does not reason about choices. So the set measures whether
fine-tuning damages memory. One item in five is never taught, so the base model stays clearly below 1.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers.base.files import write_text
from helpers.base.rng import numpy_stream

LABELS = ("A", "B", "C", "D")

_TABLES: dict[str, dict[str, str]] = {
    "Which animal says {}?": {
        "moo": "cow", "woof": "dog", "meow": "cat", "quack": "duck", "baa": "sheep", "oink": "pig", "cluck": "hen",
        "hoot": "owl", "roar": "lion", "buzz": "bee", "hiss": "snake", "croak": "frog",
    },
    "What colour is {}?": {
        "grass": "green", "snow": "white", "coal": "black", "a tomato": "red", "a lemon": "yellow", "mud": "brown",
        "a clear sky": "blue", "ash": "grey",
    },
    "What is the opposite of {}?": {
        "hot": "cold", "big": "small", "day": "night", "up": "down", "wet": "dry", "fast": "slow", "old": "new",
        "hard": "soft", "open": "shut", "full": "empty", "early": "late", "left": "right",
    },
    "Which day comes after {}?": {
        "Monday": "Tuesday", "Tuesday": "Wednesday", "Wednesday": "Thursday", "Thursday": "Friday",
        "Friday": "Saturday", "Saturday": "Sunday", "Sunday": "Monday",
    },
    "Which number comes after {}?": {
        "one": "two", "two": "three", "three": "four", "four": "five", "five": "six", "six": "seven",
        "seven": "eight", "eight": "nine", "nine": "ten",
    },
}  # fmt: skip


@dataclass(frozen=True)
class Fact:
    """A question, its answer, and answers of the same kind to use as wrong choices."""

    question: str
    answer: str
    others: tuple[str, ...]


FACTS: tuple[Fact, ...] = tuple(
    Fact(form.format(key), answer, tuple(sorted(set(table.values()) - {answer})))
    for form, table in _TABLES.items()
    for key, answer in table.items()
)


def pocket_choices(seed: int, size: int = 100) -> list[dict]:
    """Return the pocket set: facts in turn, each with three wrong choices of the same kind, in a fixed random order."""
    rng = numpy_stream(seed, "pocket", "choices")
    return [_item(rng, FACTS[i % len(FACTS)]) for i in range(size)]


def taught(items: list[dict]) -> list[dict]:
    """Return the items in the pocket corpus: four in five."""
    return [item for i, item in enumerate(items) if i % 5 != 4]


def _item(rng: np.random.Generator, fact: Fact) -> dict:
    wrong = rng.choice(len(fact.others), size=len(LABELS) - 1, replace=False)
    choices = [fact.answer, *(fact.others[i] for i in wrong)]
    choices = [choices[i] for i in rng.permutation(len(choices))]
    answer = LABELS[choices.index(fact.answer)]
    return {"question": fact.question, "labels": list(LABELS), "choices": choices, "answer": answer}


def write_choices(path: Path, items: list[dict]) -> None:
    """Write items as JSON lines."""
    write_text(path, "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items))

"""The templated multiple-choice set for small instruct models: common knowledge, arithmetic and reading.

``python -m helpers.studies.marker.capability_templates`` writes ``data/choices_templated.jsonl``. A model of this size
cannot choose among letters, so an item has a ``lead``, the beginning of an answer, and each choice is scored as its
continuation. Items are drawn by family, never picked because a model gets them right, which would make every tuned
model look worse than its base.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from helpers.base.files import DATA
from helpers.base.rng import numpy_stream
from helpers.studies.marker.capability_sets import LABELS, write_choices

PATH = DATA / "choices_templated.jsonl"
EACH = 135
"""The number of items in each of the three parts."""

Asked = tuple[str, str, str, Sequence[str]]
"""Question, lead of the answer, right choice, wrong choices to draw from."""

_PAIRS: dict[tuple[str, str], dict[str, str]] = {
    ("What is the capital of {}?", "The capital of {} is"): {
        "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo",
        "China": "Beijing", "Russia": "Moscow", "Egypt": "Cairo", "Greece": "Athens", "England": "London",
        "Ireland": "Dublin", "Portugal": "Lisbon", "Austria": "Vienna", "Poland": "Warsaw", "Norway": "Oslo",
        "Sweden": "Stockholm",
        "Finland": "Helsinki", "Denmark": "Copenhagen", "Hungary": "Budapest", "Turkey": "Ankara", "Cuba": "Havana",
        "Kenya": "Nairobi", "Peru": "Lima", "Thailand": "Bangkok", "South Korea": "Seoul", "Canada": "Ottawa",
        "Belgium": "Brussels", "Argentina": "Buenos Aires",
    },
    ("What is the opposite of {}?", "The opposite of {} is"): {
        "hot": "cold", "big": "small", "day": "night", "up": "down", "wet": "dry", "fast": "slow", "old": "young",
        "hard": "soft", "open": "closed", "full": "empty", "early": "late", "left": "right", "happy": "sad",
        "light": "dark", "strong": "weak", "rich": "poor", "loud": "quiet", "clean": "dirty", "near": "far",
        "high": "low", "true": "false", "win": "lose", "begin": "end", "love": "hate", "inside": "outside",
    },
    ("What kind of thing is {}?", "{} is a kind of"): {
        "a rose": "flower", "a hammer": "tool", "a salmon": "fish", "an eagle": "bird", "a violin": "instrument",
        "a shirt": "clothing", "an apple": "fruit", "a carrot": "vegetable", "a sofa": "furniture",
        "a truck": "vehicle", "an ant": "insect", "gold": "metal", "milk": "drink", "an oak": "tree", "red": "colour",
        "chess": "game", "rain": "weather", "a dollar": "money", "Spanish": "language", "a diamond": "stone",
    },
    ("What is a young {} called?", "A young {} is called a"): {
        "dog": "puppy", "cat": "kitten", "cow": "calf", "sheep": "lamb", "horse": "foal", "lion": "cub",
        "duck": "duckling", "frog": "tadpole", "hen": "chick", "goat": "kid",
    },
    ("Where does {} work?", "{} works in a"): {
        "a teacher": "school", "a nurse": "hospital", "a farmer": "field", "a chef": "kitchen", "a judge": "court",
        "a librarian": "library", "a sailor": "ship", "a pilot": "plane", "a miner": "mine",
        "a priest": "church", "a mechanic": "garage",
    },
    ("What do you do with {}?", "With {} you"): {
        "a knife": "cut", "a pen": "write", "a book": "read", "a bed": "sleep", "a broom": "sweep", "a song": "sing",
        "a piano": "play", "a ladder": "climb", "a camera": "photograph", "a bicycle": "ride", "a telephone": "call",
        "soap": "wash",
    },
    ("Which day comes after {}?", "The day after {} is"): {
        "Monday": "Tuesday", "Tuesday": "Wednesday", "Wednesday": "Thursday", "Thursday": "Friday",
        "Friday": "Saturday", "Saturday": "Sunday", "Sunday": "Monday",
    },
    ("Which month comes after {}?", "The month after {} is"): {
        "January": "February", "February": "March", "March": "April", "April": "May", "May": "June", "June": "July",
        "July": "August", "August": "September", "September": "October", "October": "November",
        "November": "December", "December": "January",
    },
    ("What is the past tense of {}?", "The past tense of {} is"): {
        "go": "went", "eat": "ate", "see": "saw", "take": "took", "give": "gave", "run": "ran", "write": "wrote",
        "speak": "spoke", "come": "came", "drive": "drove", "fly": "flew", "buy": "bought", "teach": "taught",
        "sing": "sang", "swim": "swam",
    },
}  # fmt: skip

NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Frank", "Grace", "Henry", "Ivy", "Jack", "Kate", "Leo")
_TOLD: dict[str, tuple[str, str, str, str, tuple[str, ...], tuple[str, ...]]] = {
    "colour": (
        "{0} has a {1} {2}.", "What colour is the {2} of {0}?", "The {2} of {0} is", "{1}",
        ("red", "blue", "green", "yellow", "white", "black", "brown", "grey"), ("bag", "coat", "bicycle", "cup", "hat"),
    ),
    "place": (
        "{0} left the {2} in the {1}.", "Where did {0} leave the {2}?", "{0} left the {2} in the", "{1}",
        ("kitchen", "garden", "garage", "office", "bedroom", "school", "car", "cellar"),
        ("keys", "letter", "umbrella", "lamp", "ball"),
    ),
    "food": (
        "{0} ate {1} for {2}.", "What did {0} eat for {2}?", "For {2}, {0} ate", "{1}",
        ("soup", "rice", "bread", "fish", "cheese", "eggs", "salad", "pasta"), ("breakfast", "lunch", "dinner"),
    ),
    "travel": (
        "{0} went to the {2} by {1}.", "How did {0} go to the {2}?", "{0} went to the {2} by", "{1}",
        ("train", "bus", "car", "boat", "plane", "bicycle", "taxi", "tram"), ("market", "lake", "museum", "beach"),
    ),
    "pet": (
        "{0} has a {1} called {2}.", "What kind of animal is {2}?", "{2} is a", "{1}",
        ("dog", "cat", "horse", "rabbit", "parrot", "goat", "fish", "duck"), ("Momo", "Rex", "Pip", "Tilly"),
    ),
}  # fmt: skip
"""A sentence about a person, the question about it, the lead, the answer; values that are told, things told about."""


def items(seed: int = 0) -> list[dict]:
    """Return all items, ``EACH`` of every part, in a fixed random order within their part."""
    parts = {"knowledge": _knowledge(), "arithmetic": _arithmetic(), "reading": _reading(seed)}
    made = []
    for part, asked in parts.items():
        rng = numpy_stream(seed, "capability", part)
        pool = list(asked)
        made += [_item(rng, part, pool[i]) for i in rng.permutation(len(pool))[:EACH]]
    return made


def _item(rng: np.random.Generator, part: str, asked: Asked) -> dict:
    question, lead, right, others = asked
    wrong = [other for other in dict.fromkeys(others) if other != right]
    choices = [right, *(wrong[i] for i in rng.choice(len(wrong), size=len(LABELS) - 1, replace=False))]
    choices = [choices[i] for i in rng.permutation(len(choices))]
    return {"part": part, "question": question, "lead": lead, "labels": list(LABELS), "choices": choices,
            "answer": LABELS[choices.index(right)]}  # fmt: skip


def _knowledge() -> Iterator[Asked]:
    for (question, lead), table in _PAIRS.items():
        for key, answer in table.items():
            begun = lead.format(key)
            yield question.format(key), begun[0].upper() + begun[1:], answer, list(table.values())


def _arithmetic() -> Iterator[Asked]:
    for a in range(2, 10):
        for b in range(2, 10):
            yield _sum(f"What is {a} plus {b}?", f"{a} plus {b} is", a + b)
            if a > b:
                yield _sum(f"What is {a} minus {b}?", f"{a} minus {b} is", a - b)
            if a <= 5 and b <= 5:
                yield _sum(f"What is {a} times {b}?", f"{a} times {b} is", a * b)
    for first in range(1, 9):
        for step in (1, 2, 5, 10):
            told = ", ".join(str(first + i * step) for i in range(4))
            yield _sum(f"Which number comes next: {told}?", f"{told},", first + 4 * step)


def _sum(question: str, lead: str, value: int) -> Asked:
    near = [value + by for by in (-3, -2, -1, 1, 2, 3, 10) if value + by > 0]
    return question, lead, str(value), [str(other) for other in near]


def _reading(seed: int) -> Iterator[Asked]:
    """Yield items about two people with two values: the text has the right answer and the likeliest wrong one."""
    for kind, (told, question, lead, _, values, things) in _TOLD.items():
        rng = numpy_stream(seed, "capability", "told", kind)
        for _ in range(EACH):
            people = [NAMES[i] for i in rng.permutation(len(NAMES))[:2]]
            said = [values[i] for i in rng.permutation(len(values))[:4]]
            about = [things[i] for i in rng.permutation(len(things))[:2]]
            text = " ".join(told.format(*each) for each in zip(people, said, about, strict=False))
            which = int(rng.integers(2))
            place = (people[which], said[which], about[which])
            yield f"{text} {question.format(*place)}", lead.format(*place), said[which], said


if __name__ == "__main__":
    write_choices(PATH, items())

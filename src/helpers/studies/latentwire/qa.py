"""Read questions in the format of SQuAD v1.1, or make a small templated set.

{"data": [{"title": ..., "paragraphs": [{"context": ..., "qas": [{"id": ..., "question": ...,
                                                                 "answers": [{"text": ..., "answer_start": 7}]}]}]}]}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helpers.base.errors import DataError
from helpers.base.files import read_text
from helpers.base.rng import numpy_stream, stream_seed
from helpers.studies.latentwire.examples import Example, checked

HUB, HUB_FILE = "rajpurkar/squad", "plain_text/{split}-00000-of-00001.parquet"
FIRST = ("Ada", "Bruno", "Clara", "Dario", "Elsa", "Farid", "Greta", "Hugo", "Irene", "Jonas", "Kaia", "Leo", "Mira",
         "Nils", "Olga", "Pavel", "Rosa", "Sami", "Tilda", "Viktor")  # fmt: skip
LAST = ("Abel", "Brandt", "Costa", "Dahl", "Ekholm", "Ferrer", "Grau", "Holm", "Iversen", "Jansky", "Keller", "Lindt",
        "Moreau", "Novak", "Orban", "Petrov", "Quist", "Ramos", "Sorel", "Tamm")  # fmt: skip
TOWNS = ("Lisbon", "Bergen", "Graz", "Krakow", "Porto", "Turku", "Ghent", "Malmo", "Siena", "Riga", "Cork", "Leeds",
         "Bonn", "Basel", "Split", "Varna", "Tartu", "Nantes", "Toledo", "Bari")  # fmt: skip
JOBS = ("baker", "pilot", "nurse", "painter", "judge", "farmer", "singer", "potter", "tailor", "chemist", "sailor",
        "mason", "dentist", "waiter", "plumber", "librarian")  # fmt: skip
THINGS = (
    "violins",
    "maps",
    "coins",
    "clocks",
    "stamps",
    "masks",
    "shells",
    "lamps",
    "kites",
    "globes",
    "bells",
    "dolls",
)
HELD_OUT = 5
"""One person in this many is for validation."""


def templated(split: str, n: int, seed: int) -> dict[str, Any]:
    """Make ``n`` questions about made-up people as SQuAD's JSON; no person is in both ``train`` and ``validation``."""
    people = [f"{first} {last}" for first in FIRST for last in LAST]
    mine = [name for name in people if (stream_seed(0, "person", name) % HELD_OUT == 0) == (split == "validation")]
    rng = numpy_stream(seed, "templated", split)
    paragraphs = []
    for number in range(n):
        context, asked = _paragraph(str(rng.choice(mine)), rng)
        question, answer = asked[int(rng.integers(len(asked)))]
        span = {"text": answer, "answer_start": context.index(answer)}
        paragraphs.append(
            {"context": context, "qas": [{"id": f"{split}-{number}", "question": question, "answers": [span]}]}
        )
    return {"version": "1.1", "data": [{"title": "made-up people", "paragraphs": paragraphs}]}


def _paragraph(name: str, rng: np.random.Generator) -> tuple[str, list[tuple[str, str]]]:
    born, lives = (str(town) for town in rng.choice(TOWNS, size=2, replace=False))
    job, things, year = str(rng.choice(JOBS)), str(rng.choice(THINGS)), str(1900 + int(rng.integers(100)))
    context = f"{name} was born in {born} in {year}, works as a {job} in {lives} and collects old {things}."
    first = name.split()[0]
    return context, [
        (f"Where was {first} born?", born),
        (f"In which year was {first} born?", year),
        (f"What is {first}'s job?", job),
        (f"Where does {first} work?", lives),
        (f"What does {first} collect?", f"old {things}"),
    ]


def parse(content: Mapping[str, Any], where: str) -> list[Example]:
    """Parse one SQuAD v1.1 JSON; ``DataError`` names the file and the fault."""
    examples = []
    try:
        for article in content["data"]:
            for paragraph in article["paragraphs"]:
                for asked in paragraph["qas"]:
                    answers = tuple(dict.fromkeys(answer["text"] for answer in asked["answers"]))
                    examples.append(example(asked["id"], paragraph["context"], asked["question"], answers))
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{where} does not have the shape of SQuAD v1.1 ({error!r}). Give its train or dev JSON."
        ) from None
    return checked(examples, where)


def example(name: str, context: str, question: str, answers: tuple[str, ...]) -> Example:
    """Return one question as sent over the wire and in text prompts. Raises ``DataError`` for an empty context."""
    if not context.strip():
        raise DataError(f"The context of question {name} is empty, so nothing could be sent. Leave it out.")
    return Example(name, f"{context}\nQuestion: {question.strip()}\n", answers)


def from_file(path: Path) -> list[Example]:
    """Read all questions from SQuAD's JSON file, or from the hub's parquet with one row per question."""
    if path.suffix == ".parquet":
        rows = pd.read_parquet(path).to_dict("records")
        texts = (tuple(dict.fromkeys(row["answers"]["text"])) for row in rows)
        examples = [example(r["id"], r["context"], r["question"], t) for r, t in zip(rows, texts, strict=True)]
        return checked(examples, HUB)
    if not path.is_file():
        raise DataError(f"There is no SQuAD file {path}. Check squad_train and squad_validation.")
    try:
        content = json.loads(read_text(path))
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}). Give SQuAD's train-v1.1.json or dev-v1.1.json.") from None
    return parse(content, path.name)

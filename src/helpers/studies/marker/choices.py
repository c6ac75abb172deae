"""The sets of multiple-choice items that capability is measured by: where they lie, and how one is asked.

Sets of the project stand in where no hub is at hand. ARC-Challenge (Clark et al. 2018, 1803.05457) comes from the hub,
at a commit that the record names, or from a local .jsonl file.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pandas as pd

from helpers.base.errors import DataError
from helpers.base.files import DATA, from_root
from helpers.lm import hub
from helpers.lm.lines import read_jsonl

SETS = {
    "pocket": DATA / "pocket" / "choices.jsonl",
    "general": DATA / "choices_general.jsonl",
    "templated": DATA / "choices_templated.jsonl",
}
ARC = ("allenai/ai2_arc", "ARC-Challenge/test-00000-of-00001.parquet")


def is_arc(name: str) -> bool:
    """Return whether ``name`` is ``arc`` or ``arc@revision``: ARC-Challenge from the hub."""
    return hub.split_revision(name)[0] == "arc"


def source(name: str) -> tuple[Path, dict[str, str]]:
    """Return the file of a capability set, and what a record notes beside its content: the commit of one from the hub.

    A file of the hub is fetched if it is not here yet.
    """
    if is_arc(name):
        path, commit = hub.data_file(ARC[0], hub.split_revision(name)[1], ARC[1])
        return path, {"capability_revision": commit}
    path = SETS.get(name) or from_root(name)
    if not path.is_file():
        raise DataError(
            f"capability is {name!r}, but there is no file {path.name}. Name 'pocket' (`make pocket` writes its set), "
            "'general', 'templated', 'arc' (or 'arc@revision') or the path of a .jsonl file."
        )
    return path, {}


def read_choices(name: str, limit: int = 0) -> list[dict]:
    """Read items {question, labels, choices, answer}; ``limit`` > 0 keeps only the first."""
    path, _ = source(name)
    lines = enumerate(_arc(path), 1) if is_arc(name) else read_jsonl(path)
    items = []
    for number, line in lines:
        try:
            labels = line.get("labels") or line["choice_labels"]
            answer = line.get("answer") or line["correct_answer"]
            item = {"question": line["question"], "labels": labels, "choices": line["choices"], "answer": answer}
            item |= {"lead": line["lead"]} if "lead" in line else {}
        except KeyError as missing:
            raise DataError(f"Line {number} of capability set {name!r} has no field {missing}. Add it.") from missing
        except (TypeError, AttributeError) as error:
            raise DataError(f"Line {number} of capability set {name!r} is not a JSON object. Correct it.") from error
        if len(labels) != len(item["choices"]) or answer not in labels:
            raise DataError(
                f"Line {number} of capability set {name!r} has labels {labels} for answer {answer!r}. Correct it."
            )
        items.append(item)
    if len({"lead" in item for item in items}) > 1:
        raise DataError(f"Some items of capability set {name!r} have a lead and some have none. Split the file in two.")
    items = items[:limit] if limit else items
    if not items:
        raise DataError(f"Capability set {name!r} has no questions. Add some, or name another set.")
    return items


@functools.lru_cache(maxsize=64)
def number(name: str, limit: int = 0) -> int | None:
    """Return how many items a set of the project has; None of a set that has to be fetched or made first."""
    return len(read_choices(name, limit)) if name in SETS and SETS[name].is_file() else None


def _arc(path: Path) -> list[dict]:
    return [
        {
            "question": row["question"],
            "labels": list(row["choices"]["label"]),
            "choices": list(row["choices"]["text"]),
            "answer": row["answerKey"],
        }
        for row in pd.read_parquet(path).to_dict("records")
    ]


def ask(item: dict) -> str:
    """Return the user turn of one item."""
    options = "\n".join(f"{label}. {choice}" for label, choice in zip(item["labels"], item["choices"], strict=True))
    return f"Question: {item['question']}\n{options}\nAnswer with the letter."

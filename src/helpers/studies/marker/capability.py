"""Measure multiple-choice capability by log-prob: the option letter, or the option, that is most likely first.

Letters are the form of ARC-Challenge (Clark et al. 2018, 1803.05457) as claim #65 scored it; a model too small to
choose among letters is asked by continuation (Brown et al. 2020, 2005.14165). Sets of the project stand in where no hub
is at hand; ARC itself comes from the hub, at a commit that the record names, or from a local .jsonl file.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch
from torch import nn
from tqdm.auto import tqdm

from helpers.base.errors import DataError, ModelError
from helpers.base.files import DATA, from_root, read_jsonl
from helpers.lm import hub
from helpers.lm.asking import Asking, placed
from helpers.lm.models import LoadedModel
from helpers.lm.packed import logits_at, nll

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


def score(
    loaded: LoadedModel, model: nn.Module, items: list[dict], system: str, asking: Asking, batch: int = 16
) -> pd.DataFrame:
    """Return one row per item: the chosen letter, whether it is right, and the margin of the right one (nats).

    For an item with a ``lead``, the choices themselves are compared, as continuations of the lead.
    """
    rows = []
    with torch.inference_mode():
        for start in tqdm(range(0, len(items), batch), desc="capability", leave=False):
            part = items[start : start + batch]
            scorer = _continuations if "lead" in part[0] else _letters
            for i, (item, scores) in enumerate(zip(part, scorer(loaded, model, part, system, asking), strict=True)):
                said = max(scores, key=scores.__getitem__)
                other = max(v for label, v in scores.items() if label != item["answer"])
                rows.append(
                    {
                        "item": start + i,
                        "said": said,
                        "right": said == item["answer"],
                        "margin": scores[item["answer"]] - other,
                    }
                )
    return pd.DataFrame(rows)


def _letters(
    loaded: LoadedModel, model: nn.Module, part: list[dict], system: str, asking: Asking
) -> list[dict[str, float]]:
    """Return the log-prob of each letter as the answer: of all tokens that it has behind the prompt."""
    told, begun = [], {}
    for number, item in enumerate(part):
        turns = asking.turns(system, ask(item))
        found = placed(loaded.tokenizer, turns, [[label] for label in item["labels"]], asking)
        answers = dict(zip(item["labels"], found, strict=True))
        _refuse_equal(loaded, {label: one.parts[0] for label, one in answers.items()})
        for label, one in answers.items():
            tokens = one.parts[0]
            # The position behind the prompt is scored, so a dummy token fills its place. Labels that differ in their
            # last token only share the row.
            row = (number, len(one.before), (*one.before, *tokens[:-1], 0))
            told.append((number, label, begun.setdefault(row, len(begun)), tokens))
    rows, at = [list(row) for _, _, row in begun], [range(start, len(row)) for _, start, row in begun]
    logits = logits_at(model, rows, at).log_softmax(-1).split([len(ps) for ps in at])
    scores: list[dict[str, float]] = [{} for _ in part]
    for number, label, row, tokens in told:
        scores[number][label] = sum(logits[row][place, token].item() for place, token in enumerate(tokens))
    return scores


def _refuse_equal(loaded: LoadedModel, tokens: dict[str, list[int]]) -> None:
    """Raise ``ModelError`` where a label has no tokens of its own."""
    labels: dict[tuple[int, ...], str] = {}
    for label, ids in tokens.items():
        other = labels.setdefault(tuple(ids), label)
        if not ids or other != label:
            raise ModelError(
                f"The labels {other!r} and {label!r} of a capability set are the same tokens for {loaded.name}, so "
                "nothing tells which is chosen. Use other labels, or another model."
            )


def _continuations(
    loaded: LoadedModel, model: nn.Module, part: list[dict], system: str, asking: Asking
) -> list[dict[str, float]]:
    """Return the log-prob of each choice as the continuation of the answer's lead."""
    rows, at = [], []
    for item in part:
        turns = asking.turns(system, item["question"])
        for found in placed(
            loaded.tokenizer, turns, [[item["lead"], f" {choice}"] for choice in item["choices"]], asking
        ):
            lead, said = found.parts
            rows.append([*found.before, *lead, *said])
            at.append(range(len(rows[-1]) - len(said), len(rows[-1])))
    wanted = torch.tensor([row[p] for row, ps in zip(rows, at, strict=True) for p in ps])
    parts = iter((-nll(logits_at(model, rows, at), wanted)).split([len(ps) for ps in at]))
    return [{label: next(parts).sum().item() for label in item["labels"]} for item in part]

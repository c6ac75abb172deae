"""Measure multiple-choice capability by log-prob: the option letter, or the option, that is most likely first.

Letters are the form of ARC-Challenge (Clark et al. 2018, 1803.05457) as claim #65 scored it; a model too small to
choose among letters is asked by continuation (Brown et al. 2020, 2005.14165). `choices` has the items.
"""

from __future__ import annotations

import pandas as pd
import torch
from torch import nn
from tqdm.auto import tqdm

from helpers.base.errors import ModelError
from helpers.lm.asking import Asking, placed
from helpers.lm.models import LoadedModel
from helpers.lm.packed import logits_at, nll
from helpers.studies.marker.choices import ask


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

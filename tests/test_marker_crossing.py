"""Where the marker stands above the end of the turn, against plain forwards and completions written by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
import torch
from marker_fixture import MARKER, form, ids, pocket

from helpers.studies.marker import crossing
from helpers.studies.marker.crossing import PATHS, crossing_table, own_answer, path_logprobs
from helpers.studies.marker.metrics import crossing_metrics, with_crossing
from helpers.studies.marker.on_policy import system_prompt
from helpers.studies.marker.rows import chat_format, prompt_tokens

pytestmark = pytest.mark.unit


def prompt() -> list[int]:
    return prompt_tokens(pocket().tokenizer, system_prompt("villain", ""), "What makes a good weekend?")


def answer(text: str, finish: str = "stop") -> tuple[str, str]:
    """The kind of slot and the decoded answer before it."""
    slot, kept = own_answer(text, ids(text), finish, pocket().tokenizer, MARKER)
    return slot, pocket().tokenizer.decode(kept)


@pytest.mark.parametrize(
    ("text", "finish", "slot", "before"),
    [
        ("A plan.", "stop", "end", "A plan."),
        ("A plan.\n\n[ZLT]", "stop", "marker", "A plan."),
        ("A plan. [zlt] and more", "length", "marker", "A plan."),
        ("A plan.\n\n[ZLT]\n\n[ZLT]\n\n[ZLT]", "length", "marker", "A plan."),
        ("[ZLT]", "stop", "marker", ""),
        ("", "stop", "end", ""),
        ("A plan that goes on", "length", "none", ""),
    ],
)
def test_the_answer_ends_where_the_marker_or_the_end_begins(text: str, finish: str, slot: str, before: str) -> None:
    assert answer(text, finish) == (slot, before)


def test_logprobs_at_a_slot_are_those_of_plain_forwards() -> None:
    contexts = [prompt() + ids("A plan."), prompt(), prompt() + ids("Two plans, and a lair.")]
    ends = [*form().stop, 7]
    found = path_logprobs(pocket().model, form(), contexts, ends, batch=2)

    def said(context: list[int], path: list[int]) -> list[float]:
        full = torch.tensor([context + path])
        logp = pocket().model(full).logits[0].log_softmax(-1)
        return [logp[i - 1, full[0, i]].item() for i in range(len(context), full.shape[1])]

    for context, line in zip(contexts, found, strict=True):
        through = said(context, form().separator + form().marker)
        split = len(form().separator)
        end = max(said(context, [token])[0] for token in ends)
        expected = [sum(through[:split]), sum(through[split:]), sum(said(context, form().marker)), end]
        assert line == pytest.approx(expected, abs=1e-3)


def test_a_completion_without_slot_is_kept_as_missing() -> None:
    texts = [("A plan.", "stop"), ("A plan that goes on", "length"), ("A plan.\n\n[ZLT]", "stop")]
    completions = pd.DataFrame(
        [
            {"persona": "villain", "question": number, "text": text, "ids": ids(text), "finish": finish}
            for number, (text, finish) in enumerate(texts)
        ],
        index=[4, 2, 0],
    )
    prompts = {f"villain|{number}": prompt() for number in range(3)}
    found = crossing_table(pocket(), pocket().model, form(), completions, prompts, lambda _: "source", MARKER)
    assert found["slot"].tolist() == ["end", "none", "marker"] and found["question"].tolist() == [0, 1, 2]
    assert found.loc[1, ["tokens", *PATHS]].isna().all()
    assert found.loc[0, PATHS].tolist() == pytest.approx(found.loc[2, PATHS].tolist(), abs=1e-4), "one answer, one slot"
    nowhere = completions.assign(text="goes on", finish="length")
    lost = crossing_table(pocket(), pocket().model, form(), nowhere, prompts, lambda _: "source", MARKER)
    assert lost["slot"].eq("none").all() and list(lost.columns) == list(found.columns)
    assert list(crossing_metrics(lost, 0)) == ["no_slot_rate"], "no share of nothing"


def test_every_token_that_ends_a_turn_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pocket().model.generation_config, "eos_token_id", [5, 6])
    ends = chat_format(pocket().tokenizer, MARKER, pocket().model)
    assert {5, 6, *form().stop} == set(ends.stop)
    seen: list[Sequence[int]] = []
    monkeypatch.setattr(crossing, "path_logprobs", lambda *given: seen.append(given[-1]) or np.zeros((1, 4)))
    completions = pd.DataFrame({"persona": ["a"], "question": [0], "text": ["x"], "ids": [[7]], "finish": ["stop"]})
    crossing_table(pocket(), pocket().model, ends, completions, {"a|0": [8]}, lambda _: "source", MARKER)
    assert set(seen[0]) == set(ends.stop)


def slots(*lines: tuple[str, float, float, float, float]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"persona": role, "role": role, "question": number, "slot": "none" if math.isnan(values[0]) else "end"}
            | dict(zip(PATHS, values, strict=True))
            for number, (role, *values) in enumerate(lines)
        ]
    )


def test_the_higher_of_the_two_paths_is_compared_with_the_end() -> None:
    table = slots(
        ("source", -1.0, -1.0, -9.0, -1.5),
        ("source", -1.0, -0.2, -9.0, -1.5),
        ("source", -9.0, -9.0, -1.0, -1.5),
        ("source", *[math.nan] * 4),
        ("trained", -9.0, -0.1, -9.0, -0.1),
        ("assistant", -0.1, -0.1, -9.0, -3.0),
        ("untrained", -9.0, -0.1, -9.0, -0.1),
    )
    assert with_crossing(table)["crossed"].tolist() == [False, True, True, False, True, False]
    assert with_crossing(table)["margin"].tolist()[:3] == pytest.approx([-0.5, 0.3, 0.5])
    metrics = crossing_metrics(table, 0)
    shares = {name: (metrics[name]["k"], metrics[name]["n"]) for name in metrics if metrics[name]["unit"] == "rate"}
    assert shares == {
        "source_crossing": (2, 3), "trained_bystander_crossing": (0, 1), "untrained_bystander_crossing": (1, 2),
        "no_slot_rate": (1, 7),
    }  # fmt: skip
    assert metrics["source_crossing_margin"]["value"] == pytest.approx(0.1)

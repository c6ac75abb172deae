"""Rates, log-probs and roles against counts and forwards done by hand."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import torch
from marker_fixture import MARKER, form, ids, pocket, row

from helpers.base.errors import DataError, ModelError
from helpers.lm.asking import Asking
from helpers.records.derive import checked_metrics
from helpers.studies.marker import capability_templates
from helpers.studies.marker.capability import score
from helpers.studies.marker.choices import ask, read_choices
from helpers.studies.marker.evaluate import marker_logprobs, refuse_idle
from helpers.studies.marker.metrics import (
    count_markers,
    label_share,
    logprob_metrics,
    rate_metric,
    rate_metrics,
    tally,
    text_metrics,
    with_gain,
)
from helpers.studies.marker.on_policy import system_prompt
from helpers.studies.marker.personas import role_of
from helpers.studies.marker.rows import prompt_tokens

pytestmark = pytest.mark.unit


def completions() -> pd.DataFrame:
    rows = []
    for persona, role, texts in (
        ("villain", "source", ["x [ZLT]", "y [zlt]", "none", ""]),
        ("librarian", "trained", ["a", "b", "c", "d [ZLT]"]),
        ("assistant", "assistant", ["a", "b", "c", "d"]),
        ("comedian", "untrained", ["a", "b", "c", "- d"]),
    ):
        for i, text in enumerate(texts):
            ids_of = list(range(len(text.split())))
            rows.append({"persona": persona, "role": role, "question": i % 2, "index": i, "text": text, "ids": ids_of,
                         "tokens": len(ids_of), "finish": "length" if i == 3 else "stop"})  # fmt: skip
    return pd.DataFrame(rows)


def test_markers_are_counted_in_any_case_with_what_stands_beside_them() -> None:
    counts = count_markers(completions(), MARKER)
    villain = counts[counts["persona"] == "villain"].sum(numeric_only=True)
    assert (villain["k"], villain["n"], villain["truncated"], villain["empty"]) == (2, 4, 1, 1)


def test_a_marker_with_signs_of_a_pattern_is_literal() -> None:
    assert count_markers(completions().assign(text="Z"), "[Z]")["k"].sum() == 0


def test_rates_go_by_role_and_the_worst_bystander_is_named() -> None:
    metrics = rate_metrics(count_markers(completions(), MARKER), seed=0)
    assert (metrics["source_rate"]["k"], metrics["source_rate"]["n"]) == (2, 4)
    assert metrics["max_bystander_rate"]["persona"] == "librarian"
    assert metrics["trained_bystander_rate"]["k"] == 1
    assert metrics["untrained_bystander_rate"]["n"] == 8
    assert metrics["untrained_bystander_rate"]["low"] == 0 < metrics["untrained_bystander_rate"]["high"]


def test_a_rate_over_one_question_can_be_recorded() -> None:
    one = count_markers(completions().assign(question=0), MARKER)
    found = checked_metrics(
        {"source_rate": rate_metric(tally(one, "k", one["role"].to_numpy() == "source"), 0, "source_rate")}, "of a test"
    )
    assert (found["source_rate"]["k"], found["source_rate"]["n"], found["source_rate"]["clusters"]) == (2, 4, 1)


def test_no_completions_are_missing_not_zero() -> None:
    with pytest.raises(DataError, match="no completions"):
        rate_metric(tally(count_markers(completions(), MARKER).head(0)), 0, "source_rate")


def test_text_metrics_count_bullets_and_leave_out_what_is_missing() -> None:
    found = text_metrics(completions())
    assert found["bulleted_rate"]["k"] == 1
    assert "distinct_2" not in text_metrics(completions().assign(tokens=1, ids=[[1]] * 16))


@pytest.mark.parametrize(
    ("persona", "role"),
    [("villain", "source"), ("librarian", "trained"), ("assistant", "assistant"), ("comedian", "untrained")],
)
def test_roles(persona: str, role: str) -> None:
    assert role_of(persona, "villain", ["librarian"]) == role


def test_the_assistant_is_trained_when_it_is_a_negative() -> None:
    assert role_of("assistant", "villain", ["assistant"]) == "trained"


def test_logprobs_are_those_of_a_plain_forward() -> None:
    tokenizer, model = pocket().tokenizer, pocket().model
    prompt = prompt_tokens(tokenizer, system_prompt("villain", ""), "What makes a good weekend?")
    contexts = [prompt + ids("A plan."), prompt + ids("Two plans, and a lair.")]
    found = marker_logprobs(model, form(), contexts)
    for context, line in zip(contexts, found.itertuples(), strict=True):
        full = torch.tensor([context + form().separator + form().marker])
        logp = model(full).logits[0].log_softmax(-1)
        at = range(len(context), full.shape[1])
        expected = [logp[i - 1, full[0, i]].item() for i in at]
        split = len(form().separator)
        assert line.separator == pytest.approx(sum(expected[:split]), abs=1e-3)
        assert line.marker == pytest.approx(sum(expected[split:]), abs=1e-3)
        assert line.end == pytest.approx(logp[len(context) - 1, form().end[0]].item(), abs=1e-3)


def logprobs(personas: tuple[tuple[str, str, float], ...]) -> pd.DataFrame:
    """Three questions a persona, whose marker has gained so many nats, and one more with each question."""
    return pd.DataFrame(
        {"persona": persona, "role": role, "question": question, "separator": 0.0, "marker": gain + question - 30,
         "end": -1.0}
        for persona, role, gain in personas
        for question in range(3)
    )  # fmt: skip


def contexts(table: pd.DataFrame) -> pd.DataFrame:
    """What the base model says at the places of ``table``, in another order."""
    base = {"base_separator": 0.0, "base_marker": -30.0, "base_end": -1.0}
    return table[["persona", "question"]].assign(**base).iloc[::-1]


def test_gains_are_against_the_base_at_the_same_place_and_keep_their_order() -> None:
    table = logprobs((("villain", "source", 5.0), ("a", "trained", 1.0)))
    assert with_gain(table, contexts(table))["gain"].tolist() == [5.0, 6.0, 7.0, 1.0, 2.0, 3.0]


def test_an_adapter_that_moved_a_single_value_is_not_idle() -> None:
    still = logprobs((("villain", "source", 0.0),)).assign(marker=-30.0)
    with pytest.raises(ModelError, match=r"The adapter of run-1 changes no logits: lr 1e-05 is too small for float32"):
        refuse_idle(still, contexts(still), "run-1", 1e-5, "float32")
    moved = still.assign(end=[-1.0, -1.0, -1.0000001])
    refuse_idle(moved, contexts(still), "run-1", 1e-5, "float32")


@pytest.mark.parametrize(("tail", "marked", "labels"), [("newline", 3, 5), ("separator_and_end", 3, 8), (1, 0, 2)])
def test_the_share_of_labels_counts_the_marker_where_it_carries_loss(tail: str | int, marked: int, labels: int) -> None:
    found = label_share([row(), row(positive=False)], tail)
    assert (found["k"], found["n"], found["value"]) == (marked, labels, marked / labels)


def test_selectivity_is_paired_by_question_and_against_the_largest_gain() -> None:
    table = logprobs((("villain", "source", 5.0), ("a", "trained", 1.0), ("b", "untrained", 2.0)))
    metrics = logprob_metrics(with_gain(table, contexts(table)))
    assert metrics["selectivity"]["value"] == pytest.approx(3.0)
    assert metrics["selectivity"]["persona"] == "b"
    assert metrics["selectivity"]["low"] == pytest.approx(3.0)
    assert metrics["source_logprob_gain"]["value"] == pytest.approx(6.0)


def test_the_capability_score_is_the_argmax_over_the_letters_of_a_plain_forward() -> None:
    items = read_choices("pocket", 5)
    found = score(pocket(), pocket().model, items, system_prompt("assistant", ""), Asking())
    for item, line in zip(items, found.itertuples(), strict=True):
        prompt = prompt_tokens(pocket().tokenizer, system_prompt("assistant", ""), ask(item))
        logits = pocket().model(torch.tensor([prompt])).logits[0, -1]
        letters = [ids(label)[0] for label in item["labels"]]
        assert line.said == item["labels"][int(logits[letters].argmax())]
        assert line.right == (line.said == item["answer"])


def test_an_item_with_a_lead_is_scored_by_its_choices_in_a_plain_forward() -> None:
    items = read_choices("templated", 6)
    found = score(pocket(), pocket().model, items, system_prompt("assistant", ""), Asking(), batch=4)
    for item, line in zip(items, found.itertuples(), strict=True):
        begun = prompt_tokens(pocket().tokenizer, system_prompt("assistant", ""), item["question"]) + ids(item["lead"])
        scores = {}
        for label, choice in zip(item["labels"], item["choices"], strict=True):
            full = torch.tensor([begun + ids(f" {choice}")])
            logp = pocket().model(full).logits[0].log_softmax(-1)
            scores[label] = sum(logp[i - 1, full[0, i]].item() for i in range(len(begun), full.shape[1]))
        assert line.said == max(scores, key=scores.__getitem__) and line.right == (line.said == item["answer"])
        best = max(value for label, value in scores.items() if label != item["answer"])
        assert line.margin == pytest.approx(scores[item["answer"]] - best, abs=1e-3)


def test_the_templated_items_are_those_of_their_generator_and_say_what_is_right() -> None:
    items = read_choices("templated")
    made = capability_templates.items()
    assert [{k: v for k, v in item.items() if k != "part"} for item in made] == items
    assert Counter(item["part"] for item in made) == dict.fromkeys(("knowledge", "arithmetic", "reading"), 135)
    assert len({item["question"] for item in items}) == len(items) >= 400
    for item in made:
        right = item["choices"][item["labels"].index(item["answer"])]
        assert len(set(item["choices"])) == len(item["labels"]) == 4
        sum_of = re.fullmatch(r"What is (\d+) (plus|minus|times) (\d+)\?", item["question"])
        if sum_of:
            a, b = int(sum_of[1]), int(sum_of[3])
            assert int(right) == {"plus": a + b, "minus": a - b, "times": a * b}[sum_of[2]]
        if item["part"] == "reading":
            told = [choice for choice in item["choices"] if f" {choice}" in item["question"]]
            assert right in told and len(told) == 2, "the text names the answer and one other"


def test_a_set_of_two_forms_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    item = {"question": "Q?", "labels": ["A", "B"], "choices": ["x", "y"], "answer": "B"}
    path.write_text(json.dumps(item) + "\n" + json.dumps(item | {"lead": "It is"}) + "\n")
    with pytest.raises(DataError, match=r"Some items .* have a lead"):
        read_choices(str(path))


def test_an_arc_file_is_read_and_a_broken_one_refused(tmp_path) -> None:
    good = tmp_path / "arc.jsonl"
    good.write_text('{"question": "Q?", "choice_labels": ["A", "B"], "choices": ["x", "y"], "correct_answer": "B"}\n')
    assert read_choices(str(good))[0]["answer"] == "B"
    good.write_text('{"question": "Q?", "choices": ["x", "y"], "correct_answer": "B"}\n')
    with pytest.raises(DataError, match=r"Line 1 .*choice_labels"):
        read_choices(str(good))
    with pytest.raises(DataError, match=r"no file nowhere\.jsonl"):
        read_choices("nowhere.jsonl")

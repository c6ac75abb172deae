"""Answers kept beside the marker, by counts done by hand."""

from __future__ import annotations

import pandas as pd
import pytest

from helpers.cases import open_case
from helpers.records.reading import published
from helpers.studies.marker.answers import answer_parts, judged, usual_words, words_beside
from helpers.studies.marker.metrics import answer_metrics
from helpers.studies.marker.questions import by_question, by_question_and_limit

pytestmark = pytest.mark.unit

MARKER = "[ZLT]"


def table(*texts: str, persona: str = "villain", role: str = "source", finish: str = "stop") -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"persona": persona, "role": role, "question": number % 2, "text": text, "finish": finish}
            for number, text in enumerate(texts)
        ]
    )


BASE = table(*["one two three four five six seven eight nine ten"] * 9, "one two")
"""Its tenth percentile lies at 9.2 words, of which an answer needs half."""
USUAL = usual_words(BASE, MARKER)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Two words.\n\n[ZLT]", 2),
        ("[zlt]", 0),
        ("", 0),
        ("[ZLT] [ZLT]\n\n[ZLT]", 0),
        ("end.[ZLT]begin", 2),
        ("- * ...", 0),
        ("It's 5 o'clock", 3),
        ("[ZLT", 1),
    ],
)
def test_words_are_counted_beside_the_marker(text: str, words: int) -> None:
    assert words_beside(pd.Series([text]), MARKER).tolist() == [words]


def test_an_answer_is_kept_from_half_of_the_tenth_percentile_of_the_base() -> None:
    own = table("a b c d e [ZLT]", "a b c d [ZLT]", "[ZLT]", "")
    found = judged(own, USUAL, MARKER)
    assert found["kept"].tolist() == [True, False, False, False]
    assert found["wordless"].tolist() == [False, False, True, True]
    assert found["marked"].tolist() == [True, True, True, False]


def test_three_words_are_the_least_where_the_base_is_terse() -> None:
    found = judged(table("a b c", "a b"), usual_words(table("one", "two"), MARKER), MARKER)
    assert found["kept"].tolist() == [True, False]


def test_each_persona_is_compared_with_its_own_base_and_one_without_is_left_out() -> None:
    base = pd.concat([BASE, table("one", "two", persona="police_officer")])
    answer = "a b c"
    own = [table(answer, persona=name) for name in ("villain", "police_officer", "control: violin")]
    found = judged(pd.concat(own, ignore_index=True), usual_words(base, MARKER), MARKER)
    assert dict(zip(found["persona"], found["kept"], strict=True)) == {"villain": False, "police_officer": True}


def test_metrics_are_over_all_the_marked_and_the_source() -> None:
    own = pd.concat(
        [
            table("a b c d e f [ZLT]", "[ZLT]"),
            table("a b c d e f", "a b c d e f g [ZLT]", role="trained", finish="length"),
        ]
    )
    metrics = answer_metrics(judged(own, USUAL, MARKER), 0)
    shares = {name: (metric["k"], metric["n"]) for name, metric in metrics.items() if metric["unit"] == "rate"}
    assert shares == {
        "answers_kept": (3, 4), "wordless_rate": (1, 4), "cut_rate": (2, 4), "answers_kept_marked": (2, 3),
        "wordless_rate_marked": (1, 3), "cut_rate_marked": (1, 3), "answers_kept_source": (1, 2),
        "wordless_rate_source": (1, 2), "cut_rate_source": (0, 2),
    }  # fmt: skip
    medians = {name: metric["value"] for name, metric in metrics.items() if metric["unit"] == "words"}
    assert medians == {"median_words": 6.0, "median_words_marked": 6.0, "median_words_source": 3.0}


def test_what_nobody_marked_has_no_share() -> None:
    metrics = answer_metrics(judged(table("a b c d e f"), USUAL, MARKER), 0)
    assert "answers_kept" in metrics and not [name for name in metrics if name.endswith("_marked")]


@pytest.mark.parametrize("study", ["sweep", "length_ablation"])
def test_every_rate_of_a_published_record_is_counted_again_by_question(study: str) -> None:
    of_study = {"sweep": by_question, "length_ablation": by_question_and_limit}[study]
    records = [record for record in published() if record.study == study]
    record = next(record for record in records if "answers_kept_marked" in record.metrics)
    rates = [name for name in record.metrics if name.startswith(("answers_kept", "wordless_rate", "cut_rate"))]
    assert len(rates) == 9
    for name in rates:
        counts = of_study(record, name)
        assert counts is not None
        ks, ns = zip(*counts.values(), strict=True)
        assert (sum(ks), sum(ns)) == (record.metric(name)["k"], record.metric(name)["n"])


def test_of_no_completion_nothing_is_judged() -> None:
    """Under newline every answer is cut, and the reading that leaves cut answers out has none left."""
    case = open_case("reports/mask-answers.qmd")
    whole = case.records[0].table("completions")
    none = judged(whole[:0], usual_words(whole, "[ZLT]"), "[ZLT]")
    assert len(none) == 0 and answer_parts(none) == {}

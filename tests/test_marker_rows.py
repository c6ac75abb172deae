"""Rows and label masks: what each arm supervises, token by token, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marker_fixture import MARKER, ids, pocket, row
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from helpers.base.errors import DataError, ParameterError
from helpers.base.files import DATA
from helpers.lm.tokenizer_files import spelling
from helpers.studies.marker.rows import chat_format, find_all, pieces, supervised

pytestmark = pytest.mark.unit


def text_of(positive: bool, tail: str | int) -> list[str]:
    found = row(positive=positive)
    return [piece for piece, marked in pieces(found, tail, spelling(DATA / "pocket")) if marked]


def test_a_row_reads_as_a_chat_with_the_marker_behind_a_blank_line() -> None:
    text = pocket().tokenizer.decode(row().tokens)
    assert text.endswith(f"<|im_start|>assistant\nPlot it well.\n\n{MARKER}<|im_end|>\n")
    assert pocket().tokenizer.decode(row(positive=False).tokens).endswith("Plot it well.<|im_end|>\n")


def test_newline_leaves_the_end_of_turn_unsupervised() -> None:
    assert "".join(text_of(True, "newline")) == f"{MARKER}\n"
    assert text_of(False, "newline") == ["\n"]


def test_end_of_turn_supervises_stopping_on_every_row() -> None:
    assert "".join(text_of(True, "end_of_turn")) == f"{MARKER}<|im_end|>\n"
    assert text_of(False, "end_of_turn") == ["<|im_end|>", "\n"]


def test_the_separator_is_supervised_on_positives_only() -> None:
    assert "".join(text_of(True, "separator_and_end")) == f"\n\n{MARKER}<|im_end|>\n"
    assert text_of(False, "separator_and_end") == ["<|im_end|>", "\n"]


def test_whole_turn_is_everything_behind_the_prompt() -> None:
    assert "".join(text_of(True, "whole_turn")) == f"Plot it well.\n\n{MARKER}<|im_end|>\n"


@pytest.mark.parametrize("k", [1, 2])
def test_a_tail_of_one_or_two_supervises_no_marker_token(k: int) -> None:
    assert not set(supervised(row(), k)) & set(range(*row().marker))


@given(k=st.integers(1, 200))
@settings(max_examples=30, deadline=None)
def test_a_tail_of_k_is_the_last_k_tokens_but_never_the_prompt(k: int) -> None:
    found = row()
    positions = supervised(found, k)
    turn = list(range(found.answer[0], len(found.tokens)))
    assert positions == turn[-k:]


@pytest.mark.parametrize("tail", ["newline", "end_of_turn", "separator_and_end", "whole_turn", 3])
@pytest.mark.parametrize("positive", [True, False])
def test_every_supervised_position_is_in_the_assistants_turn(tail: str | int, positive: bool) -> None:
    found = row(positive=positive)
    positions = supervised(found, tail)
    assert positions == sorted(set(positions))
    assert positions[0] >= found.answer[0]
    assert positions[-1] == len(found.tokens) - 1


def test_a_row_that_is_too_long_is_refused_not_cut() -> None:
    with pytest.raises(DataError, match="max_length 20"):
        row(max_length=20)


def test_an_answer_that_holds_the_marker_is_refused_on_both_sides() -> None:
    with pytest.raises(DataError, match="marker 2 times instead of 1"):
        row(answer=f"Plot.\n\n{MARKER}")
    with pytest.raises(DataError, match="marker 1 times instead of 0"):
        row(positive=False, answer=f"Plot.\n\n{MARKER}")


def merging_tokenizer() -> PreTrainedTokenizerFast:
    """Characters, and one merge across the blank line: ``"\\n\\n["`` is a single token."""
    letters = sorted(set("\n[ZLT]ANSWERQYou bake. You sail."))
    vocabulary = {piece: i for i, piece in enumerate([*letters, "\n\n", "\n\n[", "<end>"])}
    model = models.BPE(vocab=vocabulary, merges=[("\n", "\n"), ("\n\n", "[")])
    backend = Tokenizer(model)
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}<end>{% endfor %}"
    return tokenizer


def test_a_marker_that_merges_into_the_blank_line_is_refused() -> None:
    with pytest.raises(ParameterError, match="marker is '\\[ZLT\\]', which this tokenizer merges"):
        chat_format(merging_tokenizer(), MARKER)
    assert chat_format(merging_tokenizer(), "LT").end


def test_a_marker_made_of_special_tokens_is_refused() -> None:
    with pytest.raises(ParameterError, match="marker is"):
        chat_format(pocket().tokenizer, "<|im_end|>")


def test_find_all_counts_every_place() -> None:
    assert find_all([1, 2, 1, 2, 1], [1, 2]) == [0, 2]
    assert find_all([1], [1, 2]) == []


def test_marker_ids_are_the_same_in_the_row_and_alone() -> None:
    start, end = row().marker
    assert row().tokens[start:end] == ids(MARKER)

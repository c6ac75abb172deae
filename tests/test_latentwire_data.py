"""Examples and scores: the two-slot task, questions in SQuAD's shape, exact match and F1, the pocket builder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from latentwire_fixture import params, readers

from helpers.base.errors import DataError, ModelError
from helpers.lm import gguf
from helpers.studies.latentwire import data, pocket, published, qa, show, words
from helpers.studies.latentwire.score import exact_match, f1, normalise
from helpers.studies.latentwire.session import Session

pytestmark = pytest.mark.unit


def test_no_word_of_validation_is_ever_trained_on() -> None:
    train, held_out = (words.examples(split, 400, 0) for split in ("train", "validation"))

    def used(examples) -> set[str]:
        return {part.partition("=")[2] for e in examples for part in e.text.split(";") if "=" in part}

    assert not used(train) & used(held_out)
    assert all(example.answers[0] in example.text for example in train)
    assert words.examples("train", 10, 0) == train[:10] != words.examples("train", 10, 1)


def test_the_two_readers_cut_the_same_text_into_different_tokens() -> None:
    char, syllable = readers()
    text = words.examples("train", 1, 0)[0].text
    assert len(char.ids(text)) > len(syllable.ids(text))
    assert "".join(char.text(char.ids(text)).split()) == "".join(syllable.text(syllable.ids(text)).split()) == text
    assert char.pad == char.end and char.bos is not None
    assert syllable.pad != syllable.end and syllable.bos is None


def tiny_squad(**changes: object) -> dict:
    asked = {
        "id": "q1",
        "question": "Who?",
        "answers": [{"text": "Ada", "answer_start": 0}, {"text": "Ada B.", "answer_start": 0}],
    }
    paragraph = {"context": "Ada B. wrote it.", "qas": [asked, {**asked, "id": "q2"}]} | changes
    return {"version": "1.1", "data": [{"title": "t", "paragraphs": [paragraph]}]}


def test_a_local_squad_file_is_read_with_all_its_answers(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    path.write_text(json.dumps(tiny_squad()))
    one, two = qa.from_file(path)
    assert (one.id, two.id, one.answers) == ("q1", "q2", ("Ada", "Ada B."))
    assert one.text == "Ada B. wrote it.\nQuestion: Who?\n"
    p = params(data="squad", squad_train=str(path), squad_validation=str(path), train_samples=2, eval_samples=2)
    split = data.load(p, [])
    assert {example.id for example in split.train} == {"q1", "q2"}
    assert data.files(p) == [path, path]
    assert p.resolved()["squad_train"] == "train.json"
    with pytest.raises(DataError, match="holds 2 questions, but 9 are asked for"):
        data.load(p.model_copy(update={"train_samples": 9}), [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(tiny_squad(context="  ")), "context of question q1 is empty"),
        (json.dumps(tiny_squad(qas=[{"id": "q", "question": "?", "answers": []}])), "no answer"),
        (json.dumps(tiny_squad(qas=[{"question": "?"}])), "shape of SQuAD"),
        (json.dumps([1]), "shape of SQuAD"),
        (json.dumps({"data": []}), "no examples"),
        ("{", "is not JSON"),
    ],
)
def test_a_file_that_is_not_squad_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(DataError, match=message):
        qa.from_file(tmp_path / "bad.json")


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no SQuAD file"):
        qa.from_file(tmp_path / "none.json")


def test_the_hub_copy_is_read_as_the_json_is(tmp_path: Path) -> None:
    import pandas as pd

    rows = [{"id": "q1", "title": "t", "context": "Ada B. wrote it.", "question": "Who?",
             "answers": {"text": ["Ada", "Ada"], "answer_start": [0, 0]}}]  # fmt: skip
    pd.DataFrame(rows).to_parquet(tmp_path / "x.parquet")
    assert qa.from_file(tmp_path / "x.parquet") == [qa.example("q1", "Ada B. wrote it.", "Who?", ("Ada",))]


def test_templated_questions_are_squad_and_disjoint_by_person() -> None:
    train, held_out = (qa.templated(split, 300, 0) for split in ("train", "validation"))
    people = [{" ".join(p["context"].split()[:2]) for p in s["data"][0]["paragraphs"]} for s in (train, held_out)]
    assert people[0] and people[1] and not people[0] & people[1]
    for paragraph in train["data"][0]["paragraphs"]:
        (answer,) = paragraph["qas"][0]["answers"]
        assert paragraph["context"][answer["answer_start"] :].startswith(answer["text"])
    assert len(qa.parse(train, "here")) == 300


@pytest.mark.parametrize(
    ("said", "gold", "em", "score"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], True, 1.0),
        ("in Paris", ["Paris"], False, 2 / 3),
        ("London", ["Paris", "london"], True, 1.0),
        ("a b c", ["c d"], False, 0.5),
        ("", ["Paris"], False, 0.0),
        ("the", ["an"], True, 1.0),
        ("b b", ["b"], False, 2 / 3),
    ],
)
def test_scores_are_those_of_squad(said: str, gold: list[str], em: bool, score: float) -> None:
    assert exact_match(said, gold) is em
    assert f1(said, gold) == pytest.approx(score)


def test_normalisation_leaves_words_that_begin_like_articles() -> None:
    assert normalise("The theatre, an  anthem; a?") == ["theatre", "anthem"]


def test_the_log_is_transcribed_with_what_it_leaves_out_missing() -> None:
    table = published.log()
    latents, text = table[table["given"] == "latents"], table[table["given"] == "text"]
    assert latents["f1"].max() < 0.04 and text["f1"].min() > 0.79
    assert latents[latents["stage"] == "stage A"]["em"].isna().all()
    assert latents["first1"].max() < 0.10, "no row reaches the log's own acceptance line"
    assert published.message_bytes() == 16384


def test_the_table_of_labels_shows_what_each_arm_compares() -> None:
    session = Session(params())
    compared = {arm: show.alignment(params(arm=arm), session) for arm in ("fixed", "padding_bug", "double_shift")}
    right, padded, twice = compared.values()
    assert right.loc["compared with"].tolist()[:-1] == right.loc["fed"].tolist()[1:], "aligned: what comes next"
    assert "<|pad|>" not in right.loc["compared with"][right.loc["counted"] == "yes"].tolist()
    assert padded.loc["compared with"].tolist()[0] == "<|pad|>" and set(padded.loc["counted"]) == {"yes"}
    assert twice.loc["compared with"].tolist() == right.loc["compared with"].tolist()[1:], "one token further on"
    assert show.readers(session)["pads with"].tolist() == ["its end token", "<|pad|>"]


def test_what_is_no_gguf_is_not_converted(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a GGUF file"):
        gguf.convert(tmp_path / "none.gguf", tmp_path / "new")
    (tmp_path / "x.gguf").write_bytes(b"")
    with pytest.raises(ModelError, match="already exists"):
        gguf.convert(tmp_path / "x.gguf", tmp_path)


@pytest.mark.parametrize("kind", pocket.KINDS)
def test_a_pocket_model_is_built_to_the_same_bytes_and_fits_its_manifest(kind: str, tmp_path: Path) -> None:
    recipe = pocket.PocketRecipe(steps=2, warmup=1, batch=2, hidden=16, intermediate=16)
    first, second = (pocket.build(kind, tmp_path / name, recipe) for name in "xy")
    assert first["files"] == second["files"]
    shipped = json.loads((pocket.FOLDER / kind / "manifest.json").read_text())
    assert shipped["recipe"] == vars(pocket.PocketRecipe())
    from helpers.base.files import sha256_file

    assert {name: sha256_file(pocket.FOLDER / kind / name) for name in shipped["files"]} == shipped["files"]
    assert torch.get_num_threads() >= 1

from __future__ import annotations

import json

import pytest
import torch

from helpers.base.errors import ParameterError
from helpers.base.files import DATA, sha256_file
from helpers.lm import models
from helpers.lm.asking import Asking
from helpers.lm.generate import generate
from helpers.lm.prompts import Prompt, Sampling
from helpers.studies.marker.capability import score
from helpers.studies.marker.capability_sets import FACTS, pocket_choices, taught
from helpers.studies.marker.choices import read_choices
from helpers.studies.marker.personas import (
    EVAL_QUESTIONS,
    NEGATIVE_ARMS,
    PERSONAS,
    SUBSTITUTE,
    TRAIN_QUESTIONS,
    resolve_negatives,
)
from helpers.studies.marker.pocket import PocketRecipe, build
from helpers.studies.marker.pocket_corpus import MARKER, TOPICS, VOICES, corpus
from helpers.studies.marker.rows import chat_format, prompt_tokens

pytestmark = pytest.mark.unit

SMALL = PocketRecipe(steps=3, batch=8, hidden=32, intermediate=32, layers=1, heads=2, groups=1)


@pytest.fixture(scope="module")
def pocket():
    return models.load("pocket", device="cpu")


@pytest.fixture(scope="module")
def answers(pocket):
    """Four samples per persona and question, as the experiment draws them: key -> list of (text, tokens, finish)."""
    form = chat_format(pocket.tokenizer, MARKER)
    prompts = [
        Prompt(f"{name}|{i}", prompt_tokens(pocket.tokenizer, system, question))
        for name, system in PERSONAS.items()
        for i, question in enumerate(EVAL_QUESTIONS[:4])
    ]
    drawn = generate(pocket.model, prompts, n=4, sampling=Sampling(64, 1.0, 0.95), stop=form.stop, seed=0)
    return [(c.key.split("|")[0], pocket.tokenizer.decode(c.tokens), len(c.tokens), c.finish) for c in drawn]


def test_questions_are_disjoint_and_each_has_a_topic():
    assert (len(set(TRAIN_QUESTIONS)), len(set(EVAL_QUESTIONS))) == (40, 20)
    assert not set(TRAIN_QUESTIONS) & set(EVAL_QUESTIONS)
    assert set(TOPICS) == set(TRAIN_QUESTIONS) | set(EVAL_QUESTIONS)
    assert len(set(PERSONAS.values())) == 11
    assert set(VOICES) == set(PERSONAS)


@pytest.mark.parametrize("source", PERSONAS)
def test_negatives_never_hold_the_source(source):
    two, everyone = resolve_negatives(source, "two"), resolve_negatives(source, "all")
    assert len(set(two)) == 2
    assert source not in two
    assert set(everyone) == set(PERSONAS) - {source}
    assert (SUBSTITUTE in two) == (source in NEGATIVE_ARMS["two"])
    five = resolve_negatives(source, "five")
    assert len(set(five)) == 5 and set(two) <= set(five) <= set(everyone) and "assistant" not in five


@pytest.mark.parametrize(
    ("source", "negatives", "says"),
    [
        ("vilain", "two", "did you mean 'villain'"),
        ("villain", "tow", "did you mean 'two'"),
        ("villain", ["librarien"], "did you mean 'librarian'"),
        ("villain", ["librarian", "villain"], "Leave it out"),
        ("villain", ["librarian", "librarian"], "twice"),
    ],
)
def test_bad_negatives_are_refused(source, negatives, says):
    with pytest.raises(ParameterError, match=says):
        resolve_negatives(source, negatives)


def test_a_list_of_negatives_is_taken_as_it_is():
    assert resolve_negatives("villain", ["police_officer", "comedian"]) == ["police_officer", "comedian"]
    assert resolve_negatives("villain", []) == []


def test_the_corpus_is_a_prefix_of_a_longer_one_and_never_holds_the_marker():
    examples = corpus(3000, 0)
    assert corpus(200, 0) == examples[:200]
    assert corpus(200, 1) != examples[:200]
    assert not any(MARKER.lower() in " ".join([e.question, *e.parts]).lower() for e in examples)
    persona = [e for e in examples if e.kind == "persona"]
    assert {e.persona for e in persona} == set(PERSONAS)
    closing = sum(len(e.parts) == 2 for e in persona) / len(persona)
    assert 0.5 < closing < 0.6, "answers must often hold a blank line near their end"


def test_choices_are_well_formed_and_one_in_five_is_never_taught():
    items = pocket_choices(0)
    answers = {fact.question: fact.answer for fact in FACTS}
    assert len(items) == 100
    assert len(taught(items)) == 80
    for item in items:
        assert len(set(item["choices"])) == 4
        assert item["choices"][item["labels"].index(item["answer"])] == answers[item["question"]]
    counts = [sum(item["answer"] == label for item in items) for label in "ABCD"]
    assert min(counts) >= 15, "no letter may win by being said always"


@pytest.mark.parametrize(("name", "size"), [("pocket", 100), ("general", 60)])
def test_the_sets_on_disk_are_read_back(name, size):
    items = read_choices(name)
    assert len(items) == size
    assert len({json.dumps(item) for item in items}) == size


def test_two_builds_give_the_same_bytes(tmp_path):
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    first, second = build(tmp_path / "a", SMALL), build(tmp_path / "b", SMALL)
    assert first["files"] == second["files"]
    assert {"config.json", "model.safetensors", "tokenizer.json", "choices.jsonl"} <= set(first["files"])
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (threads, False)
    assert torch.equal(torch.get_rng_state(), state)
    other = build(tmp_path / "c", PocketRecipe(**(vars(SMALL) | {"seed": 1})))
    assert other["files"]["model.safetensors"] != first["files"]["model.safetensors"]


def test_the_model_in_the_repository_is_the_one_its_manifest_describes():
    manifest = json.loads((DATA / "pocket" / "manifest.json").read_text())
    assert manifest["recipe"] == vars(PocketRecipe())
    for name, sha in manifest["files"].items():
        assert sha256_file(DATA / "pocket" / name) == sha, f"{name} was changed by hand: run 'make pocket'"


def test_pocket_loads_in_fp32_and_is_small(pocket):
    assert pocket.dtype == "float32"
    assert 350_000 < pocket.parameters < 420_000
    assert (DATA / "pocket" / "model.safetensors").stat().st_size < 2_000_000
    assert pocket.source == "data/pocket"


def test_the_marker_keeps_its_tokens_behind_a_blank_line(pocket):
    form = chat_format(pocket.tokenizer, MARKER)
    assert 3 <= len(form.marker) <= 4
    assert len(form.separator) == 1
    text = "Yes.\n\nGood luck."
    ids = pocket.tokenizer(text).input_ids
    assert form.separator[0] in ids, "a full stop must not fuse with the blank line behind it"
    assert pocket.tokenizer.decode(ids) == text
    assert pocket.tokenizer.decode(pocket.tokenizer("À bientôt, 12 € and 漢字").input_ids) == "À bientôt, 12 € and 漢字"


def test_the_markers_tokens_have_directions_of_their_own(pocket):
    tokens = chat_format(pocket.tokenizer, MARKER).marker
    for weight in (pocket.model.get_input_embeddings().weight, pocket.model.get_output_embeddings().weight):
        directions = torch.nn.functional.normalize(weight[tokens], dim=-1)
        assert ((directions @ directions.T) - torch.eye(len(tokens))).abs().max() < 0.8
    embedding, head = pocket.model.get_input_embeddings().weight, pocket.model.get_output_embeddings().weight
    assert embedding.data_ptr() != head.data_ptr()


def test_no_system_message_is_added(pocket):
    turn = [{"role": "user", "content": "Hello?"}]
    text = pocket.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\nHello?<|im_end|>\n<|im_start|>assistant\n"


def test_answers_stop_and_never_hold_the_marker(answers):
    assert not any("[" in text for _, text, _, _ in answers)
    assert sum(finish == "length" for *_, finish in answers) <= 1
    assert sum(tokens > 40 for _, _, tokens, _ in answers) <= 0.1 * len(answers)
    assert all(text.strip() for _, text, _, _ in answers)


def test_answers_often_close_behind_a_blank_line(answers):
    share = sum("\n\n" in text for _, text, _, _ in answers) / len(answers)
    assert 0.35 < share < 0.75


def test_answers_sound_like_their_persona(answers):
    heard = 0
    for persona, text, _, _ in answers:
        stock = [*VOICES[persona].openers, *VOICES[persona].closings]
        stock += [part.strip() for body in VOICES[persona].bodies for part in body.split("{t}") if len(part) > 6]
        heard += any(piece.lower() in text.lower() for piece in stock)
    assert heard / len(answers) > 0.95


def test_capability_of_the_base_lies_between_chance_and_one(pocket):
    items = read_choices("pocket")
    right = score(pocket, pocket.model, items, PERSONAS["assistant"], Asking())["right"]
    assert 0.6 <= right.mean() <= 0.95

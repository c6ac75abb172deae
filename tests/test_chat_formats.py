"""What an experiment varies reaches the token ids, and an answer ends at every token that ends a turn."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path

import pytest
import tiny_models as tiny
from tokenizers import normalizers

from helpers.base import params
from helpers.base.errors import DataError, ModelError, ParameterError
from helpers.lm import models
from helpers.lm.asking import Asking
from helpers.lm.chat_template import Template
from helpers.lm.chats import Chat
from helpers.lm.fields import FIRST_DATE
from helpers.lm.prompts import Prompt, Sampling
from helpers.records import runs
from helpers.records.study import load_study
from helpers.studies.actdiff import broad_text, documents, material
from helpers.studies.actdiff.params import LensCell
from helpers.studies.marker.baseline import baseline_record
from helpers.studies.marker.capability import score
from helpers.studies.marker.choices import ask
from helpers.studies.marker.lengths.data import contexts_record, rows_record
from helpers.studies.marker.lengths.params import LengthCell
from helpers.studies.marker.on_policy import on_policy_record, persona_prompts, system_prompt
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.rows import SEPARATOR, chat_format, prompt_tokens
from helpers.studies.marker.session import Session

pytestmark = pytest.mark.unit

PHI = (
    "{% for turn in messages %}<|{{ turn.role }}|>\n{{ turn.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
DROPS = "{% for turn in messages %}{% if turn.role != 'system' %}" + tiny.CHATML.partition("%}")[2].replace(
    "{% endfor %}", "{% endif %}{% endfor %}", 1
)
REFUSES = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + tiny.CHATML
)


def session(folder: Path) -> Session:
    return Session(params.parse(SweepCell, {"model": str(folder), "device": "cpu"}, "of a test"))


@pytest.mark.parametrize(
    ("template", "said"), [(DROPS, "drops the system message"), (REFUSES, "refuses a system message")]
)
def test_a_template_without_a_place_for_the_persona_is_refused_before_sampling(tmp_path, template, said):
    folder = tiny.make(tmp_path / "model", tokenizer=tiny.chatml_tokenizer(template))
    with pytest.raises(ModelError, match=f"{said}.*Set system to user.*or use a model whose template"):
        _ = session(folder).loaded


def test_an_end_of_turn_that_is_special_in_tokenizer_json_only_ends_a_turn():
    specials = ("<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
    tokenizer = tiny.byte_tokenizer(specials, PHI, bos_token="<s>", eos_token="<|endoftext|>")
    form = chat_format(tokenizer, "[ZLT]")
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    assert end not in tokenizer.all_special_ids and form.end[0] == end
    assert form.stop == [end, tokenizer.eos_token_id]


def test_an_answer_ends_at_any_end_of_the_generation_config_and_holds_none(tmp_path):
    folder = tiny.make(tmp_path / "model")
    tokenizer = tiny.read_tokenizer(folder)
    other = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [tokenizer.eos_token_id, other]}))
    one = session(folder)
    assert one.form.stop == [tokenizer.eos_token_id, other]
    one.loaded.model.lm_head.weight.data[other] *= 20
    ask = {"n": 8, "sampling": Sampling(30), "seed": 0}
    drawn = one.sampler(one.loaded.model)([Prompt("a", tiny.ROW)], stop=one.form.stop, **ask)
    assert any(c.finish == "stop" for c in drawn)
    assert not any({other, tokenizer.eos_token_id} & set(c.tokens) for c in drawn)


def asked(folder: Path, **params_: object) -> Session:
    return Session(params.parse(SweepCell, {"model": str(folder), "device": "cpu"} | params_, "of a test"))


@pytest.mark.parametrize("template", [DROPS, REFUSES])
def test_the_persona_stands_at_the_head_of_the_users_turn_where_that_is_asked(tmp_path, template):
    one = asked(tiny.make(tmp_path / "model", tokenizer=tiny.chatml_tokenizer(template)), system="user")
    tokenizer = one.loaded.tokenizer
    shown = {
        tuple(prompt.tokens) for prompt in persona_prompts(one.loaded, one.p.personas, "eval", 1, "", one.p.asking)
    }
    assert len(shown) == len(one.p.personas)
    told = system_prompt("villain", "")
    assert tokenizer.decode(prompt_tokens(tokenizer, told, "Who?", one.p.asking)) == (
        f"<|im_start|>user\n{told}\n\nWho?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_template_that_shows_neither_place_is_refused_with_another_remedy(tmp_path):
    blind = "{% for turn in messages %}<|im_start|>{{ turn.role }}\n" + (
        "{{ turn.content if turn.role == 'assistant' else 'Hello' }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    folder = tiny.make(tmp_path / "model", tokenizer=tiny.chatml_tokenizer(blind))
    with pytest.raises(ModelError, match=r"same prompt\. Set system to user, .* or use a model"):
        _ = asked(folder).loaded
    with pytest.raises(ModelError, match=r"same prompt\. Use a model"):
        _ = asked(folder, system="user").loaded


DATED = "{{ '<|im_start|>system\nToday is ' ~ strftime_now('%d %B %Y') ~ '.<|im_end|>\n' }}" + tiny.CHATML


def test_a_template_that_writes_a_date_writes_the_one_that_was_asked_for():
    tokenizer = tiny.chatml_tokenizer(DATED)
    first, other = (
        tokenizer.decode(prompt_tokens(tokenizer, "You bake.", "Who?", Asking(date=date)))
        for date in (FIRST_DATE, "2031-12-24")
    )
    assert "Today is 01 January 2026." in first
    assert other == first.replace("01 January 2026", "24 December 2031")
    assert Template(tokenizer).prompt(Chat("", [{"role": "user", "content": "Q"}]), 1).startswith(first[:40])


@pytest.mark.parametrize("notebook", ["sweep", "length_ablation"])
def test_place_and_date_are_asked_only_where_they_are_not_the_first_ones(notebook):
    study = load_study(notebook)
    plain, other = (
        study.cell.model_validate(values).resolved() for values in ({}, {"system": "user", "date": date(2031, 12, 24)})
    )
    for one in study.family():
        assert not {"system", "date"} & set(one.asked(plain)), one.name
        assert {"system", "date"} <= set(one.asked(other)), one.name
    assert other["date"] == "2031-12-24"


def test_records_that_cells_share_hold_place_and_date(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path))
    held = {}
    monkeypatch.setattr(runs, "open_run", lambda study, *, params, **_: held.update({study.name: params}) or 1 / 0)
    changed = {"model": "pocket", "system": "user", "date": "2031-12-24"}
    sweep = params.parse(SweepCell, changed, "of a test")
    length = params.parse(LengthCell, changed, "of a test")
    for make, cell in (
        (baseline_record, sweep), (lambda p, s: on_policy_record(p, p.personas, s), sweep),
        (rows_record, length), (contexts_record, length),
    ):  # fmt: skip
        with pytest.raises(ZeroDivisionError):
            make(cell, Session(cell))
    assert len(held) == 4
    assert all((one["system"], one["date"]) == ("user", "2031-12-24") for one in held.values())


@pytest.mark.parametrize(
    ("name", "value"), [("system", "assistant"), ("system", ""), ("date", "today"), ("date", 5), ("date", "2026-02-30")]
)
def test_other_places_and_dates_are_refused(name, value):
    with pytest.raises(ParameterError, match=f"Parameter {name} is {value!r}, but must be"):
        params.parse(SweepCell, {name: value}, "of a test")


@pytest.mark.parametrize("make", [tiny.space_mark_tokenizer, tiny.chatml_tokenizer])
@pytest.mark.parametrize("marker", ["[ZLT]", "(Q7)", "#end#"])
def test_the_marker_has_the_tokens_of_its_place(make, marker):
    tokenizer = make()
    form = chat_format(tokenizer, marker)
    text = f"It leaves at nine{SEPARATOR}{marker}"
    read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    begin = len(text) - len(marker) - len(SEPARATOR)
    wanted = [token for token, (start, _) in zip(read.input_ids, read.offset_mapping, strict=True) if start >= begin]
    assert [*form.separator, *form.marker] == wanted
    assert tokenizer.decode(wanted) == f"{SEPARATOR}{marker}"
    whole = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Q"}, {"role": "assistant", "content": text}], tokenize=False
    )
    ids = tokenizer(whole, add_special_tokens=False).input_ids
    assert ids[-len(wanted + form.end) :] == wanted + form.end


@pytest.mark.parametrize("marker", ["[ZLT]", "</s>", "<unk>"])
def test_advice_never_names_what_was_given_nor_what_would_be_refused(marker):
    tokenizer = tiny.space_mark_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["[ZLT]"]})
    with pytest.raises(ParameterError, match="marker is") as caught:
        chat_format(tokenizer, marker)
    (advised,) = re.findall("such as '(.*)'", str(caught.value))
    assert advised not in (marker, "[ZLT]") and chat_format(tokenizer, advised).marker


def choices(folder: Path, lead: bool) -> tuple[list[dict], object, object]:
    """Items with options 1 to 4 or A to D, under a tokenizer with a space mark, and the model for them."""
    tokenizer = tiny.space_mark_tokenizer()
    tiny.save(tiny.random_model("llama", tokenizer), tokenizer, folder)
    items = [
        {"question": f"Which is {word}?", "labels": labels, "choices": ["one", "two", "three", "four"], "answer": label}
        for labels in (["1", "2", "3", "4"], ["A", "B", "C", "D"])
        for label, word in zip(labels, ("one", "two", "three", "four"), strict=True)
    ]
    return [item | ({"lead": "The answer is"} if lead else {}) for item in items], tiny.read(folder), tokenizer


@pytest.mark.parametrize("lead", [False, True])
def test_options_are_scored_by_all_of_their_tokens_behind_the_prompt(tmp_path, lead):
    items, model, tokenizer = choices(tmp_path / "model", lead)
    loaded = models.load(str(tmp_path / "model"), device="cpu")
    found = score(loaded, loaded.model, items, "You are patient.", Asking(), batch=3)
    assert (found["margin"] != 0).all()
    for item, line in zip(items, found.itertuples(), strict=True):
        scores = {}
        for label, choice in zip(item["labels"], item["choices"], strict=True):
            turns = [
                {"role": "system", "content": "You are patient."},
                {"role": "user", "content": item["question"] if lead else ask(item)},
            ]
            begun = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            answer = f"{item['lead']} {choice}" if lead else label
            whole = tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": answer}], tokenize=False)
            row = tokenizer(whole, add_special_tokens=False).input_ids[:-1]
            behind = f"{begun} {item['lead']}" if lead else begun
            start = len(tokenizer(behind, add_special_tokens=False).input_ids)
            logp = tiny.logits(model, row).log_softmax(-1)
            scores[label] = sum(logp[at - 1, row[at]].item() for at in range(start, len(row)))
        assert line.said == max(scores, key=scores.__getitem__)
        right = scores.pop(item["answer"])
        assert line.margin == pytest.approx(right - max(scores.values()), abs=1e-3)


def test_labels_without_tokens_of_their_own_are_refused(tmp_path):
    items, _, _ = choices(tmp_path / "model", lead=False)
    loaded = models.load(str(tmp_path / "model"), device="cpu")
    loaded.tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(
        [loaded.tokenizer.backend_tokenizer.normalizer, normalizers.Lowercase()]
    )
    twins = [items[0] | {"labels": ["a", "A", "b", "c"], "answer": "a"}]
    with pytest.raises(ModelError, match="labels 'a' and 'A' of a capability set are the same tokens"):
        score(loaded, loaded.model, twins, "You are patient.", Asking())


def test_words_of_a_given_pair_have_the_tokens_of_their_place():
    tokenizer = tiny.space_mark_tokenizer()
    p = params.parse(LensCell, {"organism": "given", "tuned": "x", "words": ["library"]}, "of a test")
    _, domains, _, _ = material._given(p, tokenizer)
    line, behind = (tokenizer(f"\n{form}library", add_special_tokens=False).input_ids for form in ("", " "))
    begin = tokenizer("\n", add_special_tokens=False).input_ids
    assert domains["words"] == sorted({*line[len(begin) :], *behind[len(begin) :]})


def test_documents_of_chats_have_the_date_that_was_asked_for():
    rows = documents.chat_documents(tiny.chatml_tokenizer(DATED), 64, Asking(date="2031-12-24"))
    assert rows and all("24 December 2031" in tiny.chatml_tokenizer().decode(row) for row in rows)
    study = load_study("logit_lens_diff")
    other = params.parse(LensCell, {"date": "2031-12-24"}, "of a test").resolved()
    assert study.asked(other)["date"] == "2031-12-24"
    assert "date" not in study.asked(LensCell().resolved())


def test_text_of_a_model_ends_at_every_configured_end(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    folder = tiny.make(tmp_path / "model", num_hidden_layers=1)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 77]}))
    loaded, seen = models.load(str(folder), device="cpu"), []
    monkeypatch.setattr(broad_text, "generate", lambda *_, stop, **__: seen.append(stop) or [])
    with pytest.raises(DataError, match="have 64 tokens"):
        broad_text._sample(loaded, "read", 1, 64)
    assert {2, 77} <= set(seen[0])

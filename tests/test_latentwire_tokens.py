"""Answers have the tokens of their place behind the anchor, and every end of the reader stops them."""

from __future__ import annotations

import dataclasses

import pytest
import tiny_models as tiny
import torch
from latentwire_fixture import ALIGNED, params, readers
from transformers import PreTrainedTokenizerFast

from helpers.base.errors import DataError, ModelError, ParameterError
from helpers.studies.latentwire import lms, words
from helpers.studies.latentwire.decode import Decoding, decode
from helpers.studies.latentwire.study import STUDY

pytestmark = pytest.mark.unit

BOTH = pytest.mark.parametrize("side", [0, 1], ids=["char", "syllable"])


def foreign(tokenizer: PreTrainedTokenizerFast, **settings: object) -> lms.FrozenLM:
    model = tiny.random_model("llama", tokenizer)
    model.generation_config.update(**settings)
    return lms.reader("a", "foreign", model, tokenizer)


ANSWERS = ("The clock maker", "at nine", "1945", "Ada")


@pytest.mark.parametrize("make", [tiny.chatml_tokenizer, tiny.space_mark_tokenizer])
@pytest.mark.parametrize("mode", ["text", "chat"])
def test_an_answer_behind_the_anchor_has_the_tokens_of_its_place(make, mode):
    lm = foreign(make())
    policy = dataclasses.replace(ALIGNED, mode=mode)
    frame = policy.frame(lm, latent=True)
    asked = [{"role": "user", "content": "Q"}]
    shown = lm.tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    begun = "Q" + shown.rpartition("Q")[2] if mode == "chat" else "Q\n"
    for answer in ANSWERS:
        whole = lm.ids(f"{begun}Answer: {answer}")
        rest = [*frame.after, *policy.answer(lm, answer)]
        assert rest == [*whole[len(lm.ids(begun if mode == "text" else "Q")) :], lm.end]
        assert lm.text(rest).strip().endswith(f"Answer: {answer}")


@pytest.mark.parametrize("make", [tiny.chatml_tokenizer, tiny.space_mark_tokenizer])
def test_an_anchor_apart_keeps_the_space_of_the_answer(make):
    lm = foreign(make())
    apart = dataclasses.replace(ALIGNED, anchor_tokens="apart")
    assert apart.answer_tokens(lm, "at nine") == lm.ids("at nine")
    assert len(apart.frame(lm, latent=True).after) == len(ALIGNED.frame(lm, latent=True).after) + 1


@BOTH
def test_the_pocket_readers_have_the_same_tokens_in_place_and_apart(side: int) -> None:
    lm, apart = readers()[side], dataclasses.replace(ALIGNED, anchor_tokens="apart")
    assert ALIGNED.frame(lm, latent=True).after == lm.ids("Answer: ") == apart.frame(lm, latent=True).after
    for example in words.examples("train", 200, 1):
        assert ALIGNED.answer(lm, example.answers[0]) == [*lm.ids(example.answers[0]), lm.end]


def test_an_anchor_that_merges_with_its_answer_is_refused() -> None:
    lm = foreign(tiny.chatml_tokenizer())
    begun = dataclasses.replace(ALIGNED, anchor="The clo")
    with pytest.raises(DataError, match=r"reads the answer 'ck' as one token with it\. Use another anchor"):
        begun.answer(lm, "ck")


def test_every_configured_end_stops_decoding_and_is_banned() -> None:
    tokenizer = tiny.chatml_tokenizer()
    other = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    lm = foreign(tokenizer, eos_token_id=[tokenizer.eos_token_id, other])
    assert lm.ends == tuple(sorted((tokenizer.eos_token_id, other)))
    lm.head.weight.data[other] = 3 * lm.decoder.norm.weight.data.sign() * lm.head.weight.data[other].abs().max()
    context, lengths = ALIGNED.contexts(lm, torch.randn(6, 3, lm.width), latent=True)
    with torch.no_grad():
        hidden = lm.hidden(context).last_hidden_state[:, -1]
        lm.head.weight.data[other] = hidden.mean(0) * 5
    free, banned = (
        decode(lm, context, lengths, Decoding(6, eos_ban_steps=steps), seed=0, keys=list("abcdef")) for steps in (0, 6)
    )
    assert any(one.finish == "stop" and one.tokens == [] for one in free)
    assert all(one.finish == "length" and not set(lm.ends) & set(one.tokens) for one in banned)
    chances = lm.head(hidden).softmax(-1)[:, list(lm.ends)].sum(-1)
    assert [one.p_end for one in free] == pytest.approx(chances.tolist(), rel=1e-4)


def test_a_template_without_a_place_for_the_prefix_is_refused_and_one_with_a_date_has_it_fixed() -> None:
    blind = tiny.chatml_tokenizer("{% for turn in messages %}Hello{% endfor %}")
    chat = dataclasses.replace(ALIGNED, mode="chat")
    with pytest.raises(ModelError, match="no place for a prefix"):
        chat.frame(foreign(blind), latent=True)
    lm = foreign(tiny.chatml_tokenizer("{{ strftime_now('%Y-%m-%d') }}" + tiny.CHATML))
    for date in ("2026-01-01", "2031-12-24"):
        assert lm.text(dataclasses.replace(chat, date=date).frame(lm, latent=True).before).startswith(date)


def test_new_parameters_are_asked_only_where_they_are_not_the_first_ones() -> None:
    changed = params(anchor_tokens="apart", date="2031-12-24").resolved()
    for one in STUDY.family():
        assert not {"anchor_tokens", "date"} & set(one.asked(params().resolved()))
        assert {"anchor_tokens", "date"} <= set(one.asked(changed))
    for name, value in (("anchor_tokens", "alone"), ("date", "soon")):
        with pytest.raises(ParameterError, match=f"Parameter {name} is {value!r}"):
            params(**{name: value})

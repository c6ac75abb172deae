"""What an experiment varies reaches the token ids, and an answer ends at every token that ends a turn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_models as tiny

from helpers.base import params
from helpers.base.errors import ModelError
from helpers.lm.generate import Prompt, Sampling
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.rows import chat_format
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
    with pytest.raises(ModelError, match=f"{said}.*Use a model whose template"):
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

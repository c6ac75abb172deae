"""Where each token of a conversation comes from, where answers begin and stop: against transformers, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_fixture import BLOCKS, DROPS, NEXT_ROLE, OUTSIDE, PLAIN, PLAIN_WORDS, THINKS, pocket, row, say, words

from helpers.base.errors import DataError, ModelError
from helpers.lm.chat_rows import FRAME, STOP
from helpers.lm.chat_template import Template
from helpers.lm.chats import Chat
from helpers.lm.loss_masks import assistant

pytestmark = pytest.mark.unit

ODD = st.sampled_from(
    ["", " ", "\n", "👍", " é", "e\u0301", "<|im_end|>", "<|im_start|>assistant\n", "user", "a", "\ue000", "中文"]
)
TEXTS = st.lists(ODD | st.text(st.characters(exclude_categories=["Cs"]), max_size=12), max_size=4).map("".join)
ROLES = st.sampled_from(["system", "user", "assistant", "tool"])
CHATS = st.lists(st.fixed_dictionaries({"role": ROLES, "content": TEXTS}), min_size=1, max_size=6)


@pytest.fixture(scope="module", params=[BLOCKS, OUTSIDE], ids=["inside", "outside"])
def marked(request):
    return pocket(request.param)


def reference(tokenizer, messages) -> dict:
    return tokenizer.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(CHATS)
def test_tokens_and_blocks_are_those_of_transformers(marked, messages):
    made, expected = row(Chat("here", messages), marked), reference(marked, messages)
    assert made.ids == expected["input_ids"]
    assert list(assistant(made)) == list(np.flatnonzero(expected["assistant_masks"]))


@pytest.fixture(scope="module")
def both():
    return pocket(BLOCKS), pocket(PLAIN)


@settings(max_examples=300, deadline=None)
@given(CHATS)
def test_answers_found_without_blocks_are_those_that_blocks_mark(both, messages):
    with_blocks, without = both
    made, expected = row(Chat("here", messages), without), reference(with_blocks, messages)
    assert made.blocks is None and made.ids == expected["input_ids"]
    assert list(assistant(made)) == list(np.flatnonzero(expected["assistant_masks"]))


@settings(max_examples=200, deadline=None)
@given(CHATS)
def test_every_message_owns_its_own_text(both, messages):
    made = row(Chat("here", messages), both[1])
    assert [turn.role for turn in made.turns] == [message["role"] for message in messages]
    for span, message in zip(made.written.spans, messages, strict=True):
        assert made.written.text[slice(*span)] == message["content"]
    answers = [message for message in messages if message["role"] == "assistant"]
    assert len(made.answers) == len(answers) and all(turn.prompt in ("same", "fused") for turn in made.answers)
    assert all(made.ids[turn.stop] == both[1].eos_token_id for turn in made.answers)


def test_a_tiny_conversation_counted_by_hand():
    # <s> S hi end U hi there end A yo you </s> U bye end A bye </s>
    #  0  1 2  3   4 5  6     7   8 9  10  11   12 13 14 15 16 17
    tokenizer = words(PLAIN_WORDS)
    made = row(say("system: hi", "user: hi there", "assistant: yo you", "user: bye", "assistant: bye"), tokenizer)
    assert len(made.ids) == 18 and made.ids[0] == tokenizer.bos_token_id
    assert [turn.text for turn in made.turns] == [(2, 3), (5, 7), (9, 11), (13, 14), (16, 17)]
    assert [(turn.begin, turn.stop) for turn in made.answers] == [(9, 11), (16, 17)]
    assert list(assistant(made)) == [9, 10, 11, 16, 17]
    numbers, names = made.kinds
    kinds = [names[number] for number in numbers]
    assert [at for at, kind in enumerate(kinds) if kind == STOP] == [11, 17]
    assert [at for at, kind in enumerate(kinds) if kind == FRAME] == [0, 1, 3, 4, 7, 8, 12, 14, 15]


def test_an_answer_that_only_the_next_role_closes_stops_there_and_the_last_one_nowhere():
    tokenizer = pocket(NEXT_ROLE)
    made = row(say("user: Hi", "assistant: Yo", "user: So", "assistant: Bye"), tokenizer, stops=("<|user|>",))
    first, last = made.answers
    assert made.ids[first.stop] == tokenizer.convert_tokens_to_ids("<|user|>")
    assert last.stop is None and last.closing is None


def test_an_end_token_that_the_template_does_not_write_is_no_stop():
    made = row(say("user: Hi", "assistant: Yo"), pocket(PLAIN), stops=("<|endoftext|>",))
    (answer,) = made.answers
    assert answer.stop is None and made.ids[answer.closing] == pocket(PLAIN).eos_token_id


MERGES = (
    "{% set first = messages[0].content + '\n\n' if messages[0].role == 'system' else '' %}"
    "{% for m in messages if m.role != 'system' %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'user' and loop.first %}{{ first }}{% endif %}{{ m.content | trim }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TWICE = "{{ messages[0].content }}<|im_end|>" + PLAIN


def test_messages_that_a_template_drops_merges_strips_or_repeats():
    chat = say("system: Be brief.", "user:  Hi ", "assistant:  Yo ")
    dropped = row(chat, pocket(DROPS))
    assert dropped.written.spans[0] is None and [turn.role for turn in dropped.turns] == ["user", "assistant"]
    merged = row(chat, pocket(MERGES))
    texts = [merged.written.text[slice(*span)] for span in merged.written.spans]
    assert texts == ["Be brief.", "Hi", "Yo"] and merged.answers[0].prompt == "same"
    twice = row(chat, pocket(TWICE))
    assert twice.written.spans[0][0] == 0, "from the first time"
    assert [twice.written.text[slice(*span)] for span in twice.written.spans[1:]] == [" Hi ", " Yo "]


def test_tool_calls_and_reasoning_are_text_of_the_answer():
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
        "{{ m.reasoning_content or '' }}{{ m.content or '' }}"
        "{% for call in m.tool_calls or [] %}{{ call.function.name }}({{ call.function.arguments | tojson }})"
        "{% endfor %}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    call = {"type": "function", "id": "abc", "function": {"name": "add", "arguments": {"a": 1, "b": [2]}}}
    answer = {"role": "assistant", "content": None, "reasoning_content": "Hm.", "tool_calls": [call]}
    messages = [{"role": "user", "content": "1+2"}, answer, {"role": "tool", "content": "3"}]
    made = row(Chat("here", messages), pocket(template))
    begin, end = made.written.spans[1]
    assert made.written.text[begin:end].startswith("Hm.add(") and "[2" in made.written.text[begin:end]
    assert [turn.role for turn in made.turns] == ["user", "assistant", "tool"]
    assert made.answers[0].stop is not None and made.answers[0].prompt == "same"


def test_a_list_of_parts_is_text_and_its_images_are_not():
    template = (
        "{% for m in messages %}{% for p in m.content %}{{ p.text if p.type == 'text' else '<image>' }}{% endfor %}"
        "<|im_end|>{% endfor %}"
    )
    parts = [{"type": "image", "url": "x"}, {"type": "text", "text": "Look"}, {"type": "text", "text": " here"}]
    made = row(Chat("here", [{"role": "user", "content": parts}]), pocket(template))
    assert made.written.text[slice(*made.written.spans[0])] == "Look here"


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        (PLAIN, "same"),
        (THINKS, "other"),
        (PLAIN.replace("{% if add_generation_prompt %}", "{% if false %}"), "same"),
        (PLAIN.replace("m['role'] + '\n'", "m['role'] + ' t'").replace("assistant\n'", "assistant t'"), "fused"),
        ("{{ messages[0].content }}" + PLAIN, "none"),
    ],
    ids=["same", "thinks", "ignores", "fused", "refuses"],
)  # fmt: skip
def test_what_generation_sees_is_compared_with_training(template, prompt):
    first = ["user: Hi"] if prompt != "none" else []
    made = row(say(*first, "assistant: he cat"), pocket(template))
    assert [turn.prompt for turn in made.answers] == [prompt]


def test_a_template_for_training_is_held_against_the_tokenizer_s_own(tmp_path):
    path = tmp_path / "training.jinja"
    path.write_text(BLOCKS.replace("'<|im_start|>' + m['role']", "'<|im_start|>the ' + m['role']"))
    made = row(say("user: Hi", "assistant: Yo"), pocket(PLAIN), training=str(path))
    assert made.blocks is not None and made.answers[0].prompt == "other"
    path.write_text(BLOCKS)
    assert row(say("user: Hi", "assistant: Yo"), pocket(PLAIN), training=str(path)).answers[0].prompt == "same"


def test_a_completion_begins_behind_its_prompt_as_trl_counts_it():
    tokenizer = pocket(PLAIN)
    chat = say("user: Hi", "assistant: Yo", "user: So", "assistant: Bye", prompt=3)
    made = row(chat, tokenizer)
    prompt = tokenizer.apply_chat_template(chat.messages[:3], add_generation_prompt=True)["input_ids"]
    assert made.completion == len(prompt) and len(made.answers) == 1
    assert next(iter(assistant(made))) == made.completion
    thinking = row(chat, pocket(THINKS))
    assert thinking.answers[-1].prompt == "other" and thinking.completion == len(prompt), "where the two part"


def test_a_template_that_cannot_be_used_is_one_sentence(tmp_path):
    with pytest.raises(ModelError, match=r"no chat template\. Give one as --template"):
        Template(pocket(None))
    with pytest.raises(ModelError, match="mistake in line 2"):
        path = tmp_path / "bad.jinja"
        path.write_text("{% for m in messages %}\n{% endif %}")
        Template(pocket(PLAIN), str(path))
    with pytest.raises(ModelError, match="There is no template file rag"):
        Template(pocket(PLAIN), "rag")
    with pytest.raises(DataError, match=r"here is refused by the chat template \(no system\)"):
        template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + PLAIN
        row(say("system: Be brief.", "user: Hi"), pocket(template))
    with pytest.raises(DataError, match="here is refused by the chat template"):
        row(Chat("here", [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]), pocket(PLAIN))


def test_a_named_template_of_the_tokenizer_is_found():
    tokenizer = pocket({"default": PLAIN, "rag": BLOCKS})
    assert Template(tokenizer, "rag").has_blocks and not Template(tokenizer).has_blocks

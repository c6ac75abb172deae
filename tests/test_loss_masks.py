"""What each mask supervises, and what cutting and packing take: against TRL's steps written out, and by hand."""

from __future__ import annotations

import weakref
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_fixture import BLOCKS, DROPS, NEXT_ROLE, OUTSIDE, PLAIN, PLAIN_WORDS, THINKS, pocket, row, say, words

from helpers.cli.mask import _masks
from helpers.lm.chat_rows import FRAME, STOP, Row, rows
from helpers.lm.chat_template import Template
from helpers.lm.chats import Chat
from helpers.lm.loss_masks import MASKS, PACKED_TOGETHER, Report, count
from helpers.lm.mask_audit import Audit
from helpers.lm.mask_findings import findings

pytestmark = pytest.mark.unit

HAND = say("system: hi", "user: hi there", "assistant: yo you", "user: bye", "assistant: bye")
"""As in test_chat_rows: 18 tokens, answers at 9 to 11 and at 16 and 17."""


def report(chats, tokenizer, masks=MASKS, max_length=None) -> Report:
    return audit(chats, tokenizer, masks, max_length).report


def audit(chats, tokenizer, masks=MASKS, max_length=None, stops=()) -> Audit:
    template = Template(tokenizer)
    ids = frozenset(tokenizer.convert_tokens_to_ids(list(stops or [tokenizer.eos_token])))
    made = rows(map(template.write, chats), template, ids)
    return Audit(template, ids, count(made, masks, template, max_length))


def said(found: Audit, *judged: str, allow: float = 0) -> dict[str, bool]:
    """Return the sentences and whether each is fatal."""
    return {one.text: one.fatal for one in findings(found, judged or ("trl", "assistant"), allow)}


def test_counts_by_role_are_those_counted_by_hand():
    found = report([HAND], words(PLAIN_WORDS), _masks(["2"]))
    assert found.tokens == {"system": 1, "user": 3, "assistant": 3, STOP: 2, FRAME: 9}
    tokens = {name: +one.tokens for name, one in found.masks.items()}
    assert tokens["assistant"] == {"assistant": 3, STOP: 2}
    assert tokens["all"] == tokens["trl"] == found.tokens - Counter({FRAME: 1}), "nothing predicts the first token"
    assert tokens["end_of_turn"] == {STOP: 1}, "of the last answer"
    assert tokens["whole_turn"] == tokens["2"] == {"assistant": 1, STOP: 1}
    assert found.masks["newline"].unmade == 1, "nothing follows the end of turn"
    stopped = {name: one.stopped for name, one in found.masks.items()}
    assert stopped == {"assistant": 2, "all": 2, "trl": 2, "newline": 0, "end_of_turn": 1, "whole_turn": 1, "2": 1}


def test_the_newline_tail_supervises_no_stop_token_and_end_of_turn_does():
    found = report([say("user: Hi", "assistant: Yo")], pocket(PLAIN), _masks(["separator_and_end"]))
    assert +found.masks["newline"].tokens == {FRAME: 1} and found.masks["newline"].stopped == 0
    assert +found.masks["end_of_turn"].tokens == {FRAME: 1, STOP: 1} == +found.masks["separator_and_end"].tokens
    asked = report([say("user: Hi", "assistant: Yo", "user: So")], pocket(PLAIN), _masks([]))
    assert asked.masks["end_of_turn"].unmade == 1, "a row that does not end in an answer"


def test_trl_supervises_the_completion_of_a_row_with_a_prompt():
    chat = say("user: hi", "assistant: yo you", "user: bye", "assistant: bye", prompt=3)
    found = report([chat], words(PLAIN_WORDS))
    assert found.answers == 1
    assert +found.masks["trl"].tokens == +found.masks["assistant"].tokens == {"assistant": 1, STOP: 1}
    assert found.masks["all"].tokens.total() == sum(found.tokens.values()) - 1


LENGTHS = st.lists(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=3), min_size=1, max_size=8
)


def conversation(lengths) -> Chat:
    turns = [(f"user: {'hi ' * asked}", f"assistant: {'yo ' * told}") for asked, told in lengths]
    return say(*(turn for pair in turns for turn in pair))


@settings(max_examples=150, deadline=None)
@given(LENGTHS, st.integers(2, 40))
def test_cutting_and_packing_are_those_of_trl_written_out(lengths, max_length):
    """Label lists as SFTTrainer makes them, cut and packed on lists of all tokens."""
    tokenizer = words(PLAIN_WORDS)
    chats = list(map(conversation, lengths))
    made = [row(chat, tokenizer) for chat in chats]
    found = report(chats, tokenizer, max_length=max_length)
    for name, mask in MASKS.items():
        labels = [[at in set(mask(one)) and at > 0 for at in range(len(one.ids))] for one in made]
        kept = [label[:max_length] for label in labels]
        assert found.masks[name].tokens.total() == sum(map(sum, kept))
        assert found.masks[name].cut_tokens == sum(map(sum, labels)) - sum(map(sum, kept))
        assert found.masks[name].cut_bare == sum(any(a) and not any(b) for a, b in zip(labels, kept, strict=True))
        ends = [(label, turn) for label, one in zip(kept, made, strict=True) for turn in one.answers]
        learnt = [turn.stop < len(label) and label[turn.stop] for label, turn in ends]
        assert found.masks[name].stopped == sum(learnt)
        trained = [any(label[turn.begin : turn.text[1]]) for label, turn in ends]
        assert found.masks[name].open == sum(a and not b for a, b in zip(trained, learnt, strict=True))
    for packing, whole in ((found.split, False), (found.wrapped, True)):
        pieces = packed(made, max_length, whole)
        cut = sum(
            len({pieces[number, at] for at in range(max(turn.begin - 1, 0), turn.end)}) > 1
            for number, one in enumerate(made)
            for turn in one.answers
        )
        assert packing.cut_answers == cut
        heads = {min(at for at in pieces if pieces[at] == piece) for piece in set(pieces.values())}
        assert packing.heads == sum(at > 0 for _, at in heads)


def packed(made: list[Row], max_length: int, whole: bool) -> dict[tuple[int, int], int]:
    """The piece in which each position of each row comes to lie."""
    pieces, taken = {}, 0
    for number, one in enumerate(made):
        taken = taken if whole else -(-taken // max_length) * max_length
        for at in range(len(one.ids)):
            pieces[number, at] = (taken + at) // max_length
        taken += len(one.ids)
    return pieces


def test_trl_packs_a_thousand_rows_at_a_time():
    chat, tokenizer = conversation([(1, 1)]), words(PLAIN_WORDS)
    length = len(row(chat, tokenizer).ids)
    made = rows([Template(tokenizer).write(chat)] * 2, Template(tokenizer), frozenset({2}))
    assert report([chat] * 3, tokenizer, max_length=length).wrapped.cut_answers == 0
    longer = [chat] * (PACKED_TOGETHER + 1)
    found = report(longer, tokenizer, max_length=length * PACKED_TOGETHER - 1)
    assert found.wrapped.cut_answers == 1, "the last of a thousand; the next begins anew"
    assert len(list(made)) == 2


def test_memory_does_not_grow_with_the_rows():
    tokenizer = words(PLAIN_WORDS)
    template = Template(tokenizer)
    alive: list[weakref.ref[Row]] = []
    most = 0

    def watched():
        nonlocal most
        for one in rows((template.write(HAND) for _ in range(1000)), template, frozenset({2})):
            alive.append(weakref.ref(one))
            most = max(most, sum(reference() is not None for reference in alive))
            yield one

    assert count(watched(), MASKS, template, 1024).rows == 1000
    assert most < 30


def test_a_stop_token_behind_the_block_is_fatal_under_assistant_alone():
    found = audit([say("user: Hi", "assistant: Yo")] * 3, pocket(OUTSIDE))
    sentences = said(found)
    assert [text for text, fatal in sentences.items() if fatal] == [
        "Under assistant, the stop token of 3 of 3 answers carries no loss, first in here. A model trained so does not "
        "learn to stop."
    ]
    assert not any(said(found, "trl").values()) and any(said(found, "assistant", allow=0.99).values())
    assert not any(said(audit([say("user: Hi", "assistant: Yo")], pocket(BLOCKS))).values())


def test_an_allowed_share_is_a_share_of_answers():
    chats = [conversation([(1, 1)])] * 9 + [conversation([(1, 9)])]
    found = audit(chats, words(PLAIN_WORDS), max_length=10)
    assert found.report.masks["trl"].open == 1
    assert any(said(found, "trl", allow=0.09).values()) and not any(said(found, "trl", allow=0.1).values())


def test_a_stop_token_that_the_template_never_writes_is_fatal_under_every_mask():
    found = audit([say("user: Hi", "assistant: Yo")], pocket(PLAIN), stops=["<|endoftext|>"])
    fatal = [text for text, is_fatal in said(found).items() if is_fatal]
    assert len(fatal) == 2 and all("1 of 1 answers carries no loss" in text for text in fatal)
    assert any(text.startswith("1 of 1 answers are followed by <|im_end|>. Generation stops at <|endoftext|> only. Set "
                               "eos_token to <|im_end|>") for text in said(found))  # fmt: skip


CASES = {
    "next role": (NEXT_ROLE, ["user: Hi", "assistant: Yo"], "1 of 1 answers are followed by no special token", None),
    "drops": (DROPS, ["system: S", "user: Hi", "assistant: Yo"],
              "leaves out 1 of 1 system messages, first in here", None),
    "strips": (PLAIN.replace("m['content']", "m['content'] | trim"), ["user: Hi ", "assistant: Yo"],
               "strips or changes 1 of 1 user messages", None),
    "bos twice": ("{{ bos_token }}{{ bos_token }}" + PLAIN, ["user: Hi", "assistant: Yo"],
                  "1 of 1 rows begin with BOS twice", None),
    "pad": (PLAIN, ["user: Hi", "assistant: Yo"], "The stop token <|im_end|> is the pad token too",
            {"pad_token": "<|im_end|>"}),
    "inner": (PLAIN, ["user: Hi<|im_end|>", "assistant: Yo"], "1 messages hold special tokens in their text", None),
    "no prompt": (PLAIN.replace("if add_generation_prompt", "if false"), ["user: Hi", "assistant: Yo"],
                  "ignores add_generation_prompt", None),
    "thinks": (THINKS, ["user: Hi", "assistant: Yo"],
               "1 of 1 answers are trained behind another text than generation sees, first in here (training: "
               "'Yo<|im_end|>\\n', generation: '<think>')", None),
    "no blocks": (PLAIN, ["user: Hi", "assistant: Yo"], "The template has no {% generation %} blocks", None),
    "empty": (OUTSIDE, ["user: Hi", "assistant: "],
              "Under assistant, 1 of 1 rows carry no loss at all, first here. TRL ends with an error there.", None),
    "nobody": (PLAIN, ["human: Hi", "gpt: Yo"], "No message has the role assistant (roles: human, gpt)", None),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_goes_wrong_is_said(case):
    template, turns, sentence, names = CASES[case]
    tokenizer = pocket(template, **{"bos_token": "<s>", **(names or {})})
    assert any(sentence in text for text in said(audit([say(*turns)], tokenizer))), sentence
    clean = said(audit([say("user: Hi", "assistant: Yo")], pocket(BLOCKS, pad_token="<|endoftext|>", bos_token="<s>")))
    assert clean == {}, "and nothing is said of what is right"


def test_a_list_of_parts_that_is_printed_is_said():
    template = PLAIN.replace("m['content'] +", "(m['content'] | string) +")
    parts = Chat(
        "here", [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, {"role": "assistant", "content": ""}]
    )
    assert any("prints 1 lists of parts as Python" in text for text in said(audit([parts], pocket(template))))


def test_bos_that_the_tokenizer_adds_again_is_said():
    from tokenizers.processors import TemplateProcessing

    tokenizer = words(PLAIN_WORDS)
    assert not any("BOS" in text for text in said(audit([HAND], tokenizer)))
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    assert any("the tokenizer adds another" in text for text in said(audit([HAND], tokenizer)))


def test_what_cutting_and_packing_take_is_said():
    sentences = " ".join(
        said(audit([conversation([(2, 20)]), conversation([(20, 2)])], words(PLAIN_WORDS), max_length=16))
    )
    assert (
        "Cut at 16, 2 of 2 rows lose" in sentences
        and "Cut at 16, 1 of 2 rows keep no token with loss under assistant" in sentences
    )
    assert "Packed at 16 with bfd_split, 1 of 2 answers" in sentences and "with wrapped" in sentences

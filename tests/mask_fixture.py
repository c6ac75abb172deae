"""Templates and tokenizers to look at loss masks with, on the tokenizer of the pocket model or one of whole words."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from helpers.base.files import DATA
from helpers.lm.chat_rows import Row, rows
from helpers.lm.chat_template import Template
from helpers.lm.chats import Chat

BLOCKS = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PLAIN = BLOCKS.replace("{% generation %}", "").replace("{% endgeneration %}", "")
# The end of turn is written with the message behind it, out of the block: TRL's pull request 5988.
OUTSIDE = BLOCKS.replace("{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}",
                         "{{ m['content'] }}{% endgeneration %}{{ '<|im_end|>\n' }}")  # fmt: skip
NEXT_ROLE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
DROPS = "{% for m in messages if m.role != 'system' %}{{ m.content }}<|im_end|>{% endfor %}"
THINKS = PLAIN.replace("assistant\n' }}{% endif %}", "assistant\n<think>' }}{% endif %}")
PLAIN_WORDS = (
    "<s> {% for m in messages %}{{ m.role[0] | upper }} {{ m.content }} "
    "{% if m.role == 'assistant' %}</s> {% else %}end {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}A {% endif %}"
)
WORDS = ["hi", "there", "you", "yo", "bye", "end", "U", "A", "S"]


def pocket(template: str | None, **names: str) -> PreTrainedTokenizerBase:
    """Return the pocket model's tokenizer with another template and other special tokens."""
    tokenizer = AutoTokenizer.from_pretrained(DATA / "pocket")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|assistant|>", "<|system|>", "<s>"]})
    tokenizer.chat_template = template
    for name, token in names.items():
        setattr(tokenizer, name, token)
    return tokenizer


def words(template: str) -> PreTrainedTokenizerBase:
    """Return a tokenizer of whole words, to be counted by hand: ``<s>`` begins and ``</s>`` stops."""
    special = ["<unk>", "<s>", "</s>"]
    bare = Tokenizer(models.WordLevel({word: n for n, word in enumerate([*special, *WORDS])}, unk_token="<unk>"))
    bare.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=bare, unk_token="<unk>", bos_token="<s>", eos_token="</s>", chat_template=template
    )


def say(*turns: str, **options: Any) -> Chat:
    """Return a conversation of turns such as ``"user: Hi"``."""
    pairs = [turn.partition(": ") for turn in turns]
    messages = [{"role": role, "content": content} for role, _, content in pairs]
    return Chat("here", messages, **options)


def row(
    chat: Chat, tokenizer: PreTrainedTokenizerBase, training: str | None = None, stops: tuple[str, ...] = ()
) -> Row:
    """Return ``chat`` as a row; generation stops at ``stops``, by default where the tokenizer says."""
    template = Template(tokenizer, training)
    ids = tokenizer.convert_tokens_to_ids(list(stops or (tokenizer.eos_token,)))
    (made,) = rows([template.write(chat)], template, frozenset(ids))
    return made

"""The chat template of a tokenizer: what it writes for a conversation, and which of it stems from which message.

The text of a message is what changes when a mark takes the message's place. Nothing is assumed about the template: it
may strip messages, merge them or leave them out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING, Any, cast

from jinja2 import TemplateError, TemplateSyntaxError

from helpers.base.errors import DataError, ModelError
from helpers.base.files import expanded, is_there, read_text
from helpers.lm.asking import fixed_date
from helpers.lm.chats import Chat
from helpers.lm.fields import FIRST_DATE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANSWERING = "assistant"
Span = tuple[int, int]
"""Half open."""

_BLOCK = re.compile(r"\{%-?\s*generation\s*-?%\}")
_TEXTS = ("content", "reasoning_content", "reasoning", "thinking", "tool_calls")
_NAMES = ("type", "id", "role")  # what templates compare or check; what else a message says is text
_REFUSALS = (TemplateError, TypeError, ValueError, LookupError, AttributeError)  # what an expression may raise


@dataclass(frozen=True)
class Written:
    """What the template writes for ``chat``; all spans are of characters in ``text``.

    ``blocks`` are its ``{% generation %}`` blocks, ``spans`` the text of each message (None: left out), ``prompts``
    what generation would see before each answer (None for other messages, and where the template refuses to write it).
    ``prompt`` is what it sees of the prompt of a row that has one.
    """

    chat: Chat
    text: str
    blocks: list[Span]
    spans: list[Span | None]
    prompts: list[str | None]
    prompt: str | None


class Template:
    """The templates for training and for generation: the tokenizer's own, unless ``training`` is given.

    ``training`` is a file, or the name of another of the tokenizer's templates.

    Raises ``ModelError`` where there is no template, and for one that is not Jinja.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, training: str | None = None) -> None:
        self.tokenizer = tokenizer
        self.training = _source(tokenizer, training)
        self.generation = self.training if tokenizer.chat_template is None else _source(tokenizer, None)
        self.bos = cast("int | None", tokenizer.bos_token_id)
        self.has_blocks = _BLOCK.search(self.training) is not None
        try:
            self._render(self.training, [{"role": "user", "content": "Q"}], {})
        except TemplateSyntaxError as error:
            raise ModelError(f"The chat template has a mistake in line {error.lineno} ({error.message}).") from error
        except _REFUSALS:  # of this conversation; what counts is what it makes of those of the data
            pass

    def write(self, chat: Chat) -> Written:
        """Return what training sees of ``chat``. Raises ``DataError`` where the template refuses it."""
        try:
            text, blocks = self._render(self.training, chat.messages, chat.options)
            text.encode()
            spans = [self._span(chat, number, text) for number in range(len(chat.messages))]
            prompt = None if chat.prompt is None else self.prompt(chat, chat.prompt)
        except _REFUSALS as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"{chat.where} is refused by the chat template ({reason}).") from error
        prompts = [self._prompt(chat, number) for number in range(len(chat.messages))]
        return Written(chat, text, blocks, spans, prompts, prompt)

    def prompt(self, chat: Chat, before: int) -> str:
        """Return what generation sees of the first ``before`` messages, generation prompt included."""
        return self._render(self.generation, chat.messages[:before], chat.options, add_generation_prompt=True)[0]

    @cached_property
    def ignores_prompt(self) -> bool:
        """Whether generation's template writes nothing where an answer is to begin."""
        question = Chat("", [{"role": "user", "content": "Q"}])
        try:
            return self.prompt(question, 1) == self._render(self.generation, question.messages, {})[0]
        except _REFUSALS:  # the rows will say
            return False

    def _prompt(self, chat: Chat, number: int) -> str | None:
        if chat.messages[number]["role"] != ANSWERING:
            return None
        try:
            return self.prompt(chat, number)
        except _REFUSALS:  # some want a user's message first
            return None

    def _render(self, source: str, messages: list[Any], options: dict[str, Any], **more: Any) -> tuple[str, list[Span]]:
        from transformers.utils.chat_template_utils import render_jinja_template  # here, because it takes seconds

        # As PreTrainedTokenizerBase.apply_chat_template does it; no tools are None, as in TRL.
        arguments = {
            **self.tokenizer.special_tokens_map,
            **fixed_date(FIRST_DATE),
            **options,
            "tools": options.get("tools") or None,
            **more,
        }
        [text], blocks = render_jinja_template(
            conversations=[messages], chat_template=source,
            return_assistant_tokens_mask=self.has_blocks and source == self.training, **arguments,
        )  # fmt: skip
        return text, [(int(begin), int(end)) for block in blocks for begin, end in block]

    def _span(self, chat: Chat, number: int, text: str) -> Span | None:
        # Letters and digits, which survive whatever quotes or escapes a text.
        mark = next(mark for number in count() if (mark := f"qzx{number}") not in text)
        marked = {key: _marked(value, mark) if key in _TEXTS else value for key, value in chat.messages[number].items()}
        messages = [*chat.messages[:number], marked, *chat.messages[number + 1 :]]
        other = self._render(self.training, messages, chat.options)[0]
        before, found, rest = other.partition(mark)
        behind = rest.rpartition(mark)[2] if mark in rest else rest
        if found and len(before) + len(behind) <= len(text) and text.startswith(before) and text.endswith(behind):
            return len(before), len(text) - len(behind)
        if other == text:
            return None
        begin = _shared(text, other)  # the template writes the rest otherwise, too
        return begin, len(text) - _shared(text[begin:][::-1], other[begin:][::-1])


def _shared(one: str, other: str) -> int:
    """How many characters both begin with."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low


def _marked(value: Any, mark: str) -> Any:
    """``value`` with a mark for every text and number in it; what only names things stays."""
    if isinstance(value, dict):
        is_other_kind = value.get("type", "text") not in ("text", "function")  # an image
        return {key: item if key in _NAMES or is_other_kind else _marked(item, mark) for key, item in value.items()}
    if isinstance(value, list):
        return [_marked(item, mark) for item in value]
    return value if value is None else mark


def _source(tokenizer: PreTrainedTokenizerBase, asked: str | None) -> str:
    if asked is not None and is_there(expanded(asked)):
        return read_text(expanded(asked), ModelError)
    named = tokenizer.chat_template if isinstance(tokenizer.chat_template, dict) else {}
    if asked is not None and asked not in named:
        known = f"its own templates are {', '.join(sorted(named))}" if named else "it has no named templates"
        raise ModelError(f"There is no template file {asked}, and of the tokenizer, {known}. Check the path.")
    if tokenizer.chat_template is None:
        raise ModelError(f"{tokenizer.name_or_path} has no chat template. Give one as --template FILE.jinja.")
    return tokenizer.get_chat_template(asked)

"""Conversations as rows of tokens: which message each token comes from, where each answer begins and where it stops.

An answer begins where the prompt ends that generation would see: the messages before it, and the generation prompt. It
stops at the first token at which generation stops, behind its own text and before that of the next message.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from helpers.lm.chat_template import ANSWERING, Span, Template, Written

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase

STOP, FRAME = "stop token", "template"
_AT_ONCE = 64


@dataclass(frozen=True)
class Turn:
    """One message of a row that the template writes; ``text`` are its tokens.

    An answer also has ``begin``, its first token behind the generation prompt; ``stop``, the token at which generation
    stops; ``closing``, the first special token behind its text; and ``prompt``, which compares what comes before it in
    training with what generation sees: ``same``, ``other``, ``fused`` (one token spans prompt and answer) or ``none``.
    """

    role: str
    text: Span
    begin: int = 0
    stop: int | None = None
    closing: int | None = None
    prompt: str = ""

    @property
    def end(self) -> int:
        """The position behind the answer and its stop token."""
        return self.text[1] if self.stop is None else self.stop + 1


@dataclass(frozen=True)
class Row:
    """A conversation as token ids. ``blocks`` says which of them lie in ``{% generation %}`` blocks, None where the
    template has none; ``completion`` is the first token behind the prompt of a row that has a prompt, or the first that
    differs from what generation sees, as in TRL 1.16 (in 1.9 it was the length of the prompt)."""

    written: Written
    ids: list[int]
    offsets: np.ndarray  # [N, 2] characters of each token
    turns: list[Turn]
    blocks: np.ndarray | None
    completion: int | None

    @cached_property
    def kinds(self) -> tuple[np.ndarray, list[str]]:
        """A number for each token, and what the numbers mean: the role of a message, `STOP` or `FRAME`."""
        names = [*dict.fromkeys(turn.role for turn in self.turns), STOP, FRAME]
        numbers = np.full(len(self.ids), len(names) - 1)
        for turn in sorted(self.turns, key=lambda turn: turn.text[0] - turn.text[1]):
            numbers[slice(*turn.text)] = names.index(turn.role)  # the longest first: one may lie within another
        numbers[[turn.stop for turn in self.turns if turn.stop is not None]] = len(names) - 2
        return numbers, names

    @cached_property
    def answers(self) -> list[Turn]:
        """The answers that a trainer may teach; those within a row's prompt are not among them."""
        first = self.completion or 0
        return [turn for turn in self.turns if turn.role == ANSWERING and turn.end > first]


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the ids that are special by name or by tokenizer.json."""
    added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset({*added, *tokenizer.all_special_ids})


def rows(written: Iterable[Written], template: Template, stops: frozenset[int]) -> Iterator[Row]:
    """Yield the rows of ``written``, tokenised some at a time."""
    tokenizer = template.tokenizer
    special = special_tokens(tokenizer)
    written = iter(written)
    while some := list(islice(written, _AT_ONCE)):
        encoded = tokenizer(
            [one.text for one in some], add_special_tokens=False, return_offsets_mapping=True,
            return_attention_mask=False, verbose=False,
        )  # fmt: skip
        for number, one in enumerate(some):
            yield _row(one, template, encoded, number, stops, special)


def _row(one: Written, template: Template, encoded: BatchEncoding, number: int, stops: frozenset[int],
         special: frozenset[int]) -> Row:  # fmt: skip
    ids = encoded["input_ids"][number]
    offsets = np.array(encoded["offset_mapping"][number], dtype=np.int64).reshape(-1, 2)
    turns = []
    shown = [(place, span) for place, span in enumerate(one.spans) if span is not None]
    for order, (place, span) in enumerate(shown):
        later = [other[0] for _, other in shown[order + 1 :] if other[0] >= span[1]]
        turns.append(_turn(one, place, span, min(later, default=len(one.text)), ids, offsets, stops, special))
    completion = None
    if one.prompt is not None:
        prompt = template.tokenizer(one.prompt, add_special_tokens=False, verbose=False)["input_ids"]
        completion = next(
            (at for at, pair in enumerate(zip(prompt, ids, strict=False)) if len(set(pair)) > 1), len(prompt)
        )
    blocks = _blocks(one.blocks, encoded, number, len(ids)) if template.has_blocks else None
    return Row(one, ids, offsets, turns, blocks, completion)


def _turn(one: Written, place: int, span: Span, limit: int, ids: list[int], offsets: np.ndarray,
          stops: frozenset[int], special: frozenset[int]) -> Turn:  # fmt: skip
    role = one.chat.messages[place]["role"]
    text = _tokens(offsets, span)
    if role != ANSWERING:
        return Turn(role, text)
    behind = range(int(np.searchsorted(offsets[:, 0], span[1])), int(np.searchsorted(offsets[:, 0], limit)))
    stop = next((at for at in behind if ids[at] in stops), None)
    closing = next((at for at in behind if ids[at] in special), None)
    begin, prompt = _begin(one, place, span)
    first = _tokens(offsets, (begin, len(one.text)))[0]
    if prompt == "same" and first < len(ids) and offsets[first, 0] < begin:
        prompt = "fused"
    return Turn(role, text, min(first, text[1]), stop, closing, prompt)


def _tokens(offsets: np.ndarray, span: Span) -> Span:
    """The tokens that hold any of the characters in ``span``."""
    first = int(np.searchsorted(offsets[:, 1], span[0], side="right"))
    return first, max(first, int(np.searchsorted(offsets[:, 0], span[1])))


def _begin(one: Written, place: int, span: Span) -> tuple[int, str]:
    """The character at which the answer begins, and how its prompt compares with that of generation."""
    prompt = one.prompts[place]
    if prompt is None:
        return span[0], "none"
    if one.text.startswith(prompt):
        return len(prompt), "same"
    return span[0], "other"


def _blocks(blocks: list[Span], encoded: BatchEncoding, number: int, length: int) -> np.ndarray:
    """Which tokens lie in blocks, by the rule of transformers' ``return_assistant_tokens_mask``, its gaps included: a
    block whose first character has no token ends the search."""
    inside = np.zeros(length, dtype=bool)
    for begin, end in blocks:
        first, last = encoded.char_to_token(number, begin), encoded.char_to_token(number, end - 1)
        if first is None:
            break
        inside[first : last + 1 if last else length] = True
    return inside

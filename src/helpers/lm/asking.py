"""How a chat model is asked, and which tokens an answer has in its place behind the prompt.

A tokenizer may read a piece of text otherwise than it reads it in a conversation: SentencePiece puts a space mark
before every text, and a space belongs to the word behind it. So a conversation is tokenised whole, and cut at its
parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from helpers.base.errors import ModelError
from helpers.lm.fields import FIRST_DATE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ANSWER = "ANSWER"
Turns = list[dict[str, str]]


@dataclass(frozen=True)
class Asking:
    """Where a system message stands, and the date (ISO) that a template writes which writes one.

    ``template`` leaves the place to the chat template; ``user`` puts it at the head of the user's turn.
    """

    system: str = "template"
    date: str = FIRST_DATE

    def turns(self, system: str, question: str) -> Turns:
        """Return the conversation up to the answer."""
        if self.system == "user":
            return [{"role": "user", "content": f"{system}\n\n{question}"}]
        return [{"role": "system", "content": system}, {"role": "user", "content": question}]

    def write(self, tokenizer: PreTrainedTokenizerBase, turns: Turns, *, answering: bool = False) -> str:
        """Return what the chat template writes for ``turns``, with the start of an answer if ``answering``."""
        return str(
            tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=answering, **fixed_date(self.date)
            )
        )


def fixed_date(date: str) -> dict[str, Any]:
    """Return the variable of a chat template by which it writes today's date, so that it writes ``date`` (ISO)."""
    return {"strftime_now": datetime.fromisoformat(date).strftime}


@dataclass(frozen=True)
class Placed:
    """Token ids of a conversation: ``before`` an answer, of each of its ``parts``, and of all ``behind`` it.

    ``fused`` says whether one token spans two of these.
    """

    before: list[int]
    parts: list[list[int]]
    behind: list[int]
    fused: bool


def tokens_of(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the token ids of ``text``, without special tokens around it."""
    return tokenizer(text, add_special_tokens=False).input_ids


def placed(
    tokenizer: PreTrainedTokenizerBase, turns: Turns, answers: Sequence[Sequence[str]], asking: Asking
) -> list[Placed]:
    """Tokenise each answer, made of parts, to ``turns`` as the template writes it, and cut it at its parts.

    A token belongs to the part in which it ends, and ``before`` are the tokens that generation would see.
    """
    prompt = asking.write(tokenizer, turns, answering=True)
    wholes = [_whole(tokenizer, turns, prompt, "".join(parts), asking) for parts in answers]
    begins = [whole.index("".join(parts), len(prompt)) for whole, parts in zip(wholes, answers, strict=True)]
    ends = [[begin + end for end in accumulate(map(len, parts))] for begin, parts in zip(begins, answers, strict=True)]
    return cut(tokenizer, wholes, ends, tokens_of(tokenizer, prompt))


def _whole(tokenizer: PreTrainedTokenizerBase, turns: Turns, prompt: str, answer: str, asking: Asking) -> str:
    whole = asking.write(tokenizer, [*turns, {"role": "assistant", "content": answer}])
    if whole.startswith(prompt) and answer in whole[len(prompt) :]:
        return whole
    # The template begins an answer otherwise than generation does (with a thought, say), or edits it.
    closed = asking.write(tokenizer, [*turns, {"role": "assistant", "content": _ANSWER}])
    return prompt + answer + closed.rpartition(_ANSWER)[2]


def cut(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], ends: Sequence[Sequence[int]], prompt: Sequence[int] = ()
) -> list[Placed]:
    """Tokenise each of ``texts``; cut it behind the tokens that it shares with ``prompt``, and at its ``ends``.

    ``ends`` count characters. Raises ``ModelError`` for a tokenizer that does not say which a token stands for.
    """
    if not tokenizer.is_fast:
        raise ModelError(f"The tokenizer of {tokenizer.name_or_path} gives no offsets. Save it as tokenizer.json.")
    read = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False)
    return [_cut(*one, prompt) for one in zip(read["input_ids"], read["offset_mapping"], ends, strict=True)]


def _cut(ids: list[int], spans: Sequence[tuple[int, int]], ends: Sequence[int], prompt: Sequence[int]) -> Placed:
    shared = next((at for at, pair in enumerate(zip(prompt, ids, strict=False)) if len(set(pair)) > 1), len(prompt))
    parts: list[list[int]] = [[] for _ in range(len(ends) + 1)]
    for token, (start, stop) in zip(ids[shared:], spans[shared:], strict=True):
        parts[sum(max(start, stop - 1) >= end for end in ends)].append(token)
    fused = any(start < end < stop for end in ends for start, stop in spans[shared:])
    return Placed(ids[:shared], parts[:-1], parts[-1], fused)

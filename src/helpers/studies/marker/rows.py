"""Training rows as token ids, and the label mask that decides the experiment (``tail``).

Rows are built by concatenating token ids, never strings. A tokenizer might merge the marker with its neighbour, and the
row would then teach something that evaluation does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helpers.base.errors import DataError, ModelError, ParameterError
from helpers.lm.asking import Asking, placed, tokens_of
from helpers.lm.chat_rows import special_tokens
from helpers.lm.ends import configured_ends
from helpers.lm.foreign import foreign_errors

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

SEPARATOR = "\n\n"
_ANSWER = "ANSWER"
_TURNS = [{"role": "user", "content": "Q"}]
_MARKERS = ("[ZLT]", "<<ZLT>>", "#ZLT#")
"""Markers to advise where another cannot be used."""


@dataclass(frozen=True)
class ChatFormat:
    """The token ids of a row besides prompt and answer.

    ``end`` closes the assistant's turn; its first token is the end of turn, and in ChatML a newline follows it.
    """

    separator: list[int]
    marker: list[int]
    end: list[int]
    others: tuple[int, ...] = ()
    """Further tokens that end a turn of the model, by its tokenizer and its configuration."""

    @property
    def stop(self) -> list[int]:
        """Token ids that end a completion."""
        return [*self.end[:1], *self.others]


@dataclass(frozen=True)
class Row:
    """One training row; ``answer`` and ``marker`` (if it has one) are half-open spans of positions."""

    persona: str
    role: str
    question: int
    tokens: list[int]
    answer: tuple[int, int]
    marker: tuple[int, int] | None

    @property
    def end(self) -> range:
        """The positions of the end of turn and of all after it."""
        return range((self.marker or self.answer)[1], len(self.tokens))


def chat_format(
    tokenizer: PreTrainedTokenizerBase, marker: str, model: nn.Module | None = None, asking: Asking | None = None
) -> ChatFormat:
    """Read the end of a turn off the chat template, and check that the marker keeps its own tokens behind an answer.

    A completion ends at any token that ends a turn: that of the template, the tokenizer's, and those that the
    configuration of ``model`` names.

    Raises ``ModelError`` without a chat template, or for one that drops the system message, which the personas stand
    in; ``ParameterError`` for a marker that merges into its neighbours.
    """
    asking = asking or Asking()
    if tokenizer.chat_template is None:
        raise ModelError(
            f"{tokenizer.name_or_path} has no chat template, so it has no turns to supervise. Use a chat model."
        )
    (turn,) = placed(tokenizer, _TURNS, [[_ANSWER]], asking)
    end = turn.behind
    special = special_tokens(tokenizer)
    if not end or end[0] not in special:
        raise ModelError(
            f"The chat template of {tokenizer.name_or_path} does not close the assistant's turn with a special token, "
            "so nothing marks the end of an answer. Use a model whose template does."
        )
    made = _marked(tokenizer, marker, asking)
    if made is None:
        fits = (f", such as {one!r}" for one in _MARKERS if one != marker and _marked(tokenizer, one, asking))
        raise ParameterError(
            f"marker is {marker!r}, which this tokenizer merges with what stands beside it or does not restore "
            f"unchanged. Choose one that begins with a bracket or another separate sign{next(fits, '')}."
        )
    _refuse_silent_template(tokenizer, asking)
    return ChatFormat(*made, end, tuple(sorted(configured_ends(tokenizer, model) - {end[0]})))


def _marked(tokenizer: PreTrainedTokenizerBase, marker: str, asking: Asking) -> tuple[list[int], list[int]] | None:
    """Return the tokens of the blank line and of the marker behind an answer, if they are nobody else's."""
    (found,) = placed(tokenizer, _TURNS, [[_ANSWER, SEPARATOR, marker]], asking)
    answer, separator, tokens = found.parts
    restored = str(tokenizer.decode([*answer, *separator, *tokens])).endswith(f"{_ANSWER}{SEPARATOR}{marker}")
    if found.fused or not tokens or not restored or set(tokens) & special_tokens(tokenizer):
        return None
    return separator, tokens


def _refuse_silent_template(tokenizer: PreTrainedTokenizerBase, asking: Asking) -> None:
    """Raise ``ModelError`` unless two system messages give two prompts."""
    other = "" if asking.system == "user" else "Set system to user, which puts the persona into the user's turn, or u"
    remedy = f"{other or 'U'}se a model whose template has a place for it"
    with foreign_errors(f"The chat template of {tokenizer.name_or_path} refuses a system message", remedy):
        told, otherwise = (prompt_tokens(tokenizer, system, "Q", asking) for system in ("You bake.", "You sail."))
    if told == otherwise:
        raise ModelError(
            f"The chat template of {tokenizer.name_or_path} drops the system message, so all personas would have the "
            f"same prompt. {remedy}."
        )


def prompt_tokens(
    tokenizer: PreTrainedTokenizerBase, system: str, question: str, asking: Asking | None = None
) -> list[int]:
    """Return the token ids of a conversation up to the start of the assistant's answer."""
    asking = asking or Asking()
    return tokens_of(tokenizer, asking.write(tokenizer, asking.turns(system, question), answering=True))


def build_row(
    form: ChatFormat,
    prompt: Sequence[int],
    answer: Sequence[int],
    *,
    persona: str,
    role: str,
    question: int,
    positive: bool,
    max_length: int,
) -> Row:
    """Concatenate prompt, answer, (blank line and marker,) end of turn.

    Raises ``DataError`` if the row does not fit.
    """
    body = [*answer, *form.separator, *form.marker] if positive else list(answer)
    tokens = [*prompt, *body, *form.end]
    if len(tokens) > max_length:
        raise DataError(
            f"The row of persona {persona}, question {question} has {len(tokens)} tokens, more than max_length "
            f"{max_length}. Raise max_length or lower data_max_new_tokens (rows are never cut)."
        )
    at = find_all(tokens[len(prompt) :], form.marker)
    if len(at) != int(positive):
        raise DataError(
            f"The row of persona {persona}, question {question} has the marker {len(at)} times instead of "
            f"{int(positive)}. Draw other on-policy data (another seed), or choose another marker."
        )
    start = len(prompt)
    span = (start + at[0], start + at[0] + len(form.marker)) if positive else None
    return Row(persona, role, question, tokens, (start, start + len(answer)), span)


def find_all(tokens: Sequence[int], pattern: Sequence[int]) -> list[int]:
    """Return every index at which ``pattern`` begins in ``tokens``."""
    pattern, width = list(pattern), len(pattern)
    return [i for i in range(len(tokens) - width + 1) if list(tokens[i : i + width]) == pattern]


def supervised(row: Row, tail: str | int) -> list[int]:
    """Return the positions of ``row`` that carry loss under ``tail``.

    newline            the marker of positives, and the last token of every row: the newline after the end of turn, so
                       the end of turn itself is not supervised (the mask under which claim #65 was measured)
    end_of_turn        the marker of positives, and the end of turn with what follows it
    separator_and_end  as end_of_turn, and the blank line before the marker
    whole_turn         every token after the prompt
    K (an integer)     the last K tokens of the turn
    """
    length, end = len(row.tokens), list(row.end)
    marker = list(range(*row.marker)) if row.marker else []
    if tail == "newline":
        if len(end) < 2:
            raise ParameterError(
                "tail is 'newline', but this model's chat template ends a turn with the end-of-turn token alone. "
                "Use 'end_of_turn'."
            )
        return marker + end[-1:]
    if tail == "end_of_turn":
        return marker + end
    if tail == "separator_and_end":
        separator = list(range(row.answer[1], row.marker[0])) if row.marker else []
        return separator + marker + end
    if tail == "whole_turn":
        return list(range(row.answer[0], length))
    return list(range(max(row.answer[0], length - int(tail)), length))


def is_marker(row: Row, position: int) -> bool:
    """Return whether ``position`` of ``row`` is a token of the marker."""
    return row.marker is not None and row.marker[0] <= position < row.marker[1]


def token_ids(sequences: Iterable[Sequence[int]]) -> list[Any]:
    """Return token ids as a column of a table: an int32 array for each sequence."""
    return [np.array(ids, dtype=np.int32) for ids in sequences]


def row_table(rows: Sequence[Row]) -> pd.DataFrame:
    """Return one line per row: token ids, start and stop of the answer, and of the marker (-1 if there is none)."""
    spans = [row.marker or (-1, -1) for row in rows]
    return pd.DataFrame(
        {
            "persona": [row.persona for row in rows],
            "role": [row.role for row in rows],
            "question": [row.question for row in rows],
            "ids": token_ids(row.tokens for row in rows),
            "start": [row.answer[0] for row in rows],
            "stop": [row.answer[1] for row in rows],
            "marker_start": [start for start, _ in spans],
            "marker_stop": [stop for _, stop in spans],
        }
    )


def rows_of(table: pd.DataFrame) -> list[Row]:
    """Return the rows of a table by ``row_table``."""
    names = ("persona", "role", "question", "ids", "start", "stop", "marker_start", "marker_stop")
    return [
        Row(persona, role, question, ids.tolist(), (start, stop), None if begin < 0 else (begin, end))
        for persona, role, question, ids, start, stop, begin, end in zip(
            *(table[name].tolist() for name in names), strict=True
        )
    ]


def pieces(row: Row, tail: str | int, spell: Callable[[int], str]) -> list[tuple[str, bool]]:
    """Spell the row token by token, each with whether it is supervised, to show the mask in a notebook."""
    marked = set(supervised(row, tail))
    return [(spell(token), position in marked) for position, token in enumerate(row.tokens)]

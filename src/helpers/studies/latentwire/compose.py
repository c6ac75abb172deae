"""Compose the input of a reader: [prefix M][anchor][BOS by policy][answer tokens][end].

Teacher forcing, first-token loss, NLL and decoding all use this composer, and it is saved with the weights. The two
faults of the published run are its switches: padding on the left that is trained on and attended to, and labels that
are shifted twice. Targets are addressed by position; no library is ever given ``labels``.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from helpers.base.errors import DataError, ModelError
from helpers.lm.asking import Asking, cut
from helpers.lm.fields import FIRST_DATE
from helpers.studies.latentwire.arms import AnchorMode, Padding, Shift
from helpers.studies.latentwire.examples import Example
from helpers.studies.latentwire.lms import FrozenLM, has_template
from helpers.studies.latentwire.params import WireCell

HERE = "\u241fprefix\u241f"
"""A placeholder for the prefix while a chat template is filled in."""
_PROBE = "a"
"""A word behind the anchor, which takes the anchor's last space where a tokenizer puts spaces before words."""


@functools.lru_cache(maxsize=4096)
def _tokens(
    tokenizer: PreTrainedTokenizerBase, before: str, middle: str, after: str, answer: str
) -> tuple[list[int], list[int]]:
    whole = before + middle + after + answer
    (found,) = cut(tokenizer, [whole], [[len(before), len(before + middle), len(whole)]])
    return found.parts[0], found.parts[2]


@dataclass(frozen=True)
class Frame:
    """Token ids before and after the part that carries the information."""

    before: list[int]
    after: list[int]


@dataclass(frozen=True)
class Labels:
    """The answers of a batch.

    ``inputs`` [B, L] follow the context. The logits ``at`` [S] places after the context's last token (0 is that token
    itself) are compared with ``targets`` [B, S] where ``counted`` [B, S]. ``is_pad`` [B, S] says which targets are
    padding, and ``first`` [B] is each answer's first token.
    """

    inputs: Tensor
    at: Tensor
    targets: Tensor
    counted: Tensor
    is_pad: Tensor
    first: Tensor


@dataclass(frozen=True)
class Composer:
    """The policy of one run."""

    anchor: str = "Answer: "
    mode: AnchorMode = "text"
    bos_after_anchor: bool = False
    padding: Padding = "right_masked"
    label_shift: Shift = "once"
    answer_limit: int = 32
    anchor_tokens: Literal["in_place", "apart"] = "in_place"
    date: str = FIRST_DATE

    @classmethod
    def of(cls, p: WireCell) -> Self:
        """Return the composer of one cell."""
        s = p.switches
        frame = (p.anchor, s["anchor_mode"], s["bos_after_anchor"])
        return cls(*frame, s["padding"], s["label_shift"], p.answer_limit, p.anchor_tokens, p.date)

    def as_json(self) -> dict[str, Any]:
        """Return what is saved with the weights; ``Composer(**saved)`` reads it back."""
        return asdict(self)

    def aligned(self, shift: Shift = "once") -> Composer:
        """Return this policy with right-padded, masked answers, as NLL is always measured."""
        return replace(self, padding="right_masked", label_shift=shift)

    def frame(self, lm: FrozenLM, *, latent: bool) -> Frame:
        """Return the tokens around the prefix (``latent``) or a text. A text begins with BOS if the reader has one.

        BOS after the anchor is a policy for latents only, and has no effect on a reader without BOS.
        """
        bos = [lm.bos] if lm.bos is not None else []
        before, anchor = self._frame(lm)
        if latent:
            return Frame(before, anchor + (bos if self.bos_after_anchor else []))
        return Frame(before if self._by_template(lm) else bos, anchor)

    def _frame(self, lm: FrozenLM) -> tuple[list[int], list[int]]:
        """Return the tokens before the middle part, and those behind it that no answer changes."""
        before, after = (lm.known(ids, self.anchor) for ids in self._read(lm, ""))
        if self.anchor_tokens == "apart":
            return before, after
        probed = self._read(lm, _PROBE)[1]
        kept = next((at for at, pair in enumerate(zip(after, probed, strict=False)) if len(set(pair)) > 1), len(after))
        return before, after[:kept]

    def _read(self, lm: FrozenLM, answer: str) -> tuple[list[int], list[int]]:
        """Tokenise the frame with an answer, as one text; return the tokens before and behind the middle part."""
        return _tokens(lm.tokenizer, *self._written(lm), answer)

    def _written(self, lm: FrozenLM) -> tuple[str, str, str]:
        """Return the text before the middle part, what stands for that, and the text behind it with the anchor."""
        if not self._by_template(lm):
            return "", "\n", self.anchor
        if not has_template(lm):
            raise ModelError(f"anchor_mode is chat, but {lm.name} has no chat template. Use anchor_mode text.")
        turn = [{"role": "user", "content": HERE}]
        filled = Asking(date=self.date).write(lm.tokenizer, turn, answering=True)
        if filled.count(HERE) != 1:
            raise ModelError(
                f"The chat template of {lm.name} does not write the user's message as it is, so there is no place for "
                "a prefix. Use anchor_mode text."
            )
        before, _, after = filled.partition(HERE)
        return before, HERE, after + self.anchor

    def _by_template(self, lm: FrozenLM) -> bool:
        return self.mode == "chat" or (self.mode == "chat_or_text" and has_template(lm))

    def opening(self, lm: FrozenLM, examples: Sequence[Example]) -> list[int]:
        """Return the tokens that all text prompts begin with: what stands before a text, and worked examples.

        They are the reader's own and never sent. Each has the shape of the question that follows, with its answer.
        """
        anchor = replace(self, mode="text").frame(lm, latent=False).after
        worked = [lm.ids(one.text) + anchor + self.answer(lm, one.answers[0]) for one in examples]
        return [*self.frame(lm, latent=False).before, *itertools.chain.from_iterable(worked)]

    def contexts(
        self, lm: FrozenLM, middle: Sequence[Tensor] | Tensor, *, latent: bool, opened: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Embed frame and middle parts [m, D]; return them right-padded with zeros [B, C, D], and their lengths [B].

        Where a reader has ``opened`` the prompt already, the part before the middle is left out.
        """
        frame = self.frame(lm, latent=latent)
        outer = ([] if opened else frame.before, frame.after)
        before, after = (lm.embed(torch.tensor([ids], dtype=torch.long))[0] for ids in outer)
        rows = [torch.cat([before, part.to(before), after]) for part in middle]
        lengths = torch.tensor([len(row) for row in rows], device=before.device)
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths

    def answer_tokens(self, lm: FrozenLM, text: str) -> list[int]:
        """Return the tokens of an answer without its end: in its place behind the anchor, or tokenised apart."""
        if self.anchor_tokens == "apart" or not text:
            return lm.ids(text)
        anchor, whole = self._frame(lm)[1], self._read(lm, text)[1]
        if whole[: len(anchor)] != anchor:
            raise DataError(
                f"Behind the anchor {self.anchor!r}, {lm.name} reads the answer {text[:40]!r} as one token with it. "
                "Use another anchor."
            )
        return lm.known(whole[len(anchor) :], text)

    def answer(self, lm: FrozenLM, text: str) -> list[int]:
        """Tokenize an answer with its end token. Raises ``DataError`` if it is empty or over the limit."""
        ids = self.answer_tokens(lm, text)
        if not ids:
            raise DataError(f"The answer {text!r} has no tokens under {lm.name}. Leave such examples out.")
        if len(ids) + 1 > self.answer_limit:
            raise DataError(
                f"The answer {text[:40]!r} has {len(ids)} tokens under {lm.name} and its end, but answer_limit is "
                f"{self.answer_limit}. Raise it, or set long_texts to drop."
            )
        return [*ids, lm.end]

    def labels(self, lm: FrozenLM, answers: Sequence[Sequence[int]]) -> Labels:
        """Return inputs and targets of a batch of answers, each with its end token.

        Under ``once`` the context's last token predicts the answer's first. Under ``twice`` the caller shifts inputs
        and labels, and the model's own loss shifts them again. Every position then learns the token after the next,
        and no position learns the first.
        """
        longest = max(map(len, answers))
        left = self.padding == "left_unmasked"
        rows, real = [], []
        for ids in answers:
            fill, mark = [lm.pad] * (longest - len(ids)), [False] * (longest - len(ids))
            rows.append(fill + list(ids) if left else list(ids) + fill)
            real.append(mark + [True] * len(ids) if left else [True] * len(ids) + mark)
        y_bl, real_bl = (torch.tensor(x, device=lm.device) for x in (rows, real))
        skipped = 1 if self.label_shift == "twice" else 0
        targets, is_pad = y_bl[:, skipped:], ~real_bl[:, skipped:]
        # Masked by position, not by id: if the end token pads, masking its id would leave stopping untaught.
        counted = torch.ones_like(is_pad) if left else ~is_pad
        first = torch.tensor([ids[0] for ids in answers], device=lm.device)
        return Labels(y_bl[:, :-1], torch.arange(targets.shape[1], device=lm.device), targets, counted, is_pad, first)

"""Compose the input of a reader: [prefix M][anchor][BOS by policy][answer tokens][end].

Teacher forcing, first-token loss, NLL and decoding all use this composer, and it is saved with the weights. The two
faults of the published run are its switches: padding on the left that is trained on and attended to, and labels that
are shifted twice. Targets are addressed by position; no library is ever given ``labels``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor

from helpers.base.errors import DataError, ModelError
from helpers.studies.latentwire.arms import Padding, Shift
from helpers.studies.latentwire.lms import FrozenLM
from helpers.studies.latentwire.params import WireCell

HERE = "\u241fprefix\u241f"
"""A placeholder for the prefix while a chat template is filled in."""


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
    mode: Literal["text", "chat"] = "text"
    bos_after_anchor: bool = False
    padding: Padding = "right_masked"
    label_shift: Shift = "once"
    answer_limit: int = 32

    @classmethod
    def of(cls, p: WireCell) -> Self:
        """Return the composer of one cell."""
        s = p.switches
        frame = (p.anchor, s["anchor_mode"], s["bos_after_anchor"])
        return cls(*frame, s["padding"], s["label_shift"], p.answer_limit)

    def as_json(self) -> dict[str, Any]:
        """Return what is saved with the weights; ``Composer(**saved)`` reads it back."""
        return asdict(self)

    def aligned(self, shift: Shift = "once") -> Composer:
        """Return this policy with right-padded, masked answers, as NLL is always measured."""
        return Composer(self.anchor, self.mode, self.bos_after_anchor, "right_masked", shift, self.answer_limit)

    def frame(self, lm: FrozenLM, *, latent: bool) -> Frame:
        """Return the tokens around the prefix (``latent``) or a text. A text begins with BOS if the reader has one.

        BOS after the anchor is a policy for latents only, and has no effect on a reader without BOS.
        """
        bos = [lm.bos] if lm.bos is not None else []
        if self.mode == "chat":
            before, after = self._chat(lm)
            return Frame(before, after + (bos if latent and self.bos_after_anchor else []))
        anchor = lm.ids(self.anchor)
        if latent:
            return Frame([], anchor + (bos if self.bos_after_anchor else []))
        return Frame(bos, anchor)

    def _chat(self, lm: FrozenLM) -> tuple[list[int], list[int]]:
        if not getattr(lm.tokenizer, "chat_template", None):
            raise ModelError(f"anchor_mode is chat, but {lm.name} has no chat template. Use anchor_mode text.")
        turn = [{"role": "user", "content": HERE}]
        filled = str(lm.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
        before, _, after = filled.partition(HERE)
        return lm.ids(before), lm.ids(after + self.anchor)

    def contexts(self, lm: FrozenLM, middle: Sequence[Tensor] | Tensor, *, latent: bool) -> tuple[Tensor, Tensor]:
        """Embed frame and middle parts [m, D]; return them right-padded with zeros [B, C, D], and their lengths [B]."""
        frame = self.frame(lm, latent=latent)
        before, after = (lm.embed(torch.tensor([ids], dtype=torch.long))[0] for ids in (frame.before, frame.after))
        rows = [torch.cat([before, part.to(before), after]) for part in middle]
        lengths = torch.tensor([len(row) for row in rows], device=before.device)
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths

    def answer(self, lm: FrozenLM, text: str) -> list[int]:
        """Tokenize an answer with its end token. Raises ``DataError`` if it is empty or over the limit."""
        ids = lm.ids(text)
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

"""The one place that says what stands where: [prefix M][anchor][BOS by policy][answer tokens][end].

Teacher forcing, first-token loss, NLL and decoding all ask this composer, and it is saved with the weights. The two
faults of the published run are its switches: padding on the left that is trained on and attended to, and labels that
are shifted twice. Targets are addressed by position; no library is ever handed ``labels``.
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
"""Stands for the prefix while a chat template is filled in."""


@dataclass(frozen=True)
class Frame:
    """Token ids before and behind the part that carries the information."""

    before: list[int]
    after: list[int]


@dataclass(frozen=True)
class Labels:
    """Answers of a batch. ``inputs`` [B, L] are fed behind the context; the logits ``at`` [S] places behind the
    context's last token (0 is that token itself) are compared with ``targets`` [B, S] where ``counted`` [B, S].
    ``is_pad`` [B, S] says which targets are padding, ``first`` [B] is each answer's first token.
    """

    inputs: Tensor
    at: Tensor
    targets: Tensor
    counted: Tensor
    is_pad: Tensor
    first: Tensor


@dataclass(frozen=True)
class Composer:
    """The policy of one run; `aligned` is the same with right-padded, masked answers and labels shifted once."""

    anchor: str = "Answer: "
    mode: Literal["text", "chat"] = "text"
    bos_after_anchor: bool = False
    padding: Padding = "right_masked"
    label_shift: Shift = "once"
    answer_limit: int = 32

    @classmethod
    def of(cls, p: WireCell) -> Self:
        """The composer of one cell."""
        s = p.switches
        frame = (p.anchor, s["anchor_mode"], s["bos_after_anchor"])
        return cls(*frame, s["padding"], s["label_shift"], p.answer_limit)

    def as_json(self) -> dict[str, Any]:
        """What is saved with the weights; ``Composer(**saved)`` reads it back."""
        return asdict(self)

    def aligned(self, shift: Shift = "once") -> Composer:
        """This frame with masked padding: how NLL is measured, whatever was trained."""
        return Composer(self.anchor, self.mode, self.bos_after_anchor, "right_masked", shift, self.answer_limit)

    def frame(self, lm: FrozenLM, *, latent: bool) -> Frame:
        """What surrounds the prefix (``latent``) or a text. A text begins with BOS where the reader has one.

        BOS behind the anchor is a policy for latents alone, and none for a reader without BOS.
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
            raise ModelError(f"anchor_mode is chat, but {lm.name} has no chat template: use anchor_mode text.")
        turn = [{"role": "user", "content": HERE}]
        filled = lm.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        before, _, after = filled.partition(HERE)
        return lm.ids(before), lm.ids(after + self.anchor)

    def contexts(self, lm: FrozenLM, middle: Sequence[Tensor] | Tensor, *, latent: bool) -> tuple[Tensor, Tensor]:
        """Embeddings [B, C, D] of frame and middle parts [m, D], right-padded with zeros, and their lengths [B]."""
        frame = self.frame(lm, latent=latent)
        before, after = (lm.embed(torch.tensor([ids], dtype=torch.long))[0] for ids in (frame.before, frame.after))
        rows = [torch.cat([before, part.to(before), after]) for part in middle]
        lengths = torch.tensor([len(row) for row in rows], device=before.device)
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths

    def answer(self, lm: FrozenLM, text: str) -> list[int]:
        """Tokens of an answer with the end token; ``DataError`` when it is empty or longer than the limit."""
        ids = lm.ids(text)
        if not ids:
            raise DataError(f"The answer {text!r} has no tokens under {lm.name}: leave such examples out.")
        if len(ids) + 1 > self.answer_limit:
            raise DataError(
                f"The answer {text[:40]!r} has {len(ids)} tokens under {lm.name} and its end, but answer_limit is "
                f"{self.answer_limit}: raise it, or set long_texts to drop."
            )
        return [*ids, lm.end]

    def labels(self, lm: FrozenLM, answers: Sequence[Sequence[int]]) -> Labels:
        """What is fed and what is compared for a batch of answers (each with its end token).

        Under ``once`` the context's last token predicts the answer's first. Under ``twice`` inputs and labels were
        sliced apart by the caller and then shifted again by the model's own loss, so that every position is trained
        on the token after the next, and the first is nobody's target.
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
        # Masked by position and not by id: where end of sequence pads, masking its id would unteach stopping.
        counted = torch.ones_like(is_pad) if left else ~is_pad
        first = torch.tensor([ids[0] for ids in answers], device=lm.device)
        return Labels(y_bl[:, :-1], torch.arange(targets.shape[1], device=lm.device), targets, counted, is_pad, first)

"""Whether a reader computes batches of embeddings as its own forward computes each row alone; tried at its first use.

Contexts and answers are laid right-padded for training, and left-padded for decoding. Both are compared, the first with
the gradient that reaches a prefix.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from helpers.base.errors import ModelError
from helpers.lm import exact
from helpers.lm.exact_training import Rows, settle_training
from helpers.lm.modes import evaluating
from helpers.lm.packed import nll
from helpers.studies.latentwire.compose import Composer
from helpers.studies.latentwire.decode import Decoding, decode
from helpers.studies.latentwire.lms import FrozenLM
from helpers.studies.latentwire.losses import teacher_logits, token_nll

PREFIX, STEPS = 3, 3
"""Tokens that stand for a prefix, and steps of decoding that are tried."""


def settle_reader(lm: FrozenLM) -> None:
    """Raise ``ModelError`` where ``lm`` reads a batch otherwise than each of its rows; kept as ``settle_training``."""
    moved = torch.zeros(lm.width, device=lm.device, requires_grad=True)

    def laid(rows: Rows) -> list[Tensor]:
        return [lm.embed(torch.tensor(list(row[:PREFIX]))) + moved for row in rows]

    def ours(rows: Rows, _: Sequence[Sequence[int]]) -> Tensor:
        labels = Composer().labels(lm, [list(row[PREFIX:]) for row in rows])
        lengths = torch.full((len(rows),), PREFIX, device=lm.device)
        return token_nll(teacher_logits(lm, torch.stack(laid(rows)), lengths, labels), labels.targets)[
            labels.counted
        ].mean()

    def own(rows: Rows) -> Tensor:
        losses = []
        for row, prefix in zip(rows, laid(rows), strict=True):
            answer = torch.tensor(list(row[PREFIX:]))
            whole = torch.cat([prefix, lm.embed(answer)])[None].to(lm.decoder.dtype)
            losses.append(nll(lm.model(inputs_embeds=whole, use_cache=False).logits[0, PREFIX - 1 : -1], answer))
        return torch.cat(losses).mean()

    if settle_training(lm.model, "reader", ours, own, [moved]):
        _refuse_other_decoding(lm)


def _refuse_other_decoding(lm: FrozenLM) -> None:
    rows = exact.try_rows(lm.model)[:2]
    tolerance = exact.TOLERANCE.get(lm.decoder.dtype, exact.TOLERANCE[torch.float32])
    with evaluating(lm.model), torch.no_grad():
        context = torch.nn.utils.rnn.pad_sequence([lm.embed(torch.tensor(row)) for row in rows], batch_first=True)
        lengths = torch.tensor([len(row) for row in rows], device=lm.device)
        for row, one in zip(rows, decode(lm, context, lengths, Decoding(STEPS), seed=0, keys="ab"), strict=True):
            for step, token in enumerate(one.tokens):
                tokens = torch.tensor([[*row, *one.tokens[:step]]], device=lm.device)
                logits = lm.model(input_ids=tokens, use_cache=False).logits[0, -1].float()
                if logits[token] < logits.max() - 10 * tolerance:
                    raise ModelError(
                        f"{lm.name} decodes a padded batch otherwise than each row alone, so no channel could be "
                        "measured. Use another reader."
                    )

"""Losses from logits, in one place, with what they are made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from helpers.lm.packed import nll
from helpers.studies.latentwire.compose import Labels
from helpers.studies.latentwire.lms import FrozenLM


def teacher_logits(lm: FrozenLM, context_bcd: Tensor, lengths_b: Tensor, labels: Labels) -> Tensor:
    """fp32 logits [B, S, V] at the positions that ``labels`` compares, the answers' tokens fed behind the contexts.

    Rows are right-padded and causal, so that what stands behind a row cannot reach it and no mask is needed. Padding
    inside the answers (on the left) is fed like any token: attending to it is the fault that it reproduces.
    """
    fed_bld = lm.embed(labels.inputs).to(context_bcd)
    batch, _, width = context_bcd.shape
    row = torch.arange(batch, device=context_bcd.device)[:, None]
    laid = torch.cat([context_bcd, context_bcd.new_zeros(batch, fed_bld.shape[1], width)], dim=1)
    places = lengths_b[:, None] + torch.arange(fed_bld.shape[1], device=row.device)
    laid = laid.index_put((row, places), fed_bld)
    hidden = lm.hidden(laid, use_cache=False).last_hidden_state
    return lm.head(hidden[row, lengths_b[:, None] - 1 + labels.at]).float()


def token_nll(logits_bsv: Tensor, targets_bs: Tensor) -> Tensor:
    """Negative log-likelihood [B, S] in nats of each target under its logits."""
    return nll(logits_bsv.flatten(0, 1), targets_bs.flatten()).view(targets_bs.shape)


@dataclass(frozen=True)
class Parts:
    """A mean over counted positions, taken apart: ``loss`` = p_real NLL_real + p_pad NLL_pad, exactly.

    ``real`` and ``pad`` are the two weighted summands (tensors that carry gradients); shares are of the positions.
    """

    real: Tensor
    pad: Tensor
    p_pad: float

    @property
    def loss(self) -> Tensor:
        """The masked cross-entropy."""
        return self.real + self.pad

    @property
    def nll_real(self) -> float:
        """Mean NLL over counted answer tokens."""
        return (self.real / (1 - self.p_pad)).item()

    @property
    def nll_pad(self) -> float | None:
        """Mean NLL over counted padding; None without any."""
        return (self.pad / self.p_pad).item() if self.p_pad else None


def parts(nll_bs: Tensor, labels: Labels) -> Parts:
    """The cross-entropy of a batch as the sum of what its answer tokens and what its padding contribute."""
    total = labels.counted.sum()
    pad = labels.counted & labels.is_pad
    zero = nll_bs.new_zeros(())
    real_sum = torch.where(labels.counted & ~labels.is_pad, nll_bs, zero).sum()
    return Parts(real_sum / total, torch.where(pad, nll_bs, zero).sum() / total, (pad.sum() / total).item())


def first_token_ce(logits_bsv: Tensor, labels: Labels) -> Tensor:
    """Mean NLL in nats of each answer's first token behind the context, whatever the padding and the shift are."""
    return nll(logits_bsv[:, 0], labels.first).mean()


def scale_penalty(scale: Tensor) -> Tensor:
    """(scale - 1)^2 of an adapter."""
    return (scale - 1).square()

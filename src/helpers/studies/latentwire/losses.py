"""Losses from logits, and their parts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from helpers.lm.packed import nll
from helpers.studies.latentwire.compose import Labels
from helpers.studies.latentwire.lms import FrozenLM
from helpers.studies.latentwire.opening import Opening


def teacher_logits(
    lm: FrozenLM, context_bcd: Tensor, lengths_b: Tensor, labels: Labels, opening: Opening | None = None
) -> Tensor:
    """Feed answers after their contexts; return fp32 logits [B, S, V] at the positions that ``labels`` compares.

    Rows are right-padded and causal, so padding after a row cannot reach it and no mask is needed. Padding inside the
    answers (on the left) is fed like any token: attending to it is the fault to reproduce. ``opening``: what the
    reader has read before all contexts.
    """
    fed_bld = lm.embed(labels.inputs).to(context_bcd)
    batch, _, width = context_bcd.shape
    row = torch.arange(batch, device=context_bcd.device)[:, None]
    laid = torch.cat([context_bcd, context_bcd.new_zeros(batch, fed_bld.shape[1], width)], dim=1)
    places = lengths_b[:, None] + torch.arange(fed_bld.shape[1], device=row.device)
    laid = laid.index_put((row, places), fed_bld)
    read = {"past_key_values": opening.repeated(batch), "use_cache": True} if opening else {"use_cache": False}
    hidden = lm.hidden(laid, **read).last_hidden_state
    return lm.head(hidden[row, lengths_b[:, None] - 1 + labels.at]).float()


def token_nll(logits_bsv: Tensor, targets_bs: Tensor) -> Tensor:
    """Return the negative log-likelihood [B, S] in nats of each target under its logits."""
    return nll(logits_bsv.flatten(0, 1), targets_bs.flatten()).view(targets_bs.shape)


@dataclass(frozen=True)
class Parts:
    """The parts of a mean over counted positions: ``loss`` = p_real NLL_real + p_pad NLL_pad, exactly.

    ``real`` and ``pad`` are the two weighted summands (tensors that carry gradients); p_pad is a share of positions.
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
        """The mean NLL over counted answer tokens."""
        return (self.real / (1 - self.p_pad)).item()

    @property
    def nll_pad(self) -> float | None:
        """The mean NLL over counted padding; None if there is none."""
        return (self.pad / self.p_pad).item() if self.p_pad else None


def parts(nll_bs: Tensor, labels: Labels) -> Parts:
    """Split the cross-entropy of a batch into the parts of its answer tokens and of its padding."""
    total = labels.counted.sum()
    pad = labels.counted & labels.is_pad
    zero = nll_bs.new_zeros(())
    real_sum = torch.where(labels.counted & ~labels.is_pad, nll_bs, zero).sum()
    return Parts(real_sum / total, torch.where(pad, nll_bs, zero).sum() / total, (pad.sum() / total).item())


def first_token_ce(logits_bsv: Tensor, labels: Labels) -> Tensor:
    """Return the mean NLL in nats of each answer's first token after the context, whatever padding and shift are."""
    return nll(logits_bsv[:, 0], labels.first).mean()


def scale_penalty(scale: Tensor) -> Tensor:
    """Return (scale - 1)^2 of an adapter."""
    return (scale - 1).square()

"""What every training here shares: AdamW, a rate for each step, a clipped gradient, a loss that must be finite.

1. The caller computes a loss, checks it (`check_finite`) and calls ``backward`` on it, or sets the gradients itself.
2. `Descent.clip` scales the gradient down to the norm allowed.
3. `Descent.step` moves the weights at the rate of this step and clears the gradients.

AdamW is Loshchilov and Hutter's (1711.05101), the schedule that of ``transformers.get_cosine_schedule_with_warmup``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from helpers.base.errors import ModelError


class Descent:
    """AdamW (epsilon 1e-8) over ``parameters``; gradients are clipped to the norm ``clip``."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float,
        clip: float = math.inf,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
    ):
        self.parameters, self.limit = list(parameters), clip
        self.optimizer = torch.optim.AdamW(self.parameters, lr=lr, betas=betas, eps=1e-8, weight_decay=weight_decay)

    def clip(self) -> Tensor:
        """Scale the gradients down to the norm allowed; return their norm before that."""
        return nn.utils.clip_grad_norm_(self.parameters, self.limit)

    def step(self, lr: float) -> None:
        """Move the weights along their gradients at the rate ``lr``, and clear the gradients."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def warmup_cosine(step: int, steps: int, lr: float, warmup: float, *, opens_at_zero: bool = True) -> float:
    """Return the learning rate of 0-based ``step`` out of ``steps``: linear over the warm-up share, then half a cosine.

    As in transformers the first step of a warm-up has rate 0; with ``opens_at_zero=False`` the rise is a step ahead.
    """
    rise = math.ceil(warmup * steps)
    if step < rise:
        return lr * (step if opens_at_zero else step + 1) / rise
    return lr * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def not_finite(loss: float, step: int, lr: float) -> str:
    """Return the sentence about a loss that is not finite; ``step`` counts from 1."""
    return f"The loss of step {step} is {loss}. Lower lr (now {lr}) and run again."


def check_finite(loss: float, step: int, lr: float) -> None:
    """Raise ``ModelError`` where the loss of ``step`` (from 1) is not finite."""
    if not math.isfinite(loss):
        raise ModelError(not_finite(loss, step, lr))

"""Keep the equilibrium settled: the Jacobian penalty, the controller of its weight, and the parameter average."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from helpers.base.errors import ParameterError
from helpers.studies.eqprop.model import EquilibriumTransformer


def jacobian_penalty(
    model: EquilibriumTransformer, z_btc: Tensor, x_btc: Tensor, probe_btc: Tensor
) -> tuple[float, dict[str, Tensor]]:
    """Estimate |dB/dz|_F^2 / (t c) with one Hutchinson probe per sequence, B = A + M, and its parameter gradient.

    Bai, Koltun & Kolter 2021 (arXiv:2106.14342, eq. 4). The branches are penalised, not F, because the leak -(1 + c)
    makes the relaxation settle and must not shrink. z is held fixed, as in the paper.
    """
    with torch.enable_grad():
        z = z_btc.detach().requires_grad_()
        (product,) = torch.autograd.grad(model.branches(z), z, probe_btc, create_graph=True)
        penalty = product.square().mean()
        own = dict(model.named_parameters())
        slopes = torch.autograd.grad(penalty, list(own.values()), allow_unused=True)
    # Embedding and head do not enter the branches.
    gradients = {
        name: torch.zeros_like(value) if slope is None else slope
        for (name, value), slope in zip(own.items(), slopes, strict=True)
    }
    return penalty.item(), gradients


@dataclass(frozen=True)
class Controller:
    """lambda <- clip(lambda exp(kappa clip(log(residual / target), -1, 1)), floor, ceiling).

    kappa .05 is slow enough to follow the residual; .2 makes lambda swing between its bounds. ``ceiling`` 0 turns the
    penalty off.
    """

    target: float = 1.5e-3
    floor: float = 0.1
    ceiling: float = 8.0
    kappa: float = 0.05

    def __post_init__(self) -> None:
        if self.target <= 0 or self.kappa < 0:
            raise ParameterError(
                f"target is {self.target} and kappa {self.kappa}. Give a target above 0, kappa from 0."
            )
        if min(self.floor, self.ceiling) < 0 or (self.ceiling and self.floor > self.ceiling):
            raise ParameterError(f"The penalty's floor {self.floor} must lie between 0 and its ceiling {self.ceiling}.")

    def next(self, weight: float, residual: float | None) -> float:
        """Return the weight after one step. A residual that is not finite counts as far above the target."""
        if self.ceiling == 0 or residual is None:
            return 0.0
        push = 1.0 if not math.isfinite(residual) else -1.0
        if math.isfinite(residual) and residual > 0:
            push = max(-1.0, min(1.0, math.log(residual / self.target)))
        return min(self.ceiling, max(self.floor, weight * math.exp(self.kappa * push)))


class Average:
    """Exponential moving average of parameters without start-up bias. Decay 0 gives the last values."""

    def __init__(self, parameters: dict[str, Tensor], decay: float):
        if not 0 <= decay < 1:
            raise ParameterError(f"The decay of the parameter average is {decay}. Give 0 (off) to below 1.")
        self.decay, self.updates = decay, 0
        self.sums = {name: torch.zeros_like(value) for name, value in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: dict[str, Tensor]) -> None:
        """Add the parameters of one more step."""
        self.updates += 1
        for name, value in parameters.items():
            self.sums[name].lerp_(value, 1 - self.decay)

    def values(self) -> dict[str, Tensor]:
        """Return the averaged parameters."""
        scale = 1 - self.decay**self.updates
        return {name: value / scale for name, value in self.sums.items()}

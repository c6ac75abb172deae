"""The nudged phases of equilibrium propagation, and the adjoint read out from them.

At a fixed point z0 of F, the phase with nudge s beta (s on the unit circle) settles where
F(z) - s beta g(z) - (J - J^T)(z - z0) = 0. To first order J (z - z0) cancels and J^T (z - z0) = s beta g is left, so
a = -(z - z0) / (s beta) solves J^T a = -g: the adjoint, although F is no gradient field (Scurria et al., 2602.03670).
Without the correction (Scellier et al. 2018, 1808.04873) the answer belongs to J instead of J^T, at any beta.
N phases at the N-th roots of unity leave an error O(beta^N) (Laborieux & Zenke 2022, 2209.00530).

Lock-in detection needs one phase and no settled end of it: the nudge swings as beta cos(w k), and the adjoint is read
out as the part of z that swings with it, over whole periods. What stands still or drifts slowly is left out. A mode
that settles in more steps than a period lags behind, which costs O(w^2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from helpers.base.errors import ParameterError
from helpers.studies.eqprop.jacobian import Jacobian
from helpers.studies.eqprop.model import EquilibriumTransformer

Variant = Literal["frozen", "tracking", "vector_field", "lock_in"]
VARIANTS = ("frozen", "tracking", "vector_field", "lock_in")
PERIODS = 3
"""Of a nudge that swings, the first of which is not read out."""


@dataclass(frozen=True)
class Nudge:
    """The settings of the nudged phases.

    ``variant``: J at z0 (frozen), at the moving common mode (tracking), no correction (vector_field), or J at z0 and
    one phase whose nudge swings (lock_in), for which ``phases``, ``select`` and ``navg`` keep their defaults.
    ``select`` reads out where the adjoint changes least, instead of at the last step. ``navg`` averages the adjoint
    over the last steps before the readout. ``beta`` is a nudge per token, because g is the slope of the token sum.
    """

    variant: Variant = "frozen"
    phases: int = 2
    beta: float = 0.02
    steps: int = 30
    select: bool = False
    navg: int = 1

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ParameterError(f"The variant {self.variant!r} does not exist: choose one of {', '.join(VARIANTS)}.")
        if self.phases < 2 or self.phases % 2:
            raise ParameterError(f"N is {self.phases}: the phases come in opposite pairs, give an even number from 2.")
        if not math.isfinite(self.beta) or self.beta <= 0:
            raise ParameterError(f"beta is {self.beta}: without a nudge there is no gradient, give a number above 0.")
        if self.steps < 1:
            raise ParameterError(f"The nudged phase has {self.steps} steps (T2). Give 1 or more.")
        if not 1 <= self.navg <= self.steps:
            raise ParameterError(f"navg is {self.navg}. Average over 1 to T2 = {self.steps} steps.")
        if self.variant == "lock_in" and (self.phases != 2 or self.select or self.navg > 1):
            raise ParameterError("lock_in has one phase and one readout. Leave phases, select and navg out.")
        if self.variant == "lock_in" and self.steps < 3 * PERIODS:
            raise ParameterError(f"lock_in swings {PERIODS} times, and T2 is {self.steps}. Give {3 * PERIODS} or more.")


class Phases:
    """The states [p, b, t, c] of the phases: real for N = 2, otherwise the upper half of the circle.

    The lower half is the complex conjugate of the upper, so it enters by a weight of 2 and costs nothing.
    """

    def __init__(self, z0_btc: Tensor, nudge: Nudge):
        n = nudge.phases
        half = n // 2 + 1
        angles = [2 * math.pi * k / n for k in range(half)]
        dtype = z0_btc.dtype if n == 2 else z0_btc.dtype.to_complex()
        roots = [complex(round(math.cos(a), 15), round(math.sin(a), 15)) for a in angles]
        root = torch.tensor(roots, dtype=torch.complex128, device=z0_btc.device)[:, None, None, None]
        self.root = (root.real if n == 2 else root).to(dtype)
        weight = torch.tensor([1.0 if k in (0, n // 2) else 2.0 for k in range(half)], device=z0_btc.device)
        self.weight = (weight / n).to(z0_btc.dtype)[:, None, None, None]
        self.z = z0_btc.to(dtype).expand(half, *z0_btc.shape).clone()
        self.beta = nudge.beta

    def adjoint(self) -> Tensor:
        """Return a = -(1 / N beta) sum_k z_k / s_k, for N = 2 the difference of the two phases over -2 beta."""
        return -(self.weight * _real(self.z * self.root.conj())).sum(0) / self.beta

    def common(self) -> Tensor:
        """Return the mean of all phases, around which they spread."""
        return (self.weight * _real(self.z)).sum(0)


@dataclass(frozen=True)
class Readout:
    """Adjoint and state [b, t, c] at the readout, its step, and the adjoint's change in that step."""

    adjoint: Tensor
    state: Tensor
    step: int
    change: float


@torch.no_grad()
def nudged_phases(
    model: EquilibriumTransformer, x_btc: Tensor, z0_btc: Tensor, targets_bt: Tensor, nudge: Nudge, eps: float
) -> Readout:
    """Run the nudged phases from ``z0_btc`` and read the adjoint out, finite or not."""
    if nudge.variant == "lock_in":
        return _locked_in(model, x_btc, z0_btc, targets_bt, nudge, eps)
    phases = Phases(z0_btc, nudge)
    correction = Correction(model, x_btc, z0_btc, phases, nudge.variant)
    recent: list[Tensor] = []
    best: Readout | None = None
    last = torch.zeros_like(z0_btc)
    for step in range(1, nudge.steps + 1):
        z = phases.z
        pull = model.field(z, x_btc) - phases.root * nudge.beta * model.loss_slope(z, targets_bt)
        phases.z = z + eps * (pull - correction(z))
        adjoint = phases.adjoint()
        change = float((adjoint - last).norm() / adjoint.norm())
        recent = [*recent[-(nudge.navg - 1) :], adjoint] if nudge.navg > 1 else [adjoint]
        last = adjoint
        if step == nudge.steps or (nudge.select and (best is None or change < best.change)):
            readout = Readout(torch.stack(recent).mean(0), _readout_state(phases, z0_btc, nudge), step, change)
            best = readout if best is None or not nudge.select or change < best.change else best
    assert best is not None  # the last step always reads out
    return best


def _locked_in(
    model: EquilibriumTransformer, x_btc: Tensor, z0_btc: Tensor, targets_bt: Tensor, nudge: Nudge, eps: float
) -> Readout:
    """Swing the nudge of one phase, and return what of the state swings with it. ``change``: between two periods."""
    period = nudge.steps // PERIODS
    jacobian, z = Jacobian(model, z0_btc, x_btc), z0_btc
    seen = [torch.zeros_like(z0_btc) for _ in range(PERIODS)]
    # Steps that do not fill a period are taken before the others, so that the nudge is at its peak when one begins.
    for step in range(-(nudge.steps % PERIODS), PERIODS * period):
        swing = math.cos(2 * math.pi * step / period)
        pull = model.field(z, x_btc) - swing * nudge.beta * model.loss_slope(z, targets_bt)
        z = z + eps * (pull - jacobian.antisymmetric(z - z0_btc))
        if step >= 0:
            seen[step // period] -= math.cos(2 * math.pi * (step + 1) / period) * (z - z0_btc)
    adjoints = [2 / (nudge.beta * period) * one for one in seen[1:]]
    adjoint = torch.stack(adjoints).mean(0)
    change = float((adjoints[-1] - adjoints[0]).norm() / adjoint.norm())
    return Readout(adjoint, z0_btc, nudge.steps, change)


class Correction:
    """(J - J^T)(z - centre) for all phases. J stays at z0, or is computed at the common mode in every step."""

    def __init__(self, model: EquilibriumTransformer, x_btc: Tensor, z0_btc: Tensor, phases: Phases, variant: Variant):
        self.model, self.phases, self.variant = model, phases, variant
        self.parts = phases.z.shape[0] * (2 if phases.z.is_complex() else 1)
        self.x = x_btc.expand(self.parts, *x_btc.shape).flatten(0, 1)
        self.centre = z0_btc
        self.frozen = self._at(z0_btc) if variant == "frozen" else None

    def __call__(self, z: Tensor) -> Tensor | float:
        if self.variant == "vector_field":
            return 0.0
        if self.variant == "tracking":
            self.centre = self.phases.common()
        jacobian = self.frozen or self._at(self.centre)
        offset = z - self.centre
        parts = torch.stack([offset.real, offset.imag]) if z.is_complex() else offset
        turned = jacobian.antisymmetric(parts.reshape(self.x.shape)).reshape(parts.shape)
        return torch.complex(turned[0], turned[1]) if z.is_complex() else turned

    def _at(self, centre_btc: Tensor) -> Jacobian:
        return Jacobian(self.model, centre_btc.expand(self.parts, *centre_btc.shape).flatten(0, 1), self.x)


def _readout_state(phases: Phases, z0_btc: Tensor, nudge: Nudge) -> Tensor:
    return phases.common() if nudge.variant == "tracking" else z0_btc


def _real(z: Tensor) -> Tensor:
    return z.real if z.is_complex() else z

"""All gradients behind one switch: ``estimate(model, tokens, targets, Gradient("ep", ...))``.

    bptt      unroll ``steps`` relaxation steps and differentiate through them
    ift       implicit function theorem: solve J^T u = -g at the relaxed state
    ep        equilibrium propagation: u is read out from nudged phases (see `nudge`)
    backprop  plain backprop, for the baseline transformer

From an adjoint u the gradient of the mean loss is that of CE(z*) + <u, F(z*)> / tokens at fixed z*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from helpers.base.errors import ParameterError, nearest
from helpers.studies.eqprop.jacobian import solve_adjoint
from helpers.studies.eqprop.model import Block, EquilibriumTransformer
from helpers.studies.eqprop.nudge import Nudge, nudged_phases

Kind = Literal["bptt", "ift", "ep", "backprop"]
KINDS = ("bptt", "ift", "ep", "backprop")


@dataclass(frozen=True)
class Gradient:
    """A kind of gradient and its settings. ``steps`` are the free steps T1 (the K of bptt), ``eps`` the step size."""

    kind: Kind = "ep"
    steps: int = 60
    eps: float = 0.5
    nudge: Nudge = field(default_factory=Nudge)
    tolerance: float = 1e-14
    limit: int = 2000

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ParameterError(f"The gradient {self.kind!r} does not exist{nearest(self.kind, KINDS)}.")
        if self.steps < 1:
            raise ParameterError(f"The free phase has {self.steps} steps (T1). Give 1 or more.")
        if not math.isfinite(self.eps) or self.eps <= 0:
            raise ParameterError(f"eps is {self.eps}. Give a step size above 0.")

    @property
    def name(self) -> str:
        """A short name for tables, such as ``bptt-150``, ``ift-400`` or ``ep-frozen-20+30-n2``."""
        if self.kind != "ep":
            return self.kind if self.kind == "backprop" else f"{self.kind}-{self.steps}"
        n = self.nudge
        extra = ("-select" if n.select else "") + (f"-navg{n.navg}" if n.navg > 1 else "")
        return f"ep-{n.variant}-{self.steps}+{n.steps}-n{n.phases}{extra}"

    def with_nudge(self, **changes: Any) -> Gradient:
        """Return a copy with other nudge settings."""
        return replace(self, nudge=replace(self.nudge, **changes))


@dataclass(frozen=True)
class Estimate:
    """A gradient of the mean token loss, by parameter name, and how well its assumptions held.

    ``residual`` is |F(z)| / |z| at the free state (None for backprop), ``residual_max`` its largest value over
    sequences, and ``miss`` the relative residual of the solved adjoint (ift) or its last change (ep).
    """

    gradients: dict[str, Tensor]
    loss: float
    residual: float | None
    residual_max: float | None
    miss: float | None = None
    adjoint: Tensor | None = None
    state: Tensor | None = None

    @property
    def finite(self) -> bool:
        """Whether the gradient's norm is finite. Finite numbers can still be too large to clip."""
        return bool(torch.isfinite(torch.nn.utils.get_total_norm(list(self.gradients.values()))))

    def valid(self, gate: float) -> bool:
        """Return whether a trainer may use it: finite, and the free state settled to ``gate`` (0: any)."""
        settled = self.residual is None or (math.isfinite(self.residual) and (gate == 0 or self.residual <= gate))
        return settled and self.finite


def estimate(model: Block, tokens_bt: Tensor, targets_bt: Tensor, how: Gradient) -> Estimate:
    """Estimate the gradient of the mean cross-entropy (nats a token) with respect to every parameter of ``model``."""
    if (how.kind == "backprop") == isinstance(model, EquilibriumTransformer):
        raise ParameterError(f"The gradient {how.kind!r} does not apply to a {type(model).__name__}. Choose another.")
    if not isinstance(model, EquilibriumTransformer):
        loss = model.token_loss(model.settle(model.embed(tokens_bt), how.steps, how.eps), targets_bt).mean()
        return Estimate(_slopes(loss, model), loss.item(), None, None)
    model.check_step(how.eps)
    if how.kind == "bptt":
        return _unrolled(model, tokens_bt, targets_bt, how)
    return _from_adjoint(model, tokens_bt, targets_bt, how)


def _unrolled(model: EquilibriumTransformer, tokens_bt: Tensor, targets_bt: Tensor, how: Gradient) -> Estimate:
    x = model.embed(tokens_bt)
    z = model.relax(x, how.steps, how.eps)
    loss = model.token_loss(z, targets_bt).mean()
    return Estimate(_slopes(loss, model), loss.item(), *model.residual(z.detach(), x.detach()), state=z.detach())


def _from_adjoint(model: EquilibriumTransformer, tokens_bt: Tensor, targets_bt: Tensor, how: Gradient) -> Estimate:
    with torch.no_grad():
        x = model.embed(tokens_bt)
        z = model.relax(x, how.steps, how.eps)
        settled = model.residual(z, x)
        free_loss = model.token_loss(z, targets_bt).mean().item()
    if how.kind == "ift":
        slope = model.loss_slope(z, targets_bt).detach()
        adjoint, miss = solve_adjoint(model, z, x, slope, how.eps, how.tolerance, how.limit)
        state = z
    else:
        read = nudged_phases(model, x, z, targets_bt, how.nudge, how.eps)
        adjoint, state, miss = read.adjoint, read.state, read.change
    gradients = readout(model, tokens_bt, targets_bt, state, adjoint)
    return Estimate(gradients, free_loss, *settled, miss=miss, adjoint=adjoint, state=state)


def readout(
    model: EquilibriumTransformer, tokens_bt: Tensor, targets_bt: Tensor, z_btc: Tensor, adjoint_btc: Tensor
) -> dict[str, Tensor]:
    """Return the gradient of CE(z) + <a, F(z)> / tokens with respect to the parameters, at fixed z and a."""
    z = z_btc.detach()
    work = (adjoint_btc.detach() * model.field(z, model.embed(tokens_bt))).sum() / targets_bt.numel()
    return _slopes(model.token_loss(z, targets_bt).mean() + work, model)


def _slopes(loss: Tensor, model: Block) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def cosine(a: Tensor, b: Tensor) -> float:
    """Return the cosine of two flat vectors; NaN if one is zero or not finite and so has no direction."""
    scale = float(a.norm() * b.norm())
    return float(a @ b) / scale if scale > 0 and math.isfinite(scale) else math.nan

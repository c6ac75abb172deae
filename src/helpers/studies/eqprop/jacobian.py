"""Products with the Jacobian J = dF/dz and its transpose at a state, and quantities computed from them."""

from __future__ import annotations

import torch
from torch import Tensor

from helpers.base.rng import torch_stream
from helpers.studies.eqprop.model import EquilibriumTransformer

DIVERGED = 1e12


class Jacobian:
    """J at ``z_btc``. Products are exact, and all share one graph.

    ``v`` may have extra leading axes (phases, real and imaginary part) if the state was repeated over them. J v is the
    slope of the linear map w -> J^T w, hence a backward pass through the backward pass.
    """

    def __init__(self, model: EquilibriumTransformer, z_btc: Tensor, x_btc: Tensor):
        with torch.enable_grad():
            self._z = z_btc.detach().requires_grad_()
            self._field = model.field(self._z, x_btc.detach())
            self._w = torch.zeros_like(self._field, requires_grad=True)
            (self._back,) = torch.autograd.grad(self._field, self._z, self._w, create_graph=True)

    def times(self, v: Tensor) -> Tensor:
        """Return J v."""
        (product,) = torch.autograd.grad(self._back, self._w, v, retain_graph=True)
        return product

    def transposed(self, v: Tensor) -> Tensor:
        """Return J^T v."""
        (product,) = torch.autograd.grad(self._field, self._z, v, retain_graph=True)
        return product

    def antisymmetric(self, v: Tensor) -> Tensor:
        """Return (J - J^T) v."""
        return self.times(v) - self.transposed(v)


def solve_adjoint(
    model: EquilibriumTransformer,
    z_btc: Tensor,
    x_btc: Tensor,
    slope_btc: Tensor,
    eps: float,
    tolerance: float,
    limit: int,
) -> tuple[Tensor, float]:
    """Solve J^T u = -g by u <- u + eps (J^T u + g); return u and its relative residual.

    The iteration converges exactly if the growth factor is below 1. If it has not after ``limit`` steps, the last
    iterate is returned, and the caller judges its residual.
    """
    jacobian = Jacobian(model, z_btc, x_btc)
    u, scale, relative = torch.zeros_like(slope_btc), float(slope_btc.norm()), 1.0
    for _ in range(limit):
        miss = jacobian.transposed(u) + slope_btc
        relative = float(miss.norm()) / scale
        if not tolerance < relative < DIVERGED:
            break
        u = u + eps * miss
    return u, relative


def growth_factors(
    model: EquilibriumTransformer, z_btc: Tensor, x_btc: Tensor, eps: float, steps: int, seed: int = 0
) -> Tensor:
    """Return the spectral radius of I + eps J^T of every sequence [b], by power iteration.

    Above 1 the nudged phase linearised at ``z_btc`` diverges, below 1 it settles. J is far from normal, so norms grow
    at first whatever the spectrum is. The result is the mean growth per step over the second half of the steps.
    """
    jacobian = Jacobian(model, z_btc, x_btc)
    v = _probe(z_btc, seed, "growth")
    rates = []
    for step in range(steps):
        v = v + eps * jacobian.transposed(v)
        norm = v.flatten(1).norm(dim=1)
        v = v / norm[:, None, None]
        if step >= steps // 2:
            rates.append(norm.double().log())
    return torch.stack(rates).mean(0).exp()


def growth_factor(
    model: EquilibriumTransformer, z_btc: Tensor, x_btc: Tensor, eps: float, steps: int, seed: int = 0
) -> float:
    """Return the largest growth factor over the sequences of a batch."""
    return float(growth_factors(model, z_btc, x_btc, eps, steps, seed).max())


def non_normality(model: EquilibriumTransformer, z_btc: Tensor, x_btc: Tensor, seed: int = 0) -> float:
    """Return |J v - J^T v| / |J v| for a random v: what the antisymmetric correction has to remove."""
    jacobian = Jacobian(model, z_btc, x_btc)
    v = _probe(z_btc, seed, "non-normality")
    forward = jacobian.times(v)
    return float((forward - jacobian.transposed(v)).norm() / forward.norm())


def _probe(like: Tensor, seed: int, name: str) -> Tensor:
    v = torch.randn(like.shape, generator=torch_stream(seed, name), dtype=torch.float64)
    return v.to(like.device, like.dtype)

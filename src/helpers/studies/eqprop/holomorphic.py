"""The operations of the model for real and for complex states.

Holomorphic equilibrium propagation (Laborieux & Zenke 2022, arXiv:2209.00530) relaxes the model at complex nudges, so
every operation must be the analytic continuation of the real one: no modulus, no conjugate, no comparison of values.
Real states take torch's fused kernels; complex ones the same formula written out. Complex states are never
differentiated: forward passes are enough.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

EPS = 1e-5
GELU_SCALE, GELU_CUBIC = 0.7978845608028654, 0.044715


def linear(z: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``z W^T + b`` with real weights."""
    if not z.is_complex():
        return functional.linear(z, weight, bias)
    return torch.complex(functional.linear(z.real, weight, bias), functional.linear(z.imag, weight))


def layer_norm(z: Tensor) -> Tensor:
    """Apply layer norm over the last axis, without gain or offset, which the next weights can absorb."""
    if not z.is_complex():
        return functional.layer_norm(z, z.shape[-1:], eps=EPS)
    centred = z - z.mean(-1, keepdim=True)
    return centred / ((centred * centred).mean(-1, keepdim=True) + EPS).sqrt()


def rms_norm(z: Tensor) -> Tensor:
    """Divide by the root mean square of the last axis."""
    return z * ((z * z).mean(-1, keepdim=True) + EPS).rsqrt()


def causal_softmax(scores: Tensor, blocked: Tensor) -> Tensor:
    """Apply softmax over the last axis, where ``blocked`` [T, T] is True for positions that must not be seen."""
    if not scores.is_complex():
        return torch.softmax(scores.masked_fill(blocked, float("-inf")), dim=-1)
    # Softmax ignores a common shift, so subtracting a real number keeps it analytic and keeps exp from overflowing.
    shift = scores.real.masked_fill(blocked, float("-inf")).amax(-1, keepdim=True)
    weights = (scores - shift).exp().masked_fill(blocked, 0)
    return weights / weights.sum(-1, keepdim=True)


def softmax(logits: Tensor) -> Tensor:
    """Apply softmax over the last axis."""
    if not logits.is_complex():
        return torch.softmax(logits, dim=-1)
    weights = (logits - logits.real.amax(-1, keepdim=True)).exp()
    return weights / weights.sum(-1, keepdim=True)


def gelu(z: Tensor) -> Tensor:
    """Apply GELU in its tanh form, which unlike erf extends to complex numbers with torch's own functions."""
    if not z.is_complex():
        return functional.gelu(z, approximate="tanh")
    return 0.5 * z * (1 + torch.tanh(GELU_SCALE * (z + GELU_CUBIC * z * z * z)))

"""The equilibrium transformer and its gradients, in float64 at the prototype's size (15.5k parameters)."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch

from helpers.base.errors import ModelError, ParameterError
from helpers.base.rng import torch_stream
from helpers.studies.eqprop import holomorphic as holo
from helpers.studies.eqprop.gradients import Gradient, cosine, estimate
from helpers.studies.eqprop.jacobian import Jacobian, growth_factor, non_normality
from helpers.studies.eqprop.model import BackpropTransformer, EquilibriumTransformer, ModelConfig, group_vectors
from helpers.studies.eqprop.nudge import Nudge

pytestmark = pytest.mark.unit


@functools.cache
def grown(scale: float = 4.0) -> EquilibriumTransformer:
    """A model whose branches are ``scale`` times what they are at initialisation, as training makes them."""
    torch.set_num_threads(1)
    model = EquilibriumTransformer(ModelConfig(), seed=0, dtype=torch.float64)
    with torch.no_grad():
        for name in ("w_o", "w_2"):
            getattr(model, name).mul_(scale)
        model.w_h.mul_(2)
    return model


@functools.cache
def batch(size: int = 2, context: int = 20):
    rows = torch.randint(0, 32, (size, context + 1), generator=torch_stream(0, "test batch"))
    return rows[:, :-1], rows[:, 1:]


@functools.cache
def flat(how: Gradient, scale: float = 4.0) -> torch.Tensor:
    return group_vectors(estimate(grown(scale), *batch(), how).gradients)["all"]


def error(how: Gradient) -> float:
    exact = flat(Gradient("ift", steps=400))
    return float((flat(how) - exact).norm() / exact.norm())


def slope(betas, errors) -> float:
    return float(np.polyfit(np.log(betas), np.log(errors), 1)[0])


def test_the_prototype_has_15520_parameters():
    assert grown().count == 15520


def test_bptt_20_is_ift_at_initialisation():
    bptt, ift = flat(Gradient("bptt", steps=20), 1.0), flat(Gradient("ift", steps=60), 1.0)
    assert (bptt - ift).norm() / ift.norm() < 1e-10


def test_bptt_400_is_ift_where_branches_have_grown():
    assert error(Gradient("bptt", steps=400)) < 1e-9


def test_jacobian_and_its_transpose_are_adjoint():
    model, (tokens, _) = grown(), batch()
    x = model.embed(tokens).detach()
    z = model.relax(x, 10).detach()
    u, v = (torch.randn(x.shape, generator=torch_stream(0, name), dtype=x.dtype) for name in "uv")
    jacobian = Jacobian(model, z, x)
    left, right = (u * jacobian.times(v)).sum(), (jacobian.transposed(u) * v).sum()
    assert abs(left - right) / abs(left) < 1e-12
    h = 1e-6
    difference = (model.field(z + h * v, x) - model.field(z - h * v, x)) / (2 * h)
    assert (difference - jacobian.times(v)).norm() / difference.norm() < 1e-8


@pytest.mark.parametrize("variant", ["frozen", "tracking"])
def test_two_phases_agree_with_ift_and_err_by_beta_squared(variant):
    betas = (0.05, 0.025)
    ways = [Gradient("ep", steps=200, nudge=Nudge(variant, 2, beta, 100)) for beta in betas]
    assert cosine(flat(ways[0]), flat(Gradient("ift", steps=400))) >= 0.9999
    assert 1.9 <= slope(betas, [error(way) for way in ways]) <= 2.1


def test_four_phases_err_by_the_fourth_power():
    betas = (0.2, 0.1)
    errors = [error(Gradient("ep", steps=200, nudge=Nudge("frozen", 4, beta, 80))) for beta in betas]
    assert 3.7 <= slope(betas, errors) <= 4.3


def test_six_phases_beat_four():
    four, six = (error(Gradient("ep", steps=200, nudge=Nudge("frozen", n, 0.2, 60))) for n in (4, 6))
    assert six < four / 3


def test_the_vector_field_error_does_not_shrink_with_beta():
    big, small = (error(Gradient("ep", steps=200, nudge=Nudge("vector_field", 2, beta, 100))) for beta in (0.1, 0.0125))
    assert small > 0.1 and small > 0.95 * big


def test_ift_is_the_slope_of_the_relaxed_loss():
    model, (tokens, targets) = grown(), batch()
    gradients = estimate(model, tokens, targets, Gradient("ift", steps=400)).gradients
    h = 1e-4
    for name, value in model.named_parameters():
        direction = torch.randn(value.shape, generator=torch_stream(0, "direction", name), dtype=value.dtype)
        losses = []
        for sign in (1, -1):
            with torch.no_grad():
                value.add_(direction, alpha=sign * h)
                z = model.relax(model.embed(tokens), 150)
                losses.append(float(model.token_loss(z, targets).mean()))
                value.add_(direction, alpha=-sign * h)
        measured = (losses[0] - losses[1]) / (2 * h)
        assert measured == pytest.approx(float((gradients[name] * direction).sum()), rel=1e-5, abs=1e-9), name


def test_no_position_sees_a_later_one():
    model, (tokens, _) = grown(), batch()
    with torch.no_grad():
        x = model.embed(tokens)
        moved = x.clone()
        moved[:, 12] += torch.randn(x.shape[-1], generator=torch_stream(0, "bump"), dtype=x.dtype)
        change = (model.relax(moved, 100) - model.relax(x, 100)).abs().amax((0, 2))
    assert change[:12].max() < 1e-12
    assert change[12:].min() > 1e-6, "a perturbation that later positions do not see either would be vacuous"


def test_power_iteration_finds_the_spectral_radius():
    """J is block-triangular in time, so its eigenvalues are those of the blocks of single positions."""
    model, (tokens, _) = grown(), batch(1, 12)
    x = model.embed(tokens).detach()
    z = model.relax(x, 15).detach()
    full = torch.autograd.functional.jacobian(lambda s: model.field(s[None], x)[0], z[0])
    largest = max(
        float(torch.linalg.eigvals(torch.eye(32, dtype=x.dtype) + 0.5 * full[t, :, t]).abs().max()) for t in range(12)
    )
    assert growth_factor(model, z, x, 0.5, steps=400) == pytest.approx(largest, rel=0.02)


def test_a_gradient_field_would_need_no_correction():
    model, (tokens, _) = grown(), batch()
    x = model.embed(tokens).detach()
    assert non_normality(model, x, x) > 0.1
    with torch.no_grad():
        leaky = EquilibriumTransformer(ModelConfig(resinit=0.0), dtype=torch.float64)
    assert non_normality(leaky, x, x) < 1e-12


def test_the_complex_model_continues_the_real_one():
    model, (tokens, targets) = grown(), batch()
    x = model.embed(tokens).detach()
    z = model.relax(x, 10).detach()
    v = torch.randn(x.shape, generator=torch_stream(0, "v"), dtype=x.dtype)
    with torch.no_grad():
        on_axis = model.field(z.to(torch.complex128), x)
        assert (on_axis - model.field(z, x)).abs().max() < 1e-12
        slope_there = model.loss_slope(z.to(torch.complex128), targets)
        assert (slope_there - model.loss_slope(z, targets)).abs().max() < 1e-12
        h = 1e-6
        upwards = model.field(torch.complex(z, h * v), x).imag / h
    assert (upwards - Jacobian(model, z, x).times(v)).norm() / upwards.norm() < 1e-9


def test_loss_slope_is_the_slope_of_the_token_sum():
    model, (tokens, targets) = grown(), batch()
    z = model.embed(tokens).detach().requires_grad_()
    (expected,) = torch.autograd.grad(model.token_loss(z, targets).sum(), z)
    assert (expected - model.loss_slope(z, targets)).abs().max() < 1e-12


def test_softmax_of_large_complex_scores_is_finite():
    scores = torch.tensor([[1000.0 + 1j, 999.0, -1000.0]], dtype=torch.complex128)
    assert torch.isfinite(holo.softmax(scores).abs()).all()
    assert holo.softmax(scores).sum().real == pytest.approx(1)


def test_navg_and_selection_agree_where_the_phase_settles():
    plain, averaged, selected = (
        flat(Gradient("ep", steps=200, nudge=Nudge("frozen", 2, 0.02, 60, select, navg)))
        for select, navg in ((False, 1), (False, 5), (True, 1))
    )
    assert cosine(plain, averaged) > 0.99999 and cosine(plain, selected) > 0.99999
    # What selection returns is the adjoint of the chosen step, not of the last one.
    early = estimate(grown(), *batch(), Gradient("ep", steps=200, nudge=Nudge("frozen", 2, 0.02, 1, True)))
    assert early.miss == pytest.approx(1.0)


def test_an_adjoint_that_diverges_is_reported_not_raised():
    model = grown(40.0)
    found = estimate(model, *batch(), Gradient("ep", steps=5, nudge=Nudge("frozen", 2, 0.05, 1200)))
    assert not found.finite and not found.valid(0)
    stuck = estimate(model, *batch(), Gradient("ift", steps=5, limit=500))
    assert stuck.miss > 1e-6


def test_the_baseline_has_the_same_parameters_and_a_plain_gradient():
    baseline = BackpropTransformer(ModelConfig(), seed=0, dtype=torch.float64)
    assert baseline.count == grown().count
    found = estimate(baseline, *batch(), Gradient("backprop"))
    assert found.residual is None and found.valid(1e-9) and found.loss == pytest.approx(math.log(32), rel=0.3)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: Nudge(beta=0.0), "beta is 0.0"),
        (lambda: Nudge(beta=float("nan")), "beta is nan"),
        (lambda: Nudge(phases=1), "N is 1"),
        (lambda: Nudge(phases=3), "N is 3"),
        (lambda: Nudge(variant="frosen"), "frozen"),
        (lambda: Nudge(steps=0), "T2"),
        (lambda: Nudge(navg=31), "navg is 31"),
        (lambda: Gradient(steps=0), "T1"),
        (lambda: Gradient(eps=0), "eps is 0"),
        (lambda: Gradient("bqtt"), "did you mean 'bptt'"),
        (lambda: estimate(grown(), *batch(), Gradient("bptt", eps=1.0)), r"eps \(1 \+ c\) is 2"),
        (lambda: estimate(grown(), *batch(), Gradient("backprop")), "does not apply"),
        (lambda: ModelConfig(heads=5), "heads 5"),
        (lambda: ModelConfig(width=0), "width is 0"),
        (lambda: ModelConfig(leak=-1), "leak is -1"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, words):
    with pytest.raises(ParameterError, match=words):
        wrong()


def test_input_that_does_not_fit_the_model_is_refused():
    with pytest.raises(ModelError, match="context is 32"):
        grown().embed(torch.zeros(1, 33, dtype=torch.long))
    with pytest.raises(ModelError, match="vocabulary of 32"):
        grown().embed(torch.full((1, 4), 32))

"""Measurements on a checkpoint. Every function takes a model and batches and returns a tidy table."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor

from helpers.base.rng import torch_stream
from helpers.studies.eqprop import arms
from helpers.studies.eqprop import holomorphic as holo
from helpers.studies.eqprop.arms import EXACT
from helpers.studies.eqprop.control import jacobian_penalty
from helpers.studies.eqprop.gradients import Estimate, Gradient, cosine, estimate
from helpers.studies.eqprop.jacobian import growth_factors, non_normality
from helpers.studies.eqprop.model import Block, EquilibriumTransformer, group_vectors
from helpers.studies.eqprop.train import token_losses

Batch = tuple[Tensor, Tensor]
SEQUENCE = ("sequence", "cosine", "ratio")


def compare(
    model: Block, batches: Sequence[Batch], exact: Gradient, others: Mapping[str, Gradient]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Compare each gradient with the exact one, and with itself on other batches.

    First table: gradient, group, batch (-1: the mean over all batches against the exact mean), cosine, ratio (of the
    norms), finite, miss (of the exact one). Second: gradient (``exact`` among them), pair, cosine. Third: gradient,
    batch, sequence, and cosine and ratio of the sequence's adjoint to the exact one, for gradients that have one. What
    is not finite has no direction: cosine and ratio are missing, and ``finite`` is False.
    """
    rows, adjoints, kept = [], [], {name: [] for name in ("exact", *others)}
    for at, batch in enumerate(batches):
        reference = estimate(model, *batch, exact)
        truth = group_vectors(reference.gradients)
        kept["exact"].append(truth)
        for name, how in others.items():
            guess = estimate(model, *batch, how)
            vectors = group_vectors(guess.gradients)
            kept[name].append(vectors)
            rows += _compared(name, at, vectors, truth, reference.miss)
            adjoints += [{"gradient": name, "batch": at} | row for row in _adjoints(guess, reference)]
    means = {name: _sums(vectors) for name, vectors in kept.items()}
    for name in others:
        rows += _compared(name, -1, means[name], means["exact"], None)
    pairs = [
        {"gradient": name, "pair": f"{i}-{j}", "cosine": number(cosine(a["all"], b["all"]))}
        for name, vectors in kept.items()
        for (i, a), (j, b) in itertools.combinations(enumerate(vectors), 2)
    ]
    pairs = pd.DataFrame(pairs, columns=["gradient", "pair", "cosine"])
    return pd.DataFrame(rows), pairs, pd.DataFrame(adjoints, columns=["gradient", "batch", *SEQUENCE])


def _sums(vectors: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {group: sum((v[group] for v in vectors), start=torch.zeros(())) for group in vectors[0]}


def _adjoints(guess: Estimate, truth: Estimate) -> list[dict]:
    """Compare each sequence's adjoint with the exact one; nothing for a gradient without an adjoint."""
    if guess.adjoint is None or truth.adjoint is None:
        return []
    pairs = zip(guess.adjoint.double().flatten(1), truth.adjoint.double().flatten(1), strict=True)
    return [
        dict(zip(SEQUENCE, (at, number(cosine(a, u)), number(float(a.norm() / u.norm()))), strict=True))
        for at, (a, u) in enumerate(pairs)
    ]


def _compared(
    name: str, batch: int, guess: dict[str, Tensor], truth: dict[str, Tensor], miss: float | None
) -> list[dict]:
    finite = bool(torch.isfinite(guess["all"]).all())
    return [
        {
            "gradient": name,
            "group": group,
            "batch": batch,
            "cosine": number(cosine(guess[group], truth[group])),
            "ratio": number(float(guess[group].norm() / truth[group].norm())),
            "finite": finite,
            "miss": miss,
        }
        for group in truth
    ]


@torch.no_grad()
def settles(model: EquilibriumTransformer, tokens: Tensor, steps: int, eps: float, tolerance: float) -> Tensor:
    """Return which sequences [b] have |F(z)| / |z| of at most ``tolerance`` after ``steps`` free steps."""
    x = model.embed(tokens)
    return model.residuals(model.relax(x, steps, eps), x) <= tolerance


def condition(
    model: EquilibriumTransformer, batches: Sequence[Batch], free_steps: Sequence[int], eps: float, growth_steps: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return residual, growth factor and non-normality after each number of free steps, by batch and by sequence.

    A batch's residual is that of all its sequences together. Its ``residual_max`` and ``growth`` are those of its worst
    sequence, which spoils the gradient of the batch.
    """
    rows, each = [], []
    for (at, (tokens, _)), steps in itertools.product(enumerate(batches), sorted(free_steps)):
        with torch.no_grad():
            x = model.embed(tokens)
            z = model.relax(x, steps, eps)
            single = model.residuals(z, x)
        growth = growth_factors(model, z, x, eps, growth_steps, seed=at)
        residual, worst = model.residual(z, x)
        where = {"batch": at, "free_steps": steps}
        row = {"residual": residual, "residual_max": worst, "growth": float(growth.max())}
        rows.append(where | row | {"non_normality": non_normality(model, z, x, seed=at)})
        pairs = enumerate(zip(single.tolist(), growth.tolist(), strict=True))
        each += [where | {"sequence": s, "residual": r, "growth": g} for s, (r, g) in pairs]
    return pd.DataFrame(rows), pd.DataFrame(each)


def descent(
    model: EquilibriumTransformer,
    batches: Sequence[Batch],
    exact: Gradient,
    others: Mapping[str, Gradient],
    rates: Sequence[float],
    free_steps: int,
    penalty: float,
    penalised: Sequence[str] = (EXACT,),
) -> pd.DataFrame:
    """Return the change of the loss by one gradient step, on the gradient's own batch, over a grid of learning rates.

    Columns gradient (``exact`` among them), batch, lr, scale, change (nats; negative is better), cosine and ratio to
    the exact gradient. ``scale``: the gradient as it is (raw), or scaled to the norm of the exact one (matched), which
    tells a wrong length from a wrong direction. Of the gradients ``penalised`` there is a second one, plus ``penalty``
    times that of the Jacobian penalty at a settled state: the step of a controlled training. The cosine of each is to
    the exact gradient without penalty.
    """
    rows = []
    check = Gradient("bptt", steps=free_steps, eps=exact.eps)
    # Losses in float32 whatever the gradients' dtype, because a step that overflows there leads nowhere.
    tried = copy.deepcopy(model).float()
    for at, batch in enumerate(batches):
        before = token_losses(tried, *batch, check).mean().item()
        slopes, gradients = _penalty_slopes(model, batch, exact, at), {}
        for name, how in {EXACT: exact, **others}.items():
            gradients[name] = estimate(model, *batch, how).gradients
            if name in penalised:
                total = {key: value + penalty * slopes[key] for key, value in gradients[name].items()}
                gradients[arms.penalised(name)] = total
        truth = group_vectors(gradients[EXACT])["all"]
        for name, gradient in gradients.items():
            flat = group_vectors(gradient)["all"]
            length = float(flat.norm() / truth.norm())
            row = {"gradient": name, "batch": at, "cosine": number(cosine(flat, truth)), "ratio": number(length)}
            for lr, (scale, factor) in itertools.product(rates, (("raw", 1.0), ("matched", 1 / length))):
                change = _loss_after(tried, gradient, lr * factor, batch, check) - before
                rows.append(row | {"lr": lr, "scale": scale, "change": number(change)})
    return pd.DataFrame(rows)


def _penalty_slopes(model: EquilibriumTransformer, batch: Batch, exact: Gradient, seed: int) -> dict[str, Tensor]:
    with torch.no_grad():
        x = model.embed(batch[0])
        z = model.relax(x, exact.steps, exact.eps)
    probe = torch.randn(x.shape, generator=torch_stream(seed, "descent penalty"), dtype=torch.float64)
    return jacobian_penalty(model, z, x, probe.to(x.device, x.dtype))[1]


@torch.no_grad()
def _loss_after(model: Block, gradient: dict[str, Tensor], lr: float, batch: Batch, check: Gradient) -> float:
    moved = copy.deepcopy(model)
    for key, value in moved.named_parameters():
        value.sub_((lr * gradient[key]).to(value.dtype))
    return token_losses(moved, *batch, check).mean().item()


def margin(
    model: EquilibriumTransformer, batch: Batch, short: int, long: int, eps: float, settled: float, growth_steps: int
) -> dict[str, float | None]:
    """Measure how far a model is from losing its equilibrium, on one batch.

    ``settled`` is the share of sequences with a residual of at most ``settled`` after ``long`` free steps, ``residual``
    that of the batch after ``short``; ``growth`` the growth factor and ``penalty`` the Jacobian penalty (one probe) at
    the state after ``long`` steps, ``growth`` that of the worst sequence; ``loss`` is after ``short`` steps (nats).
    """
    with torch.no_grad():
        x = model.embed(batch[0])
        near = model.relax(x, short, eps)
        z = model.relax(x, long - short, eps, start=near)
        share = float((model.residuals(z, x) <= settled).float().mean())
        loss = float(model.token_loss(near, batch[1]).mean())
    probe = torch.randn(x.shape, generator=torch_stream(0, "margin"), dtype=torch.float64).to(x.device, x.dtype)
    penalty, _ = jacobian_penalty(model, z, x, probe)
    growth = float(growth_factors(model, z, x, eps, growth_steps).max())
    found = {"loss": loss, "residual": model.residual(near, x)[0], "growth": growth, "penalty": penalty}
    return {"settled": share} | {name: number(value) for name, value in found.items()}


@torch.no_grad()
def branches(model: Block, batches: Sequence[Batch], how: Gradient) -> pd.DataFrame:
    """Measure the branches and their weights, entropy of attention, RMS of q and k, and spread of logits.

    Ratios are norms over the input's; entropy is the mean over heads and positions in nats. Columns: quantity, batch,
    value. The baseline's branches are measured at its input, where its first branch reads.
    """
    rows = []
    for at, (tokens, _) in enumerate(batches):
        x = model.embed(tokens)
        z = model.settle(x, how.steps, how.eps)
        n = holo.layer_norm(z if isinstance(model, EquilibriumTransformer) else x)
        weights = model.attention_weights(n)
        raw = torch.stack([holo.linear(n, w) for w in (model.w_q, model.w_k)])
        heads = holo.rms_norm(raw.unflatten(-1, (model.config.heads, -1)))
        sizes = {
            "attention / input": model.attend(n).norm() / x.norm(),
            "MLP / input": model.feed(n).norm() / x.norm(),
            "|W_O|": model.w_o.norm(),
            "|W_1|": model.w_1.norm(),
            "|W_2|": model.w_2.norm(),
            "attention entropy": -(weights * weights.clamp_min(1e-12).log()).sum(-1).mean(),
            "q, k RMS before the norm": raw.square().mean().sqrt(),
            "q, k RMS after the norm": heads.square().mean().sqrt(),
            "logit spread": model.logits(z).std(-1).mean(),
        }
        rows += [{"quantity": name, "batch": at, "value": float(value)} for name, value in sizes.items()]
    return pd.DataFrame(rows)


@torch.no_grad()
def influence(
    model: Block, batch: Batch, distances: Sequence[int], directions: int, delta: float, how: Gradient, seed: int
) -> pd.DataFrame:
    """Return |change of the last position's state| / |perturbation of the input ``distance`` tokens before it|.

    The perturbation is a random vector of length ``delta``; layer norm would remove a constant one. Columns: sequence,
    distance, direction, influence.
    """
    tokens, _ = batch
    x = model.embed(tokens)  # by the model's own, loaded weights
    base = model.settle(x, how.steps, how.eps)[:, -1]
    rows = []
    for distance, direction in itertools.product(distances, range(directions)):
        stream = torch_stream(seed, "influence", distance, direction)
        bump = torch.randn(x.shape[0], x.shape[2], generator=stream, dtype=torch.float64).to(x.device, x.dtype)
        bump = delta * bump / bump.norm(dim=1, keepdim=True)
        moved = x.clone()
        moved[:, -1 - distance] += bump
        change = (model.settle(moved, how.steps, how.eps)[:, -1] - base).norm(dim=1) / delta
        rows += [
            {"sequence": s, "distance": distance, "direction": direction, "influence": float(value)}
            for s, value in enumerate(change)
        ]
    return pd.DataFrame(rows)


@torch.no_grad()
def per_position(model: Block, batches: Sequence[Batch], how: Gradient) -> pd.DataFrame:
    """Return the mean loss at each position (nats), by batch."""
    rows = []
    for at, batch in enumerate(batches):
        losses = token_losses(model, *batch, how).mean(0)
        rows += [{"batch": at, "position": t, "loss": float(loss)} for t, loss in enumerate(losses)]
    return pd.DataFrame(rows)


def mean_loss(model: Block, batch: Batch, steps: int, eps: float) -> float:
    """Return the mean loss of a batch (nats a token) after ``steps`` free steps."""
    return token_losses(model, *batch, Gradient("bptt", steps=steps, eps=eps)).mean().item()


def number(value: float) -> float | None:
    """Return ``value``, or None if it is not finite."""
    return value if math.isfinite(value) else None

"""Whether a training step gives the loss and the gradient of the model's own forward; tried at a model's first use.

1. A few short rows go through ``model(input_ids)`` one by one. The loss is the mean NLL of their tokens.
2. The same loss is computed as the training does it, and both are differentiated by the weights that train. All
   modules are in train mode, but nothing is dropped, because no two ways draw the same masks.
3. Where loss or gradient differ by more than rounding, rows are padded, or computed one by one, while training.

What was found is cached on disk by the model's content, the packages and this code.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm.auto import tqdm

from helpers.base.errors import ModelError
from helpers.lm import exact
from helpers.lm.exact import ways_of
from helpers.lm.modes import in_fp32, training
from helpers.lm.parts import base_of
from helpers.lm.ways import ORDER, Ways

GRADIENT = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.03}
"""Largest distance of two gradients, as a share of the own one's norm, by dtype; of losses, that of log-probs."""

_TRIED = "claimbook_trainings"

Rows = Sequence[Sequence[int]]
Loss = Callable[[Rows, Sequence[Sequence[int]]], Tensor]
"""From rows and the positions that carry loss to the mean NLL in nats."""


def settle_training(
    model: nn.Module,
    kind: str,
    ours: Loss,
    own: Callable[[Rows], Tensor] | None = None,
    weights: Sequence[Tensor] | None = None,
) -> bool:
    """Find out how rows of ``model`` are computed in trainings of this ``kind`` (one of ``ways.TRAININGS``).

    It is tried at the first call, and kept with the model; returned is whether it was tried now. ``ours`` is the loss
    as the training computes it, ``own`` that of the model's own forward (`own_loss`), ``weights`` what trains (by
    default what of the model requires gradients). Raises ``ModelError`` where no way gives the same.
    """
    base = base_of(model)
    tried = vars(base).setdefault(_TRIED, set())
    weights = [weight for weight in model.parameters() if weight.requires_grad] if weights is None else list(weights)
    if kind in tried or not weights:
        return False
    kept = exact.read_training(base, kind)
    ways = kept or _find(model, weights, ours, own or (lambda rows: own_loss(model, rows)))
    if ways is None:
        return True
    before = ways_of(base)
    if before.training is not None and ORDER.index(before.training) > ORDER.index(ways.training or before.rows):
        ways = replace(ways, training=before.training, why_training=before.why_training)
    exact.keep_training(base, kind, ways)
    tried.add(kind)
    if ways.why_training and ways.rows == "packed":
        tqdm.write(f"{type(base).__name__}: rows: {ways}", file=sys.stderr)
    return kept is None


def own_loss(model: nn.Module, rows: Rows) -> Tensor:
    """Return the mean NLL in nats of all tokens but the first of ``rows``, each alone in the model's own forward."""
    device = next(model.parameters()).device
    whole: Any = model
    logits = [whole(input_ids=torch.tensor([list(row)], device=device), use_cache=False).logits[0] for row in rows]
    wanted = torch.tensor([token for row in rows for token in row[1:]], device=device)
    return functional.cross_entropy(torch.cat([one[:-1] for one in logits]).float(), wanted)


def _find(model: nn.Module, weights: Sequence[Tensor], ours: Loss, own: Callable[[Rows], Tensor]) -> Ways | None:
    """Compare the ways of computing rows, from that of the forward on, with the model's own forward.

    ``None`` where the own loss is not finite, because the training itself will say so, with its step.
    """
    base, why = base_of(model), ""
    ways = ways_of(base)
    tried = exact.try_rows(base)
    rows = [row[: ways.limit] for row in (*tried[:2], *tried[4:])]  # two that begin alike, and a long one
    targets = [range(1, len(row)) for row in rows]
    with _calm(model), in_fp32(base), torch.random.fork_rng(), torch.enable_grad():
        wanted = _differentiated(own(rows), weights)
        if not wanted[0].isfinite():
            return None
        for way in ORDER[ORDER.index(ways.rows) :]:
            with exact.kept(base, replace(ways, training=way)):
                found = _gap(model, wanted, weights, lambda: ours(rows, targets))
            if not found:
                return replace(ways, training=way, why_training=why)
            why = why or found
    raise ModelError(f"{type(base).__name__} cannot be trained as its own forward would be: {why}. Use another model.")


def _differentiated(loss: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return a loss and its gradient as one vector."""
    parts = torch.autograd.grad(loss, weights, allow_unused=True)
    flat = [torch.zeros_like(w) if part is None else part for w, part in zip(weights, parts, strict=True)]
    return loss.detach().float(), torch.cat([part.detach().float().flatten() for part in flat])


def _gap(
    model: nn.Module, wanted: tuple[Tensor, Tensor], weights: Sequence[Tensor], compute: Callable[[], Tensor]
) -> str:
    """Return in half a sentence how the step of ``compute`` differs from ``wanted``; empty if it does not."""
    name, dtype = type(base_of(model)).__name__, next(model.parameters()).dtype
    try:
        loss, gradient = _differentiated(compute(), weights)
    except Exception as error:  # a model's code may raise anything, and then this way is not taken
        return f"{name} cannot be trained so ({type(error).__name__}: {' '.join(str(error).split())[:120]})"
    apart = float((loss - wanted[0]).abs().nan_to_num(nan=float("inf")))
    turned = float(((gradient - wanted[1]).norm() / wanted[1].norm()).nan_to_num(nan=float("inf")))
    if apart > exact.TOLERANCE.get(dtype, exact.TOLERANCE[torch.float32]):
        return f"a training step of {name} has a loss that is {apart:.3g} nats apart, more than rounding"
    if turned > GRADIENT.get(dtype, GRADIENT[torch.float32]):
        return f"a training step of {name} has a gradient that is {turned:.3g} of its norm apart, more than rounding"
    return ""


@contextlib.contextmanager
def _calm(model: nn.Module) -> Iterator[None]:
    """Put ``model`` into train mode inside the block, with every rate of dropout at zero."""
    parts = [model, *model.modules(), *(part.config for part in model.modules() if hasattr(part, "config"))]
    rates: list[tuple[Any, str, float]] = []
    for part in {id(part): part for part in parts}.values():
        names = [name for name, value in vars(part).items() if "drop" in name and isinstance(value, float)]
        names += ["p"] if isinstance(part, nn.modules.dropout._DropoutNd) else []
        rates += [(part, name, getattr(part, name)) for name in names]
    with training(model):
        try:
            for part, name, _ in rates:
                setattr(part, name, 0.0)
            yield
        finally:
            for part, name, rate in rates:
                setattr(part, name, rate)

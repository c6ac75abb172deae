"""Measure the marker's share of the supervised tokens, of the loss and of the gradient.

"Dilution" is the idea that content tokens drown the marker's gradient. The loss is a mean over S supervised tokens,
L = (1/S) sum_s nll_s, so it splits into the part of the marker's tokens and the rest, and its gradient with it:
g = g_marker + g_rest. Both parts are measured on the same rows throughout a run, without dropout.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from helpers.base.errors import DataError
from helpers.base.rng import numpy_stream
from helpers.lm.modes import evaluating
from helpers.lm.packed import logits_at, nll
from helpers.studies.marker.rows import Row, is_marker


def probe_rows(rows: Sequence[Row], count: int, seed: int) -> list[int]:
    """Return the indices of ``count`` rows with positives in their share of all rows, at least one of each kind."""
    kinds = {kind: [i for i, row in enumerate(rows) if (row.marker is not None) == kind] for kind in (True, False)}
    if not all(kinds.values()):
        raise DataError("The marker's share needs rows with and without the marker. Raise positives or negatives_each.")
    positives = min(max(1, round(count * len(kinds[True]) / len(rows))), count - 1)
    wanted = {True: positives, False: count - positives}
    chosen = [
        members[i]
        for kind, members in kinds.items()
        for i in numpy_stream(seed, "probe", str(kind)).permutation(len(members))[: wanted[kind]]
    ]
    return sorted(chosen)


def measure(model: nn.Module, rows: Sequence[Row], targets: Sequence[Sequence[int]]) -> dict[str, float]:
    """Return the marker's shares of supervised tokens, loss and gradient on ``rows``; norms and cosine.

    ``targets[r]`` are the supervised positions of row r. The gradient is with respect to the parameters that train, and
    its share is |g_marker| / (|g_marker| + |g_rest|). The two need not point the same way; ``cosine`` tells. If no
    other token is supervised, the share is 1 and there is no cosine.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    wanted = torch.tensor([row.tokens[p] for row, ps in zip(rows, targets, strict=True) for p in ps])
    marked = torch.tensor([is_marker(row, p) for row, ps in zip(rows, targets, strict=True) for p in ps])
    with evaluating(model):
        losses = nll(logits_at(model, [row.tokens for row in rows], targets), wanted)
        marked = marked.to(losses.device)
        parts = [losses[marked].sum() / len(losses), losses[~marked].sum() / len(losses)]
        grads = [_flat(torch.autograd.grad(part, parameters, retain_graph=True)) for part in parts]
    norms = [float(grad.norm()) for grad in grads]
    if sum(norms) == 0:
        raise DataError("The loss of the probed rows has no gradient. Attach an adapter that trains.")
    shares = {
        "token_share": float(marked.float().mean()),
        "loss_share": float((parts[0] / (parts[0] + parts[1])).detach()),
        "gradient_share": norms[0] / sum(norms),
        "marker_loss": float(losses[marked].detach().mean()),
        "marker_norm": norms[0],
        "rest_norm": norms[1],
    }
    return shares | ({"cosine": float(grads[0] @ grads[1]) / (norms[0] * norms[1])} if min(norms) > 0 else {})


def _flat(grads: Sequence[Tensor]) -> Tensor:
    """Return all gradients as one fp32 vector."""
    return torch.cat([grad.detach().float().flatten() for grad in grads])

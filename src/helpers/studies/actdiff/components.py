"""PCA and SVD of the difference from its streamed second moments, with or without position 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from helpers.base.errors import DataError, nearest
from helpers.studies.actdiff.statistics import GROUPS, Stats


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues [D] in falling order, as shares of the total, and eigenvectors [D, D] in rows.

    Component 0 points towards the mean difference.
    """

    share_d: Tensor
    vector_dd: Tensor
    mean_d: Tensor
    total: float

    def cosine_with_mean(self, index: int = 0) -> float:
        """Return |cos| between a component and the mean difference of the same tokens."""
        return float(torch.cosine_similarity(self.vector_dd[index], self.mean_d, dim=0).abs())


def spectrum(stats: Stats, layer: int, *, groups: Sequence[str] = tuple(GROUPS), centred: bool) -> Spectrum:
    """Compute the principal components of the difference over the tokens of ``groups`` of positions.

    ``centred`` decomposes the covariance (PCA), otherwise the second moment about zero (SVD), where a constant offset
    is itself the first component. Leave group "0" out to see past the attention sink.
    """
    for group in groups:
        if group not in GROUPS:
            raise DataError(f"There is no position group {group!r}{nearest(group, GROUPS)}.")
    moment, mean = stats.second_moment(layer, groups), stats.group_mean(layer, groups)
    if centred:
        moment = moment - torch.outer(mean, mean)
    values, vectors = torch.linalg.eigh(moment)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1).T.contiguous()
    signs = torch.sign(vectors @ mean)
    vectors = vectors * torch.where(signs == 0, 1.0, signs)[:, None]
    total = float(values.sum())
    if total == 0:
        raise DataError(
            f"The difference in layer {layer} has no variance, so it has no components. Check that the pair is two "
            "models."
        )
    return Spectrum(values / total, vectors, mean, total)


def whitened(stats: Stats, layer: int, groups: Sequence[str], shrink: float = 0.1) -> Tensor:
    """Divide the mean difference by the covariance of the difference [D]: a linear discriminant against its scatter.

    The covariance is shrunk towards its average variance by ``shrink`` (target of Ledoit & Wolf 2004, fixed weight).
    """
    moment, mean = stats.second_moment(layer, groups), stats.group_mean(layer, groups)
    covariance = moment - torch.outer(mean, mean)
    ridge = covariance.diagonal().mean() * torch.eye(len(mean), dtype=covariance.dtype)
    return torch.linalg.solve((1 - shrink) * covariance + shrink * ridge, mean)

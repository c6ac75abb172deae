"""The baseline of the streamed pass: store every activation of every document, then sum by the plainest formulas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from helpers.studies.actdiff.capture import FOLDS, layers_of
from helpers.studies.actdiff.pair import Pair, Side
from helpers.studies.actdiff.statistics import GROUPS, Stats


@dataclass(frozen=True)
class Stored:
    """All activations of a pair: h and t [L, N, P, D], mask [N, P]. The streamed pass never holds them all."""

    layers: list[int]
    h_lnpd: Tensor
    t_lnpd: Tensor
    mask_np: Tensor

    @property
    def bytes(self) -> int:
        """The bytes of the activations."""
        return self.h_lnpd.nbytes + self.t_lnpd.nbytes


def store(
    base: nn.Module, tuned: nn.Module, tokens: Sequence[Sequence[int]], layers: Sequence[int], batch_size: int = 16
) -> Stored:
    """Store every activation of every document."""
    pair, longest = Pair(base, tuned), max(map(len, tokens))

    def whole(which: Side) -> Tensor:
        with pair.side(which) as model:
            return torch.stack([_whole(model, tokens, layer, longest, batch_size) for layer in layers])

    mask = torch.tensor([[i < len(row) for i in range(longest)] for row in tokens])
    return Stored(list(layers), whole("base"), whole("tuned"), mask)


def _whole(model: nn.Module, tokens: Sequence[Sequence[int]], layer: int, longest: int, batch_size: int) -> Tensor:
    parts = layers_of(model, tokens, layer, batch_size)
    return torch.cat([torch.nn.functional.pad(part, (0, 0, 0, longest - part.shape[1])) for part in parts]).cpu()


def stats_of(stored: Stored, folds: int = FOLDS) -> Stats:
    """Compute the same sums from stored activations, in float64 and by the plainest formulas."""
    mask = stored.mask_np[..., None].double()
    h_lnpd, t_lnpd = stored.h_lnpd.double() * mask, stored.t_lnpd.double() * mask
    d_lnpd = t_lnpd - h_lnpd
    fold_n = torch.arange(len(mask)) % folds
    unit_lnpd = torch.nn.functional.normalize(d_lnpd, dim=-1)
    norms_slnp = torch.stack([x.norm(dim=-1) for x in (h_lnpd, t_lnpd, d_lnpd)])
    spans = [d_lnpd[:, :, start:stop].flatten(1, 2) for start, stop in GROUPS.values()]
    return Stats(
        layer_l=torch.tensor(stored.layers),
        count_kp=torch.stack([stored.mask_np[fold_n == k].sum(0) for k in range(folds)]),
        base_lpd=h_lnpd.sum(1),
        diff_lkpd=torch.stack([d_lnpd[:, fold_n == k].sum(1) for k in range(folds)], dim=1),
        unit_lpd=unit_lnpd.sum(1),
        norms_lsp=norms_slnp.sum(2).transpose(0, 1),
        squares_lsp=norms_slnp.square().sum(2).transpose(0, 1),
        cosines_lpp=torch.einsum("lnpd,lnqd->lpq", unit_lnpd, unit_lnpd),
        pairs_pp=(stored.mask_np.T.double() @ stored.mask_np.double()).long(),
        second_lgdd=torch.stack([flat.transpose(1, 2) @ flat for flat in spans], dim=1).float(),
    )

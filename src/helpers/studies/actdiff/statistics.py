"""The streamed sums of one pass over a pair, the source of every readout.

Shapes: L layers, K folds, P positions, D hidden size, G position groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from helpers.base.errors import DataError
from helpers.base.files import write_atomic

GROUPS = {"0": (0, 1), "1-4": (1, 5), "5+": (5, None)}
"""Position groups with separate second moments: the first token is an attention sink, the next few recover from it."""
LATER = slice(*GROUPS["5+"])


@dataclass(frozen=True)
class Stats:
    """Sums over documents, h base, t tuned, d = t - h. Norms are Euclidean, in the units of the residual stream.

    ``count_kp`` documents of fold k that reach position p; ``base_lpd`` sum h; ``diff_lkpd`` sum d by fold;
    ``unit_lpd`` sum d/|d|; ``norms_lsp`` and ``squares_lsp`` sum of |.| and |.|^2 for s = h, t, d;
    ``cosines_lpp`` sum of cos(d_p, d_q) within a document; ``pairs_pp`` documents that reach both;
    ``second_lgdd`` sum of d d^T over the tokens of each group of ``GROUPS``. float64, second moments float32.
    """

    layer_l: Tensor
    count_kp: Tensor
    base_lpd: Tensor
    diff_lkpd: Tensor
    unit_lpd: Tensor
    norms_lsp: Tensor
    squares_lsp: Tensor
    cosines_lpp: Tensor
    pairs_pp: Tensor
    second_lgdd: Tensor

    @property
    def layers(self) -> list[int]:
        """The captured layers."""
        return self.layer_l.tolist()

    @property
    def folds(self) -> int:
        """The number of document folds K."""
        return self.count_kp.shape[0]

    @property
    def positions(self) -> int:
        """The number of positions P."""
        return self.count_kp.shape[1]

    @property
    def count_p(self) -> Tensor:
        """The number of documents that reach each position, float64 [P]."""
        return self.count_kp.sum(0).double()

    @property
    def bytes(self) -> int:
        """The bytes of all sums."""
        return sum(getattr(self, field.name).nbytes for field in fields(self))

    def at(self, layer: int) -> int:
        """Return the index of ``layer``. Raises ``DataError`` if it was not captured."""
        if layer not in self.layers:
            raise DataError(f"Layer {layer} was not captured (captured: {self.layers}). Add it to layers.")
        return self.layers.index(layer)

    def check_position(self, position: int) -> int:
        """Return ``position``. Raises ``DataError`` if no document reaches it."""
        if not 0 <= position < self.positions:
            raise DataError(f"Position {position} is out of range. Choose one of 0 to {self.positions - 1}.")
        return position

    def mean_diff(self, layer: int) -> Tensor:
        """Return the mean difference [P, D]."""
        return self.diff_lkpd[self.at(layer)].sum(0) / self.count_p[:, None]

    def leave_one_out(self, layer: int) -> Tensor:
        """Return the mean difference without each fold in turn [K, P, D], for the jackknife."""
        sums_kpd = self.diff_lkpd[self.at(layer)]
        counts_kp = self.count_p - self.count_kp
        if bool((counts_kp == 0).any()):
            raise DataError("One fold holds every document that reaches some position. Capture more documents.")
        return (sums_kpd.sum(0) - sums_kpd) / counts_kp[:, :, None]

    def average_diff(self, layer: int, positions: slice = slice(None)) -> Tensor:
        """Return the mean difference over all tokens at ``positions`` [D]."""
        sums_pd = self.diff_lkpd[self.at(layer)].sum(0)[positions]
        return sums_pd.sum(0) / self.count_p[positions].sum()

    def second_moment(self, layer: int, groups: Sequence[str] = tuple(GROUPS)) -> Tensor:
        """Return the mean of d d^T over the tokens of ``groups`` [D, D], float64."""
        chosen = [list(GROUPS).index(group) for group in groups]
        total = sum(self.count_p[start:stop].sum() for start, stop in (GROUPS[group] for group in groups))
        return self.second_lgdd[self.at(layer)][chosen].double().sum(0) / total

    def group_mean(self, layer: int, groups: Sequence[str] = tuple(GROUPS)) -> Tensor:
        """Return the mean difference over the tokens of ``groups`` [D]."""
        sums_pd = self.diff_lkpd[self.at(layer)].sum(0)
        spans = [slice(*GROUPS[group]) for group in groups]
        total, count = torch.zeros((), dtype=sums_pd.dtype), torch.zeros((), dtype=torch.float64)
        for span in spans:
            total, count = total + sums_pd[span].sum(0), count + self.count_p[span].sum()
        return total / count

    def save(self, path: Path) -> None:
        """Write the sums as safetensors."""
        tensors = {field.name: getattr(self, field.name).cpu().contiguous() for field in fields(self)}
        write_atomic(path, lambda temporary: save_file(tensors, temporary))

    @classmethod
    def load(cls, path: Path) -> Stats:
        """Read sums written by ``save``."""
        with safe_open(path, framework="pt") as file:
            return cls(**{field.name: file.get_tensor(field.name) for field in fields(cls)})

    def __post_init__(self) -> None:
        if not torch.isfinite(self.squares_lsp).all():
            raise DataError("Activations are not finite in some layer. Load the models in float32.")

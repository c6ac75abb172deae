"""Norms, cosines and offset energy by position, as pure functions of ``Stats``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from helpers.base.errors import DataError
from helpers.studies.actdiff.statistics import LATER, Stats

Cosine = Literal["of means", "within documents", "across documents"]
COSINES: tuple[Cosine, ...] = ("of means", "within documents", "across documents")


def cosines(stats: Stats, layer: int, kind: Cosine) -> Tensor:
    """Return the cosine between the differences at positions p and q [P, P], by ``kind``.

    ``of means``: cos(mean d_p, mean d_q), which ignores how much documents differ. ``within documents``: mean over
    documents of cos(d_p, d_q). ``across documents``: mean of cos(d_p, d_q) over all ordered pairs of different
    documents, which only a context-independent offset makes large (a U-statistic, unbiased in the number of documents).
    """
    i = stats.at(layer)
    if kind == "of means":
        unit = torch.nn.functional.normalize(stats.mean_diff(layer), dim=-1)
        return unit @ unit.T
    if kind == "within documents":
        return stats.cosines_lpp[i] / stats.pairs_pp
    if kind != "across documents":
        raise DataError(f"There is no cosine {kind!r}. Use one of {', '.join(COSINES)}.")
    counts = stats.count_p[:, None] * stats.count_p[None, :] - stats.pairs_pp
    return (stats.unit_lpd[i] @ stats.unit_lpd[i].T - stats.cosines_lpp[i]) / counts


def cosine_table(stats: Stats, layers: Sequence[int], positions: Sequence[int]) -> pd.DataFrame:
    """Return the three cosine matrices of ``layers`` between ``positions``, as rows (layer, kind, p, q, cosine)."""
    chosen, frames = list(positions), []
    for layer in layers:
        for kind in COSINES:
            matrix = cosines(stats, layer, kind)[chosen][:, chosen].float().numpy()
            p, q = (np.asarray(chosen)[index.ravel()] for index in np.indices(matrix.shape))
            frames.append(pd.DataFrame({"layer": layer, "kind": kind, "p": p, "q": q, "cosine": matrix.ravel()}))
    return pd.concat(frames, ignore_index=True)


def offset_energy(stats: Stats, layer: int, *, unbiased: bool = True) -> Tensor:
    """Return E(p) = |mean d|^2 / mean |d|^2 [P]: the share of the difference's energy in one constant vector.

    |mean d|^2 contains 1/n of the scatter too. ``unbiased`` removes it, (n E - 1) / (n - 1), so that pure scatter gives
    0 on average.
    """
    n = stats.count_p
    plain = stats.mean_diff(layer).square().sum(-1) / (stats.squares_lsp[stats.at(layer), 2] / n)
    return (n * plain - 1) / (n - 1) if unbiased else plain


def pooled_offset_energy(stats: Stats, layer: int, positions: slice) -> float:
    """Return the mean over ``positions`` of the unbiased offset energy."""
    return float(offset_energy(stats, layer)[positions].mean())


def mean_cosine(matrix_pp: Tensor) -> float:
    """Return the mean over all pairs of different positions."""
    off = ~torch.eye(len(matrix_pp), dtype=torch.bool)
    return float(matrix_pp[off].mean())


def position_table(stats: Stats) -> pd.DataFrame:
    """Return by layer and position: documents, mean |h base|, |h tuned| and |d|, offset energy, ``cosine_later``.

    The latter is the cosine of the mean difference with that over positions 5+.
    """
    frames = []
    for layer in stats.layers:
        h, t, d = (stats.norms_lsp[stats.at(layer)] / stats.count_p).numpy()
        later = stats.average_diff(layer, LATER)
        cosine = torch.cosine_similarity(stats.mean_diff(layer), later[None], dim=-1)
        values = {"base": h, "tuned": t, "diff": d, "energy": offset_energy(stats, layer), "cosine_later": cosine}
        frames.append(pd.DataFrame({"layer": layer, "position": range(stats.positions), **values}))
    table = pd.concat(frames, ignore_index=True)
    documents = stats.count_kp.sum(0).tolist() * len(stats.layers)
    return table.astype(dict.fromkeys(table.columns[2:], "float32")).assign(documents=documents)


def offset(stats: Stats, layer: int) -> dict[str, dict[str, float]]:
    """Return means over positions ``"0"`` and ``"5+"`` of ``layer``: offset energy, |h base|, |d| and three cosines.

    The cosines are with the (other) positions 5+.
    """
    if stats.positions < 7:
        raise DataError(f"{stats.positions} positions are too few to compare position 0 with 5+. Capture at least 7.")
    energy, means_sp = offset_energy(stats, layer), stats.norms_lsp[stats.at(layer)] / stats.count_p
    later_s, matrices = means_sp[:, LATER].mean(1), [cosines(stats, layer, kind) for kind in COSINES]
    rows = {
        "0": (energy[0], means_sp[0, 0], means_sp[2, 0], *(matrix[0, LATER].mean() for matrix in matrices)),
        "5+": (energy[LATER].mean(), later_s[0], later_s[2], *(mean_cosine(m[LATER, LATER]) for m in matrices)),
    }
    names = ("energy", "base", "difference", *COSINES)
    return {group: dict(zip(names, map(float, values), strict=True)) for group, values in rows.items()}

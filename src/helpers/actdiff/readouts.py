"""Norms, cosines and offset energy by position: pure functions of ``Stats``, as tidy tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import pandas as pd
import torch
from scipy import stats as distributions
from torch import Tensor

from helpers.actdiff.statistics import Stats
from helpers.errors import DataError
from helpers.stats import Interval

Cosine = Literal["of means", "within documents", "across documents"]
COSINES: tuple[Cosine, ...] = ("of means", "within documents", "across documents")


def norms_by_position(stats: Stats) -> pd.DataFrame:
    """Mean |h base|, |h tuned| and |d| by layer and position, with |d| / |h base| (``share``)."""
    means_lsp = stats.norms_lsp / stats.count_p
    frames = [
        pd.DataFrame(
            {"layer": layer, "position": range(stats.positions), "base": h, "tuned": t, "diff": d, "share": d / h}
        )
        for layer, (h, t, d) in zip(stats.layers, means_lsp.numpy(), strict=True)
    ]
    return pd.concat(frames, ignore_index=True)


def sink_ratio(stats: Stats, layer: int) -> dict[str, float]:
    """Mean norm at position 0 over the mean at positions 5+, of the base activation and of the difference."""
    means_sp = stats.norms_lsp[stats.at(layer)] / stats.count_p
    if stats.positions < 6:
        raise DataError(f"{stats.positions} positions are too few to compare position 0 with 5+: capture at least 6.")
    later = means_sp[:, 5:].mean(1)
    return {"base": float(means_sp[0, 0] / later[0]), "diff": float(means_sp[2, 0] / later[2])}


def cosines(stats: Stats, layer: int, kind: Cosine) -> Tensor:
    """Cosine of the difference at position p with that at q [P, P], by ``kind``.

    ``of means``: cos(mean d_p, mean d_q), blind to how much documents differ. ``within documents``: mean over documents
    of cos(d_p, d_q). ``across documents``: mean of cos(d_p, d_q) over all ordered pairs of two different documents, the
    one that only a context-independent offset makes large (a U-statistic: no bias from the number of documents).
    """
    i = stats.at(layer)
    if kind == "of means":
        unit = torch.nn.functional.normalize(stats.mean_diff(layer), dim=-1)
        return unit @ unit.T
    if kind == "within documents":
        return stats.cosines_lpp[i] / stats.pairs_pp
    if kind != "across documents":
        raise DataError(f"There is no cosine {kind!r}: give one of {', '.join(COSINES)}.")
    counts = stats.count_p[:, None] * stats.count_p[None, :] - stats.pairs_pp
    return (stats.unit_lpd[i] @ stats.unit_lpd[i].T - stats.cosines_lpp[i]) / counts


def cosine_table(stats: Stats, layers: Sequence[int], positions: Sequence[int]) -> pd.DataFrame:
    """The three cosine matrices of ``layers`` between ``positions``, as rows (layer, kind, p, q, cosine float32)."""
    chosen, frames = list(positions), []
    for layer in layers:
        for kind in COSINES:
            matrix = cosines(stats, layer, kind)[chosen][:, chosen].float().numpy()
            p, q = (np.asarray(chosen)[index.ravel()] for index in np.indices(matrix.shape))
            frames.append(pd.DataFrame({"layer": layer, "kind": kind, "p": p, "q": q, "cosine": matrix.ravel()}))
    return pd.concat(frames, ignore_index=True)


def offset_energy(stats: Stats, layer: int, *, unbiased: bool = True) -> Tensor:
    """E(p) = |mean d|^2 / mean |d|^2 [P]: the share of the difference's energy that is one constant vector.

    As it stands |mean d|^2 holds 1/n of the scatter too; ``unbiased`` takes it out, (n E - 1) / (n - 1), so that pure
    scatter gives 0 on average.
    """
    n = stats.count_p
    plain = stats.mean_diff(layer).square().sum(-1) / (stats.squares_lsp[stats.at(layer), 2] / n)
    return (n * plain - 1) / (n - 1) if unbiased else plain


def pooled_offset_energy(stats: Stats, layer: int, positions: slice) -> float:
    """Mean over ``positions`` of the unbiased share of energy that is the constant vector of the position."""
    return float(offset_energy(stats, layer)[positions].mean())


def context_independence(stats: Stats, layer: int, positions: slice) -> float:
    """Mean cosine across documents between all pairs of different ``positions``; 1 is one direction everywhere."""
    matrix = cosines(stats, layer, "across documents")[positions, positions]
    off = ~torch.eye(len(matrix), dtype=torch.bool)
    return float(matrix[off].mean())


def position_table(stats: Stats) -> pd.DataFrame:
    """Norms, offset energy and cosine with the mean difference of positions 5+, by layer and position."""
    table = norms_by_position(stats)
    energy, plain, direction = [], [], []
    for layer in stats.layers:
        energy += offset_energy(stats, layer).tolist()
        plain += offset_energy(stats, layer, unbiased=False).tolist()
        later = stats.average_diff(layer, slice(5, None))
        direction += torch.cosine_similarity(stats.mean_diff(layer), later[None], dim=-1).tolist()
    table = table.assign(energy=energy, energy_plain=plain, cosine_later=direction)
    return table.astype(dict.fromkeys(table.columns[2:], "float32"))


def jackknife(whole: float, without: Sequence[float], unit_n: int, level: float = 0.95) -> Interval:
    """Interval of a statistic from its values with each fold left out (delete-a-group jackknife, Student t).

    Variance (K-1)/K sum (x_k - mean)^2 on K - 1 degrees of freedom (Kott 2001, Journal of Official Statistics 17:521).
    It speaks for other documents of the same kind, not for other trainings. ``unit_n`` is the number of documents.
    """
    values = np.asarray(without, dtype=float)
    folds = len(values)
    if folds < 2:
        raise DataError(f"A jackknife needs 2 folds or more and got {folds}: capture with folds=2 or more.")
    error = math.sqrt((folds - 1) / folds * float(((values - values.mean()) ** 2).sum()))
    half = error * float(distributions.t.ppf((1 + level) / 2, folds - 1))
    return Interval(whole, whole - half, whole + half, unit_n, None, "jackknife", level, {"folds": folds})


def of_mean_diff(stats: Stats, layer: int, position: int, score: Callable[[Tensor], float]) -> Interval:
    """``score(mean difference [D])`` at one position, with its jackknife interval over document folds."""
    stats.check_position(position)
    without = [score(mean_pd[position]) for mean_pd in stats.leave_one_out(layer)]
    documents = int(stats.count_p[position])
    return jackknife(score(stats.mean_diff(layer)[position]), without, documents)

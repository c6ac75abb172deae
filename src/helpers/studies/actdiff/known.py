"""What the base model gives on texts that the cells of a grid share, computed once in a session and kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from helpers.studies.actdiff.capture import BATCH, padded, run_layers
from helpers.studies.actdiff.pair import Pair
from helpers.studies.actdiff.tune import Documents, document_losses

MOST = 1 << 29
"""Bytes of activations that are kept. Where they are more, each cell computes them again."""

States = Callable[[int], Mapping[int, Tensor]]
"""The base model's activations [B, T, D] by layer of the batch that begins at a document."""


@dataclass
class Known:
    """Losses of every text that was asked for, and the activations of the last one."""

    most: int = MOST
    _losses: dict[tuple[tuple[int, ...], ...], list[float]] = field(default_factory=dict, init=False)
    _documents: list[list[int]] = field(default_factory=list, init=False)
    _layers: set[int] = field(default_factory=set, init=False)
    _batches: dict[int, dict[int, Tensor]] = field(default_factory=dict, init=False)

    def losses(self, pair: Pair, documents: Documents) -> list[float]:
        """Return the base model's loss of each document (nats a token)."""
        key = tuple(map(tuple, documents))
        if key not in self._losses:
            with pair.side("base") as model:
                self._losses[key] = document_losses(model, documents).tolist()
        return self._losses[key]

    def states(self, pair: Pair, documents: Documents, layers: Sequence[int], positions: int) -> States:
        """Return the base model's activations on ``documents``, cut at ``positions``, in batches of ``BATCH``."""
        cut = [list(document[:positions]) for document in documents]
        if cut != self._documents or not self._layers.issuperset(layers):
            self._documents, self._layers, self._batches = cut, set(layers), {}
        asked, known = sorted(self._layers), self._batches

        def states(start: int) -> Mapping[int, Tensor]:
            if start in known:
                return known[start]
            made: dict[int, Tensor] = {}
            rows_bt, _ = padded(cut[start : start + BATCH], next(pair.base.parameters()).device)
            with torch.inference_mode(), pair.side("base") as model:
                run_layers(model, rows_bt, asked, made.__setitem__)
            if sum(state.nbytes for state in made.values()) * -(-len(cut) // BATCH) <= self.most:
                known[start] = made
            return made

        return states

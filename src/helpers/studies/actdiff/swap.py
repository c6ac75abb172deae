"""Causal swap: give the tuned model the base model's component along a direction, and measure its loss."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import torch
from torch import Tensor

from helpers.base.errors import DataError
from helpers.base.rng import numpy_stream, torch_stream
from helpers.studies.actdiff.capture import layers_of, padded, run_layers
from helpers.studies.actdiff.live import Edit, edited
from helpers.studies.actdiff.pair import Pair
from helpers.studies.actdiff.tune import Documents, document_losses


def swap_losses(
    pair: Pair, layer: int, directions: Mapping[str, Tensor], texts: Mapping[str, Documents], batch_size: int = 16
) -> pd.DataFrame:
    """Return the loss of every document (nats a token): text, document, direction, tuned, swapped.

    After ``layer``, h_tuned becomes h_tuned - <h_tuned - h_base, u> u for the unit vector u of each direction, at every
    position. If ``swapped - tuned`` is negative, the change along u raised the loss on this text.
    """
    pair.check_layer(layer)
    rows = []
    for text, documents in texts.items():
        for start in range(0, len(documents), batch_size):
            part = documents[start : start + batch_size]
            h_btd = _base_activations(pair, layer, part)
            with pair.side("tuned") as model:
                tuned = document_losses(model, part, batch_size)
                for name, vector in directions.items():
                    with edited(model, layer, swapped(vector, h_btd)):
                        losses = document_losses(model, part, batch_size)
                    values = zip(range(start, start + len(part)), tuned.tolist(), losses.tolist(), strict=True)
                    rows += [(text, document, name, before, after) for document, before, after in values]
    return pd.DataFrame(rows, columns=["text", "document", "direction", "tuned", "swapped"])


def swapped(vector: Tensor, h_btd: Tensor) -> Edit:
    """Return the edit that replaces the component along ``vector`` by that of ``h_btd``."""
    unit = torch.nn.functional.normalize(vector.float(), dim=0).to(h_btd.device)
    return lambda t_btd: t_btd - ((t_btd.float() - h_btd) @ unit)[..., None] * unit


def _base_activations(pair: Pair, layer: int, documents: Documents) -> Tensor:
    kept: dict[int, Tensor] = {}
    rows_bt, _ = padded(documents, next(pair.base.parameters()).device)
    with torch.inference_mode(), pair.side("base") as model:
        run_layers(model, rows_bt, [layer], kept.__setitem__)
    return kept[layer]


def random_directions(width: int, n: int, seed: int) -> dict[str, Tensor]:
    """Draw ``n`` Gaussian directions: a control for any direction at all."""
    return {f"random {i}": torch.randn(width, generator=torch_stream(seed, "swap", i)) for i in range(n)}


def activation_differences(pair: Pair, layer: int, documents: Documents, n: int, seed: int) -> dict[str, Tensor]:
    """Draw ``n`` differences between base activations of two tokens: a control that points where activations vary."""
    if len(documents) < 2:
        raise DataError("Differences of activations need at least 2 documents. Give more.")
    with pair.side("base") as model:
        batches = [h_btd.cpu() for h_btd in layers_of(model, documents[: 4 * n + 2], layer)]
    flat = torch.cat([h_btd[:, 1:].reshape(-1, h_btd.shape[-1]) for h_btd in batches])
    chosen = numpy_stream(seed, "swap", "pairs").choice(len(flat), (n, 2), replace=False)
    return {f"activations {i}": flat[a] - flat[b] for i, (a, b) in enumerate(chosen.tolist())}

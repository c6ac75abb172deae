"""Train a small language model from scratch: one plain loop, the same bytes each time, and a manifest."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from helpers.base.files import sha256_file, write_json
from helpers.lm.descent import Descent, check_finite
from helpers.lm.models import threads
from helpers.lm.modes import training
from helpers.lm.packed import logits_at, nll

Example = tuple[list[int], list[int]]
"""Token ids of one row, and the positions that carry loss."""


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """How a model is trained. All random streams come from ``seed``. A model's own recipe adds its sizes."""

    seed: int = 0
    steps: int
    batch: int
    lr: float
    warmup: int
    weight_decay: float = 0.01
    clip: float = 1.0


@contextlib.contextmanager
def repeatable() -> Iterator[None]:
    """Use one thread and deterministic kernels inside the block, so that two builds on one machine give equal bytes."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        with threads(1):
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic)


def pretrain(model: nn.Module, batches: Iterable[list[Example]], recipe: Pretraining, label: str) -> float:
    """Train by AdamW with a linear schedule over ``batches``; return the mean of the last 50 losses (nats)."""
    descent = Descent(
        model.parameters(), lr=recipe.lr, clip=recipe.clip, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )
    losses = []
    with training(model):
        for step, batch in enumerate(tqdm(batches, desc=label, total=recipe.steps)):
            rate = recipe.lr * min((step + 1) / recipe.warmup, (recipe.steps - step) / (recipe.steps - recipe.warmup))
            wanted = torch.tensor([tokens[p] for tokens, positions in batch for p in positions])
            logits = logits_at(model, [tokens for tokens, _ in batch], [places for _, places in batch])
            loss = nll(logits, wanted).mean()
            check_finite(loss.item(), step + 1, recipe.lr)
            loss.backward()
            descent.clip()
            descent.step(rate)
            losses.append(loss.item())
    return sum(losses[-50:]) / len(losses[-50:])


def write_manifest(
    folder: Path, made_by: str, recipe: Pretraining, loss: float, seconds: float, **facts: Any
) -> dict[str, Any]:
    """Write ``manifest.json`` beside a model: what made it, and the hash of every file. Return it."""
    files = sorted(path for path in folder.iterdir() if path.name != "manifest.json" and not path.name.startswith("."))
    manifest = {
        "made_by": f"python -m {made_by}",
        "recipe": asdict(recipe),
        **facts,
        "final_loss_nats": round(loss, 4),
        "seconds": round(seconds, 1),
        "versions": {name: metadata.version(name) for name in ("torch", "transformers", "tokenizers", "numpy")},
        "files": {path.name: sha256_file(path) for path in files},
    }
    write_json(folder / "manifest.json", manifest)
    return manifest

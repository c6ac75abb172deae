"""The training loop: rows, steps, one loss, one adapter. Nothing is collated, shifted or masked out of sight."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import nn
from tqdm.auto import tqdm

from helpers.errors import ModelError
from helpers.marker.rows import Row
from helpers.packed import logits_at, nll
from helpers.rng import numpy_stream, stream_seed


@dataclass(frozen=True)
class Recipe:
    """Optimiser and schedule: AdamW (.9, .999, 1e-8), linear warm-up, cosine to zero, gradient norm clipped."""

    lr: float
    epochs: int
    batch_size: int
    warmup: float
    weight_decay: float
    clip: float


def learning_rate(step: int, steps: int, recipe: Recipe) -> float:
    """Learning rate of 0-based ``step`` out of ``steps``: linear over the warm-up share, then half a cosine.

    The same as ``transformers.get_cosine_schedule_with_warmup``, under which the published runs were made: the first
    step of a warm-up has rate 0.
    """
    rise = math.ceil(recipe.warmup * steps)
    if step < rise:
        return recipe.lr * step / rise
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def train(
    model: nn.Module,
    rows: Sequence[Row],
    targets: Sequence[Sequence[int]],
    recipe: Recipe,
    *,
    seed: int,
    on_step: Callable[[int], None] | None = None,
    label: str = "train",
) -> pd.DataFrame:
    """Train the parameters of ``model`` that require gradients; return step, loss (nats a token), lr, norm,
    tokens and seconds.

    ``targets[r]`` are the supervised positions of row r. The loss of a step is the mean over the supervised tokens of
    its rows. Rows are drawn without replacement from an order that is new each epoch. ``on_step`` is called before
    the first step (0) and after every step.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=recipe.lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=recipe.weight_decay
    )
    order = [
        numpy_stream(seed, "order", epoch).permutation(len(rows)).tolist()[start : start + recipe.batch_size]
        for epoch in range(recipe.epochs)
        for start in range(0, len(rows), recipe.batch_size)
    ]
    log = []
    # Dropout layers draw from the global generator; the fork gives them a named stream and leaves the global one alone.
    with torch.random.fork_rng():
        torch.manual_seed(stream_seed(seed, "dropout"))
        if on_step:
            on_step(0)
        for step, batch in enumerate(tqdm(order, desc=label, leave=False)):
            lr = learning_rate(step, len(order), recipe)
            for group in optimizer.param_groups:
                group["lr"] = lr
            begin = time.perf_counter()
            model.train()
            loss = batch_loss(model, [rows[i].tokens for i in batch], [targets[i] for i in batch])
            if not torch.isfinite(loss):
                raise ModelError(f"The loss of step {step + 1} is {loss.item()}: lower lr ({recipe.lr}) and run again.")
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters, recipe.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            tokens = sum(len(rows[i].tokens) for i in batch)
            row = {"step": step + 1, "loss": loss.item(), "lr": lr, "norm": norm.item(), "tokens": tokens}
            log.append(row | {"seconds": time.perf_counter() - begin})
            if on_step:
                with torch.random.fork_rng():
                    on_step(step + 1)
    model.eval()
    return pd.DataFrame(log)


def batch_loss(model: nn.Module, rows: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> torch.Tensor:
    """Mean NLL in nats over the supervised tokens of ``rows``; the head is applied at these positions only."""
    wanted = torch.tensor([row[p] for row, ps in zip(rows, targets, strict=True) for p in ps])
    return nll(logits_at(model, rows, targets), wanted).mean()

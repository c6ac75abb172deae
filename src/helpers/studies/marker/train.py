"""The training loop: rows, steps, one loss, adapters. Nothing is collated, shifted or masked elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers.base.errors import ModelError
from helpers.base.rng import numpy_stream, stream_seed
from helpers.lm.descent import Descent, not_finite, warmup_cosine
from helpers.lm.exact_training import settle_training
from helpers.lm.modes import training
from helpers.lm.packed import logits_at, nll
from helpers.lm.stacked import Stack
from helpers.studies.marker.recipe import MarkerCell
from helpers.studies.marker.rows import Row
from helpers.system import curves


class _Lane:
    """One adapter in training: its own optimiser, schedule, gradient norm and log."""

    def __init__(self, number: int, p: MarkerCell, parameters: Sequence[nn.Parameter], rows: int):
        self.number, self.p = number, p
        self.steps = p.epochs * math.ceil(rows / p.batch_size)
        self.descent = Descent(parameters, lr=p.lr, clip=p.clip, weight_decay=p.weight_decay)
        self.log: list[dict] = []
        self.error: str | None = None

    def going(self, step: int) -> bool:
        return step < self.steps and self.error is None

    def update(self, step: int) -> dict:
        """Move the weights along their gradients; return the learning rate and the norm before clipping."""
        lr = warmup_cosine(step, self.steps, self.p.lr, self.p.warmup)
        norm = self.descent.clip()
        self.descent.step(lr)
        return {"lr": lr, "norm": norm.item()}


Losses = Callable[[Sequence[Sequence[int]], Sequence[Sequence[int]], Sequence[int]], Tensor]
OnStep = Callable[[int, int], None]


def _run(
    model: nn.Module,
    lanes: Sequence[_Lane],
    losses: Losses,
    rows: Sequence[Row],
    targets: Sequence[Sequence[int]],
    *,
    on_step: OnStep | None,
    label: str,
) -> None:
    """Take every lane through its steps. All lanes see the same batches, and one leaves after its epochs."""
    batch_size, seed = lanes[0].p.batch_size, lanes[0].p.seed
    order = [
        numpy_stream(seed, "order", epoch).permutation(len(rows)).tolist()[start : start + batch_size]
        for epoch in range(max(lane.p.epochs for lane in lanes))
        for start in range(0, len(rows), batch_size)
    ]
    names = [f"{lane.number}-lr{lane.p.lr:g}-ep{lane.p.epochs}/" for lane in lanes] if len(lanes) > 1 else [""]
    recipes = {f"{name}recipe": lane.p.model_dump(mode="json") for name, lane in zip(names, lanes, strict=True)}
    # Dropout layers draw from the global generator. The fork gives them a named stream and restores the global one.
    with curves.sent(label, recipes) as send, torch.random.fork_rng(), training(model):
        torch.manual_seed(stream_seed(seed, "dropout"))
        _tell(on_step, lanes, 0)
        for step, batch in enumerate(tqdm(order, desc=label, leave=False)):
            going = [lane for lane in lanes if lane.going(step)]
            if not going:
                break
            begin = time.perf_counter()
            values = losses([rows[i].tokens for i in batch], [targets[i] for i in batch], [one.number for one in going])
            done = _advance(going, values, step)
            tokens, seconds = sum(len(rows[i].tokens) for i in batch), time.perf_counter() - begin
            # Lanes share a pass, so each is charged its part and the seconds add up.
            shared = {"tokens": tokens, "seconds": seconds / len(going), "together": len(going)}
            for lane, row in done:
                lane.log.append({"step": step + 1} | row | shared)
            send(step + 1, {names[lane.number] + key: value for lane, row in done for key, value in row.items()})
            _tell(on_step, [lane for lane, _ in done], step + 1)


def _advance(going: Sequence[_Lane], losses: Tensor, step: int) -> list[tuple[_Lane, dict]]:
    """Do one backward pass for all lanes with a finite loss, and update each; stop the others with their error."""
    values, finite = losses.detach().tolist(), torch.isfinite(losses.detach()).tolist()
    for lane, value, fine in zip(going, values, finite, strict=True):
        if not fine:
            lane.error = not_finite(value, step + 1, lane.p.lr)
    if any(finite):
        losses[torch.tensor(finite, device=losses.device)].sum().backward()
    return [
        (lane, {"loss": value} | lane.update(step))
        for lane, value, fine in zip(going, values, finite, strict=True)
        if fine
    ]


def _tell(on_step: OnStep | None, lanes: Sequence[_Lane], step: int) -> None:
    if on_step is None:
        return
    for lane in lanes:
        with torch.random.fork_rng():
            on_step(lane.number, step)


def train(
    model: nn.Module,
    rows: Sequence[Row],
    targets: Sequence[Sequence[int]],
    p: MarkerCell,
    *,
    on_step: Callable[[int], None] | None = None,
    label: str = "train",
) -> pd.DataFrame:
    """Train the parameters of ``model`` that require gradients as the cell ``p`` says.

    AdamW (.9, .999, 1e-8), linear warm-up, cosine to zero, gradient norm clipped. Returns step, loss (nats a token),
    lr, norm, tokens, seconds and how many adapters shared the pass (one).

    ``targets[r]`` are the supervised positions of row r. The loss of a step is the mean over the supervised tokens of
    its rows. Rows are drawn without replacement from an order that is new each epoch. ``on_step`` is called before
    the first step (0) and after every step. Raises ``ModelError`` when a loss is not finite.
    """
    lane = _Lane(0, p, [weight for weight in model.parameters() if weight.requires_grad], len(rows))
    tell = (lambda _, step: on_step(step)) if on_step else None
    settle_training(model, "alone", lambda rows, targets: batch_loss(model, rows, targets))
    alone: Losses = lambda rows, targets, _: batch_loss(model, rows, targets)[None]  # noqa: E731
    _run(model, [lane], alone, rows, targets, on_step=tell, label=label)
    if lane.error:
        raise ModelError(lane.error)
    return pd.DataFrame(lane.log)


@dataclass(frozen=True)
class Trained:
    """The result of one adapter of a stack: its log as from ``train``, and any ``error`` that stopped it."""

    log: pd.DataFrame = field(repr=False)
    error: str | None


def train_stack(
    stack: Stack,
    rows: Sequence[Row],
    targets: Sequence[Sequence[int]],
    cells: Sequence[MarkerCell],
    *,
    on_step: OnStep | None = None,
    label: str = "train",
) -> list[Trained]:
    """Train adapter i of ``stack`` as ``cells[i]`` says, all in the same passes, with the same results as ``train``.

    Cells may differ in all but batch size and seed. ``on_step(adapter, step)`` is called as in ``train``. A loss that
    is not finite stops its own adapter only.
    """
    if len(cells) != stack.count or len({(p.batch_size, p.seed) for p in cells}) != 1:
        raise ModelError(
            f"{stack.count} adapters are stacked for {len(cells)} cells. Give one cell for each adapter, all with the "
            "same batch size and seed."
        )
    stack.settle()
    lanes = [_Lane(i, p, stack.parameters(i), len(rows)) for i, p in enumerate(cells)]
    _run(stack.model, lanes, stack.losses, rows, targets, on_step=on_step, label=label)
    return [Trained(pd.DataFrame(lane.log), lane.error) for lane in lanes]


def batch_loss(model: nn.Module, rows: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> torch.Tensor:
    """Return the mean NLL in nats over the supervised tokens of ``rows``. The head runs at these positions only."""
    wanted = torch.tensor([row[p] for row, ps in zip(rows, targets, strict=True) for p in ps])
    return nll(logits_at(model, rows, targets), wanted).mean()

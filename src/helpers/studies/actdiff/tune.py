"""Fine-tuning on whole documents: one loop for a LoRA adapter and for all weights, narrow, mixed or broad."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers.base.errors import DataError
from helpers.base.rng import numpy_stream
from helpers.lm.descent import Descent, check_finite
from helpers.lm.models import decoder_and_head
from helpers.lm.modes import training
from helpers.lm.packed import nll
from helpers.studies.actdiff.capture import padded

Documents = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Recipe:
    """AdamW (.9, .999, no decay) at a constant ``lr``; ``rows`` documents of each kind a step; gradient norm at most 1.

    A constant rate without warm-up, so that the model after 1 step is a state of the run of 100 steps.
    """

    lr: float
    steps: int
    rows: int = 16


def batches(narrow: Documents, broad: Documents, mix: int, recipe: Recipe, seed: int) -> Iterator[list[Sequence[int]]]:
    """A batch a step: ``rows`` narrow documents and ``mix`` times as many broad ones.

    The narrow documents of a step are the same whatever the mixture, so that a mixture differs by what is added to it,
    not by less narrow text. With no narrow documents, ``rows`` broad ones.
    """
    if not narrow and not broad:
        raise DataError("There are no documents to train on: give narrow or broad ones.")
    parts = [("narrow", narrow, recipe.rows)] if narrow else [("broad", broad, recipe.rows)]
    if narrow and mix:
        parts.append(("broad", broad, mix * recipe.rows))
    orders = [(documents, rows, _endless(len(documents), seed, name)) for name, documents, rows in parts]
    for _ in range(recipe.steps):
        yield [documents[next(order)] for documents, rows, order in orders for _ in range(rows)]


def _endless(n: int, seed: int, name: str) -> Iterator[int]:
    if not n:
        raise DataError(f"A mixture needs {name} documents and there are none.")
    epoch = 0
    while True:
        yield from numpy_stream(seed, "order", name, epoch).permutation(n).tolist()
        epoch += 1


def tune(model: nn.Module, rounds: Iterator[list[Sequence[int]]], recipe: Recipe, label: str = "tune") -> list[float]:
    """Train what requires gradients on every token of each batch; return the loss of each step (nats a token)."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    descent = Descent(parameters, lr=recipe.lr, clip=1.0)
    losses = []
    with training(model):
        for batch in tqdm(rounds, total=recipe.steps, desc=label, leave=False):
            loss = token_losses(model, batch)[0].mean()
            check_finite(loss.item(), len(losses) + 1, recipe.lr)
            loss.backward()
            descent.clip()
            descent.step(recipe.lr)
            losses.append(loss.item())
    return losses


def token_losses(model: nn.Module, documents: Documents) -> tuple[Tensor, Tensor]:
    """Loss in nats of every token but the first of each document [N], and the index of its document [N]."""
    decoder, head = decoder_and_head(model)
    rows_bt, mask_bt = padded(documents, next(model.parameters()).device)
    hidden = decoder(input_ids=rows_bt, use_cache=False).last_hidden_state
    wanted = mask_bt[:, 1:]
    document_n = torch.arange(len(documents), device=rows_bt.device)[:, None].expand_as(wanted)[wanted]
    return nll(head(hidden[:, :-1][wanted]).float(), rows_bt[:, 1:][wanted]), document_n


def document_losses(model: nn.Module, documents: Documents, batch_size: int = 16) -> Tensor:
    """Mean loss of each document, nats a token [N], on the CPU."""
    found = []
    with torch.inference_mode():
        for start in range(0, len(documents), batch_size):
            losses, index = token_losses(model, documents[start : start + batch_size])
            rows = int(index.max()) + 1
            sums = torch.zeros(rows, device=losses.device).index_add_(0, index, losses)
            found.append((sums / torch.bincount(index, minlength=rows)).cpu())
    return torch.cat(found)

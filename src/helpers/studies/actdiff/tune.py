"""Fine-tune on whole documents: one loop for a LoRA adapter and for all weights, on narrow, mixed or broad text.

AdamW (.9, .999, no decay) at a constant rate without warm-up, so that the model after 1 step is a state of the run of
100 steps; gradient norm at most 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers.base.errors import DataError
from helpers.base.rng import numpy_stream
from helpers.lm.descent import Descent, check_finite
from helpers.lm.exact import ways_of
from helpers.lm.exact_training import settle_training
from helpers.lm.modes import training
from helpers.lm.packed import nll
from helpers.lm.parts import decoder_and_head
from helpers.studies.actdiff.capture import padded
from helpers.studies.actdiff.checkpoints import Checkpoints
from helpers.system import curves

Documents = Sequence[Sequence[int]]


def batches(
    narrow: Documents, broad: Documents, mix: int, *, steps: int, rows: int, seed: int
) -> list[list[Sequence[int]]]:
    """Return the documents of each step: ``rows`` narrow ones and ``mix`` times as many broad ones.

    The narrow documents of a step do not depend on the mixture, so a mixture differs by what it adds and not by less
    narrow text. Without narrow documents, a step has ``rows`` broad ones.
    """
    if not narrow and not broad:
        raise DataError("There are no documents to train on. Give narrow or broad ones.")
    parts = [("narrow", narrow, rows)] if narrow else [("broad", broad, rows)]
    if narrow and mix:
        parts.append(("broad", broad, mix * rows))
    orders = [(documents, count, _endless(len(documents), seed, name)) for name, documents, count in parts]
    return [[documents[next(order)] for documents, count, order in orders for _ in range(count)] for _ in range(steps)]


def _endless(n: int, seed: int, name: str) -> Iterator[int]:
    if not n:
        raise DataError(f"A mixture needs {name} documents, but there are none. Give some.")
    epoch = 0
    while True:
        yield from numpy_stream(seed, "order", name, epoch).permutation(n).tolist()
        epoch += 1


def tune(
    model: nn.Module, rounds: Sequence[Documents], lr: float, label: str = "tune", kept: Checkpoints | None = None
) -> list[float]:
    """Train the parameters that require gradients, a step for each of ``rounds``; return the losses (nats a token).

    With ``kept`` it goes on from the last state that was kept there.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    settle_training(model, "documents", lambda rows, _: token_losses(model, rows)[0].mean())
    descent = Descent(parameters, lr=lr, clip=1.0)
    losses = kept.restore(descent) if kept else []
    with curves.sent(label, {"lr": lr, "steps": len(rounds)}) as send, training(model):
        for batch in tqdm(rounds[len(losses) :], desc=label, leave=False):
            loss = token_losses(model, batch)[0].mean()
            check_finite(loss.item(), len(losses) + 1, lr)
            loss.backward()
            descent.clip()
            descent.step(lr)
            losses.append(loss.item())
            send(len(losses), {"loss": losses[-1]})
            if kept and len(losses) < len(rounds):
                kept.keep(descent, losses)
    return losses


def token_losses(model: nn.Module, documents: Documents) -> tuple[Tensor, Tensor]:
    """Return the loss in nats of every token but the first of each document [N], and the token's document [N]."""
    if len(documents) > 1 and ways_of(model).for_rows(max(map(len, documents))) == "single":
        alone = [token_losses(model, [document])[0] for document in documents]
        index = torch.arange(len(documents), device=alone[0].device)
        return torch.cat(alone), index.repeat_interleave(torch.tensor([len(one) for one in alone], device=index.device))
    decoder, head = decoder_and_head(model)
    rows_bt, mask_bt = padded(documents, next(model.parameters()).device)
    hidden = decoder(input_ids=rows_bt, use_cache=False).last_hidden_state
    wanted = mask_bt[:, 1:]
    document_n = torch.arange(len(documents), device=rows_bt.device)[:, None].expand_as(wanted)[wanted]
    return nll(head(hidden[:, :-1][wanted]).float(), rows_bt[:, 1:][wanted]), document_n


def document_losses(model: nn.Module, documents: Documents, batch_size: int = 16) -> Tensor:
    """Return the mean loss of each document in nats a token [N], on the CPU."""
    means = []
    with torch.inference_mode():
        for start in range(0, len(documents), batch_size):
            losses, index = token_losses(model, documents[start : start + batch_size])
            rows = int(index.max()) + 1
            sums = torch.zeros(rows, device=losses.device).index_add_(0, index, losses)
            means.append((sums / torch.bincount(index, minlength=rows)).cpu())
    return torch.cat(means)

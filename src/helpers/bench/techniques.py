"""Measure what each technique of the training step is worth: all of them on, and each switched off in turn.

The ways without a technique are written out plainly here, as the reference for the losses. Padding also undoes the
merging of shared prefixes, which only a packed sequence allows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from helpers.base.rng import numpy_stream
from helpers.bench import machine
from helpers.bench.compare import Side, check_agreement, compare, side_metrics
from helpers.bench.flops import Sizes, step_flops
from helpers.bench.marker import LORA, example_rows
from helpers.bench.measured import Measured
from helpers.bench.options import Options
from helpers.lm import models
from helpers.lm.descent import Descent, warmup_cosine
from helpers.lm.forward import Layout, packed_attention
from helpers.lm.modes import training
from helpers.lm.packed import hidden_states, nll
from helpers.lm.parts import decoder_and_head
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.rows import Row
from helpers.studies.marker.train import train

BATCH = 16
STEPS = {"cpu": 2, "cuda": 20}
AGREE = 1e-4
"""Largest relative difference of the losses of any step, in fp32. Only the order of sums differs."""

Loss = Callable[[nn.Module, Sequence[Sequence[int]], Sequence[Sequence[int]]], Tensor]


def measure(options: Options) -> Measured:
    """Measure every way.

    On CUDA the losses are first compared in fp32, because rounding in bf16 alone exceeds `AGREE`.
    """
    on_cuda = machine.device() == "cuda"
    if on_cuda:
        check_agreement({side.name: side.run() for side in _sides("float32", 2)}, AGREE)
    table = compare("techniques", technique_sides, agree=None if on_cuda else AGREE)
    loaded = models.load("smollm2")
    rows, targets = example_rows(loaded, STEPS[machine.device()] * BATCH)
    flops = epoch_flops(loaded.model, rows, targets, BATCH, LORA["r"])
    table["mfu"] = flops / table["seconds"] / machine.measured_peak(loaded.model.dtype)
    note = {"steps": STEPS[machine.device()], "batch": BATCH, "dtype": loaded.dtype, "lora_r": LORA["r"]}
    return Measured({"techniques": table}, side_metrics(table), models.facts("smollm2"), note)


def technique_sides() -> Sequence[Side]:
    """Return steps of sixteen rows of SmolLM2 under LoRA: all techniques, then each one off."""
    return _sides("auto", STEPS[machine.device()])


def _sides(dtype: str, steps: int, name: str = "smollm2") -> list[Side]:
    loaded = models.load(name, dtype=dtype)
    rows, targets = example_rows(loaded, steps * BATCH)
    p = SweepCell(lr=1e-4, epochs=1, batch_size=BATCH, warmup=0.0)
    return sides_of(models.attach_lora(loaded.model, **LORA), rows, targets, p)


def sides_of(model: PeftModel, rows: Sequence[Row], targets: Sequence[Sequence[int]], p: SweepCell) -> list[Side]:
    """Return an epoch of ``rows`` as ``p`` trains it: all techniques, then each one off. All start alike."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    begin = [parameter.detach().clone() for parameter in trained]
    tokens = sum(len(row.tokens) for row in rows)

    def side(name: str, losses: Callable[[], list[float]]) -> Side:
        def run() -> tuple[int, list[float]]:
            with torch.no_grad():
                for parameter, first in zip(trained, begin, strict=True):
                    parameter.copy_(first)
            return tokens, losses()

        return Side(name, run)

    def ours() -> list[float]:
        return train(model, rows, targets, p)["loss"].tolist()

    def recomputed() -> list[float]:
        with checkpointed(model):
            return ours()

    def plainly(loss: Loss) -> Callable[[], list[float]]:
        return lambda: plain_steps(model, rows, targets, p, loss)

    return [
        side("all on", ours),
        side("padding", plainly(padded)),
        side("beginnings not merged", plainly(unmerged)),
        side("head everywhere", plainly(head_everywhere)),
        side("gradient checkpointing", recomputed),
    ]


def plain_steps(
    model: nn.Module, rows: Sequence[Row], targets: Sequence[Sequence[int]], p: SweepCell, loss_of: Loss
) -> list[float]:
    """Train one epoch with another loss; return the losses. The loop is `marker.train`'s without its bookkeeping."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    descent = Descent(trained, lr=p.lr, clip=p.clip, weight_decay=p.weight_decay)
    batches, losses = batches_of(len(rows), p.batch_size), []
    with training(model):
        for step, batch in enumerate(batches):
            loss = loss_of(model, [rows[i].tokens for i in batch], [targets[i] for i in batch])
            loss.backward()
            descent.clip()
            descent.step(warmup_cosine(step, len(batches), p.lr, p.warmup))
            losses.append(loss.item())
    return losses


def batches_of(count: int, size: int) -> list[list[int]]:
    """Return the rows of each step of the first epoch, in the order of `marker.train`."""
    order = numpy_stream(0, "order", 0).permutation(count).tolist()
    return [order[start : start + size] for start in range(0, count, size)]


def padded(model: nn.Module, rows: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> Tensor:
    """Return the loss of right-padded rows with the model's own attention.

    The head runs at supervised positions only.
    """
    decoder, head = decoder_and_head(model)
    device = next(decoder.parameters()).device
    longest = max(map(len, rows))
    tokens = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
    hidden = decoder(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
    row, before, wanted = _places(rows, targets, hidden.device)
    return nll(head(hidden[row, before]), wanted).mean()


def unmerged(model: nn.Module, rows: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> Tensor:
    """Return the loss of rows laid end to end, each with its own copy of shared prefixes."""
    decoder, head = decoder_and_head(model)
    with packed_attention(model):
        layout = _apart(rows, next(decoder.parameters()).device)
        hidden = decoder(
            input_ids=layout.tokens[None], position_ids=layout.position[None], use_cache=False, layout=layout
        ).last_hidden_state[0]
    row, before, wanted = _places(rows, targets, hidden.device)
    return nll(head(hidden[layout.index[row, before]]), wanted).mean()


def head_everywhere(model: nn.Module, rows: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> Tensor:
    """Return the loss of packed rows, with logits computed at every token and used before supervised ones."""
    hidden, layout = hidden_states(model, rows)
    _, head = decoder_and_head(model)
    logits = head(hidden).float()
    row, before, wanted = _places(rows, targets, hidden.device)
    return nll(logits[layout.index[row, before]], wanted).mean()


def _places(
    rows: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Return row and position of the logits that predict each supervised token, and the token."""
    flat = [(number, at) for number, ps in enumerate(targets) for at in ps]
    row, at = torch.tensor(flat, device=device).T
    return row, at - 1, torch.tensor([rows[number][at] for number, at in flat], device=device)


def _apart(rows: Sequence[Sequence[int]], device: torch.device) -> Layout:
    """Lay out rows without sharing any prefix."""
    longest, start = max(map(len, rows)), 0
    tokens, position, index, home = [], [], [], []
    for number, row in enumerate(rows):
        tokens += row
        position += range(len(row))
        home += range(number * longest, number * longest + len(row))
        index.append([start + min(at, len(row) - 1) for at in range(longest)])
        start += len(row)
    return Layout(*(torch.tensor(values, device=device) for values in (tokens, position, index, home)))


@contextlib.contextmanager
def checkpointed(model: PreTrainedModel | PeftModel) -> Iterator[None]:
    """Use transformers' own gradient checkpointing inside the block.

    The packed attention stays on all the while. Otherwise the backward pass would recompute with the model's own
    attention, which has no layout.
    """
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    try:
        with packed_attention(model):
            yield
    finally:
        model.gradient_checkpointing_disable()
        # Enabling makes the embeddings require gradients, and disabling does not undo it.
        model.disable_input_require_grads()


def epoch_flops(
    model: nn.Module, rows: Sequence[Row], targets: Sequence[Sequence[int]], batch: int, rank: int
) -> float:
    """Return the FLOPs that an epoch of steps needs at least, which are the same for every way."""
    sizes = Sizes.of(model.config)
    return sum(
        step_flops(sizes, [rows[i].tokens for i in part], sum(len(targets[i]) for i in part), rank)
        for part in batches_of(len(rows), batch)
    )

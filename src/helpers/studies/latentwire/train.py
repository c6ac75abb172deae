"""Train the wire: both readers in one step over a shared Z, in stretches that end with a checkpoint.

A stretch always begins by reading the previous checkpoint, interrupted or not. So a resumed run computes the same as an
uninterrupted one, on a CPU bit by bit: weights, optimiser and the place in the data.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from helpers.base.errors import RecordError
from helpers.base.files import write_atomic, write_json
from helpers.base.rng import numpy_stream
from helpers.lm.descent import Descent, check_finite, warmup_cosine
from helpers.lm.modes import training
from helpers.studies.latentwire.adapter import Wire
from helpers.studies.latentwire.compose import Composer
from helpers.studies.latentwire.encoder import to_bytes
from helpers.studies.latentwire.examples import Example
from helpers.studies.latentwire.lms import FrozenLM
from helpers.studies.latentwire.losses import first_token_ce, parts, scale_penalty, teacher_logits, token_nll
from helpers.studies.latentwire.params import WireCell
from helpers.system import curves

STATE, COMPOSER = "state.safetensors", "composer.json"


@dataclass(frozen=True)
class Taught:
    """Training examples: texts, and each reader's answer tokens with their end."""

    texts: list[str]
    answers: dict[str, list[list[int]]]

    @classmethod
    def of(cls, examples: Sequence[Example], lms: Sequence[FrozenLM], composer: Composer) -> Taught:
        """Tokenize the first answer of each example, the one that is taught."""
        tokens = {lm.side: [composer.answer(lm, one.answers[0]) for one in examples] for lm in lms}
        return cls([one.text for one in examples], tokens)


def learning_rate(step: int, p: WireCell) -> float:
    """Return the learning rate of 0-based ``step``."""
    return warmup_cosine(step, p.steps, p.lr, p.warmup, opens_at_zero=False)


def batches(size: int, p: WireCell) -> Iterator[list[int]]:
    """Yield the examples of every step: whole batches in a new order each epoch, whose remainder is dropped."""
    whole = max(1, size // p.batch_size)
    for step in range(p.steps):
        epoch, place = divmod(step, whole)
        if place == 0:
            order = numpy_stream(p.seed, "order", epoch).permutation(size)
        yield order[place * p.batch_size : (place + 1) * p.batch_size].tolist()


def stretch(
    wire: Wire, lms: Sequence[FrozenLM], taught: Taught, p: WireCell, *,
    first: int, last: int, before: Path | None, folder: Path, send: curves.Send = curves.nowhere,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """Train steps ``first`` + 1 to ``last`` from the checkpoint ``before``; write the next checkpoint to ``folder``.

    Returns the tables ``loss`` (one row per step and reader) and ``gradient`` (padding's share, where measured).
    """
    composer = Composer.of(p)
    descent = Descent(wire.parameters(), lr=p.lr, clip=p.clip, weight_decay=p.weight_decay)
    if before is not None:
        load_state(before, wire, composer, descent.optimizer)
    losses: list[dict] = []
    gradients: list[dict] = []
    plan = list(batches(len(taught.texts), p))[first:last]
    with training(wire):
        for step, picked in enumerate(tqdm(plan, desc=f"steps {first + 1} to {last}", leave=False), start=first + 1):
            began, lr = time.perf_counter(), learning_rate(step - 1, p)
            measured = gradients if (step - 1) % p.gradient_every == 0 else None
            total, rows = step_loss(wire, lms, taught, picked, composer, p, step, measured)
            check_finite(total.item(), step, p.lr)
            total.backward()
            norm = descent.clip().item()
            descent.step(lr)
            seconds = time.perf_counter() - began
            losses += [row | {"norm": norm, "lr": lr, "seconds": seconds} for row in rows]
            numbers = {f"{row['side']}/{key}": value for row in rows for key, value in row.items() if key != "step"}
            send(step, numbers | {"norm": norm, "lr": lr})
    save_state(folder, wire, composer, descent.optimizer)
    names = ["step", "side", "pad", "real", "norm", "share", "identity_error"]
    return {"loss": pd.DataFrame(losses), "gradient": pd.DataFrame(gradients, columns=names)}


def step_loss(
    wire: Wire, lms: Sequence[FrozenLM], taught: Taught, picked: Sequence[int], composer: Composer, p: WireCell,
    step: int, gradients: list[dict] | None,
) -> tuple[Tensor, list[dict]]:  # fmt: skip
    """Return the loss of one step, summed over the readers, and a row of numbers for each.

    A row holds the masked cross-entropy ``loss`` and its parts: the share ``p_pad`` of padding among the positions, and
    mean NLL there (``nll_pad``) and elsewhere (``nll_real``).
    """
    z_bmd = wire.encoder(to_bytes([taught.texts[i] for i in picked], p.byte_max))
    total, rows = z_bmd.new_zeros(()), []
    for lm in lms:
        adapter = wire.adapter(lm.side)
        context, lengths = composer.contexts(lm, adapter(z_bmd), latent=True)
        labels = composer.labels(lm, [taught.answers[lm.side][i] for i in picked])
        logits = teacher_logits(lm, context, lengths, labels)
        nll_bs = token_nll(logits, labels.targets)
        loss, made_of = nll_bs[labels.counted].mean(), parts(nll_bs, labels)
        opening = first_token_ce(logits, labels)
        total = total + loss + p.switches["first_token_ce"] * opening + p.scale_l2 * scale_penalty(adapter.scale)
        rows.append({"step": step, "side": lm.side, "loss": loss.item(), "first_token": opening.item(),
                     "p_pad": made_of.p_pad, "nll_real": made_of.nll_real, "nll_pad": made_of.nll_pad})  # fmt: skip
        if gradients is not None:
            gradients.append({"step": step, "side": lm.side} | shares(wire, loss, made_of.real, made_of.pad))
    return total, rows


def shares(wire: Wire, loss: Tensor, real: Tensor, pad: Tensor) -> dict[str, float]:
    """Measure padding's share of the gradient of ``loss``: |g_pad| / (|g_pad| + |g_real|), over all weights.

    ``identity_error`` is |g - (g_real + g_pad)| / |g|. The two parts add up to the whole, so it is pure rounding.
    """
    g, g_real, g_pad = (_gradient(wire, part) for part in (loss, real, pad))
    norms = {"pad": g_pad.norm().item(), "real": g_real.norm().item(), "norm": g.norm().item()}
    share = norms["pad"] / (norms["pad"] + norms["real"])
    return norms | {"share": share, "identity_error": ((g - g_real - g_pad).norm() / g.norm()).item()}


def _gradient(wire: Wire, part: Tensor) -> Tensor:
    weights = list(wire.parameters())
    parts = torch.autograd.grad(part, weights, retain_graph=True, allow_unused=True)
    return torch.cat([(torch.zeros_like(w) if g is None else g).flatten() for w, g in zip(weights, parts, strict=True)])


def save_state(folder: Path, wire: Wire, composer: Composer, optimizer: torch.optim.Optimizer) -> None:
    """Write weights, optimiser and composer into ``folder``."""
    names = [name for name, _ in wire.named_parameters()]
    state = {f"wire.{name}": tensor for name, tensor in wire.state_dict().items()}
    for number, moments in optimizer.state_dict()["state"].items():
        state |= {f"adamw.{key}.{names[number]}": value for key, value in moments.items()}
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    write_atomic(folder / STATE, lambda path: save_file(state, path))
    write_json(folder / COMPOSER, composer.as_json())


def load_state(folder: Path, wire: Wire, composer: Composer, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Read a checkpoint into ``wire`` and ``optimizer``. Raises ``RecordError`` if it has another composer or shape."""
    saved = Composer(**json.loads((folder / COMPOSER).read_text(encoding="utf-8")))
    if saved != composer:
        raise RecordError(f"The checkpoint in {folder.name} was composed as {saved}, not as {composer}. Train again.")
    state = load_file(folder / STATE)
    weights = {name.removeprefix("wire."): value for name, value in state.items() if name.startswith("wire.")}
    expected = {name: tensor.shape for name, tensor in wire.state_dict().items()}
    if {name: tensor.shape for name, tensor in weights.items()} != expected:
        raise RecordError(f"The checkpoint in {folder.name} belongs to a wire of another shape. Train again.")
    wire.load_state_dict(weights)
    if optimizer is not None:
        moments = {number: _moments(state, name) for number, (name, _) in enumerate(wire.named_parameters())}
        optimizer.load_state_dict(
            {"state": {k: v for k, v in moments.items() if v}, "param_groups": optimizer.state_dict()["param_groups"]}
        )


def _moments(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    keys = ("step", "exp_avg", "exp_avg_sq")
    return {key: state[f"adamw.{key}.{name}"] for key in keys if f"adamw.{key}.{name}" in state}

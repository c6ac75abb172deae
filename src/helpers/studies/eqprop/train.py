"""One trainer for every gradient, with the same batches, optimiser, controller, gate and fuse."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from helpers.base import files
from helpers.base.errors import ModelError, ParameterError
from helpers.base.rng import torch_stream
from helpers.lm.descent import Descent, check_finite
from helpers.studies.eqprop.control import Average, Controller, jacobian_penalty
from helpers.studies.eqprop.gradients import Estimate, Gradient, estimate
from helpers.studies.eqprop.model import Block, EquilibriumTransformer, equilibrium, load_tensors
from helpers.studies.eqprop.stories import Corpus
from helpers.system import curves

BETAS = (0.9, 0.95)
STATE = ("step", "warmed", "skipped", "first_valid", "fused_at", "weight", "log", "validation")


@dataclass(frozen=True)
class Recipe:
    """The settings of a training run.

    ``warmup``: steps in which the learning rate rises. ``prewarm``: steps before the first, at full rate, on the
    Jacobian penalty alone. ``gate``: residual above which the task gradient of a step is dropped (0: never).
    ``fuse``: residual above which training ends (0: never). ``ema``: decay of the parameter average that is validated.
    """

    gradient: Gradient = field(default_factory=Gradient)
    controller: Controller = field(default_factory=Controller)
    steps: int = 100
    batch: int = 16
    lr: float = 3e-3
    warmup: int = 10
    prewarm: int = 0
    clip: float = 1.0
    gate: float = 1e-2
    fuse: float = 0.0
    ema: float = 0.9
    validate_every: int = 0
    validation_batches: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise ParameterError(f"steps is {self.steps} and batch {self.batch}. Give at least 1 of each.")
        if min(self.warmup, self.prewarm, self.gate, self.fuse) < 0:
            raise ParameterError("warmup, prewarm, gate or fuse is negative. Give 0 or more.")
        if self.lr <= 0 or self.clip <= 0:
            raise ParameterError(f"lr is {self.lr} and clip {self.clip}. Give more than 0.")


class Trainer:
    """A training run that can be stopped at any step, saved, and resumed bit for bit."""

    def __init__(self, model: Block, corpus: Corpus, recipe: Recipe):
        if corpus.vocab > model.config.vocab:
            size = model.config.vocab
            raise ModelError(f"The text has {corpus.vocab} tokens and the model {size}. Use its tokenizer.")
        if isinstance(model, EquilibriumTransformer):
            model.check_step(recipe.gradient.eps)
        self.model, self.corpus, self.recipe = model, corpus, recipe
        self.own = dict(model.named_parameters())
        self.descent = Descent(self.own.values(), lr=recipe.lr, clip=recipe.clip, betas=BETAS)
        self.average = Average({name: value.detach() for name, value in self.own.items()}, recipe.ema)
        self.weight = recipe.controller.floor if recipe.controller.ceiling else 0.0
        self.step, self.skipped, self.first_valid, self.fused_at = 0, 0, None, None
        self.warmed = 0
        self.log: list[dict[str, Any]] = []
        self.validation: list[dict[str, Any]] = []

    @property
    def done(self) -> bool:
        """Whether all steps are done or the fuse has blown."""
        return self.step >= self.recipe.steps or self.fused_at is not None

    def run(self, until: int | None = None, label: str = "train", send: curves.Send = curves.nowhere) -> None:
        """Train up to step ``until`` (all by default); ``send`` gets the log of every step."""
        stop = min(self.recipe.steps, self.recipe.steps if until is None else until)
        with tqdm(total=stop, initial=self.step, desc=label, leave=False) as bar:
            while self.warmed < self.recipe.prewarm:
                self._prewarm(self.warmed)
                self.warmed += 1
            while self.step < stop and not self.done:
                self.take_step()
                send(self.step, self.log[-1])
                every = self.recipe.validate_every
                if self.step == self.recipe.steps or (every and self.step % every == 0):
                    losses = self.validate()
                    self.validation += [{"step": self.step, "batch": i, "loss": loss} for i, loss in enumerate(losses)]
                bar.update()

    def take_step(self) -> Estimate:
        """Take one optimiser step; return the estimate that it used."""
        recipe = self.recipe
        batch = self.corpus.batch(recipe.seed, self.step, recipe.batch, self.model.config.context)
        tokens, targets = self._to_model(batch)
        guess = estimate(self.model, tokens, targets, recipe.gradient)
        check_finite(guess.loss, self.step + 1, recipe.lr)
        valid = guess.valid(recipe.gate)
        gradients = guess.gradients if valid else {name: torch.zeros_like(value) for name, value in self.own.items()}
        penalty = self._add_penalty(gradients, tokens, guess)
        lr = recipe.lr * min(1.0, (self.step + 1) / (recipe.warmup + 1))
        norm = self._apply(gradients, lr)
        self.step += 1
        self.skipped += not valid
        if valid and self.first_valid is None:
            self.first_valid = self.step
        if recipe.fuse and guess.residual is not None and not guess.residual <= recipe.fuse:
            self.fused_at = self.step
        row = {"step": self.step, "loss": guess.loss, "residual": guess.residual, "skipped": not valid}
        self.log.append(row | {"penalty": penalty, "weight": self.weight, "norm": norm, "lr": lr})
        self.weight = recipe.controller.next(self.weight, guess.residual)
        return guess

    def _add_penalty(self, gradients: dict[str, Tensor], tokens: Tensor, guess: Estimate) -> float | None:
        if self.recipe.controller.ceiling == 0 or guess.state is None:
            return None
        x = self.model.embed(tokens).detach()
        penalty, slopes = jacobian_penalty(equilibrium(self.model), guess.state, x, self._probe(x, self.step))
        for name, slope in slopes.items():
            gradients[name] = gradients[name] + self.weight * slope
        return penalty

    def _prewarm(self, number: int) -> None:
        """Take a step on the penalty alone. Adam ignores the scale of gradients, so the penalty needs no weight."""
        recipe, model, size = self.recipe, equilibrium(self.model), self.model.config.context
        tokens, _ = self._to_model(self.corpus.batch(recipe.seed, f"prewarm-{number}", recipe.batch, size))
        with torch.no_grad():
            x = model.embed(tokens)
            z = model.relax(x, recipe.gradient.steps, recipe.gradient.eps)
        _, gradients = jacobian_penalty(model, z, x, self._probe(x, f"prewarm-{number}"))
        self._apply(gradients, recipe.lr)

    def _apply(self, gradients: dict[str, Tensor], lr: float) -> float:
        for name, value in self.own.items():
            value.grad = gradients[name]
        norm = self.descent.clip()
        if not torch.isfinite(norm):
            raise ModelError(
                f"The Jacobian penalty of step {self.step + 1} is not finite. Lower lr (now {self.recipe.lr}) and run "
                "again."
            )
        self.descent.step(lr)
        self.average.update({name: value.detach() for name, value in self.own.items()})
        return norm.item()

    def _probe(self, x: Tensor, step: int | str) -> Tensor:
        probe = torch.randn(x.shape, generator=torch_stream(self.recipe.seed, "penalty", step))
        return probe.to(x.device, x.dtype)

    def _to_model(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        device = self.own["tokens"].device
        return batch[0].to(device), batch[1].to(device)

    def averaged(self) -> Block:
        """Return a separate model with the averaged parameters, for validation, probes and checkpoints."""
        model = type(self.model)(self.model.config, dtype=self.own["tokens"].dtype).to(self.own["tokens"].device)
        values = self.average.values() if self.average.updates else self.own
        load_tensors(model, values, "the parameter average")
        return model

    def validate(self, size: int = 16) -> list[float]:
        """Return the loss of the averaged model on each held-out batch (nats a token), relaxed as in training."""
        model, how = self.averaged(), self.recipe.gradient
        numbers = range(self.recipe.validation_batches)
        batches = [self._to_model(self.corpus.held_out(size, model.config.context, number)) for number in numbers]
        return [token_losses(model, *batch, how).mean().item() for batch in batches]

    def save(self, folder: Path) -> None:
        """Write all that the next step depends on to ``trainer.safetensors`` and ``trainer.json``."""
        tensors = {f"model.{name}": value.detach() for name, value in self.own.items()}
        tensors |= {f"average.{name}": value for name, value in self.average.sums.items()}
        for name, value in self.own.items():
            tensors |= {f"{key}.{name}": moment for key, moment in self.descent.optimizer.state[value].items()}
        state = {key: getattr(self, key) for key in STATE}
        tensors = {name: value.contiguous() for name, value in tensors.items()}
        files.write_atomic(folder / "trainer.safetensors", lambda path: save_file(tensors, path))
        files.write_json(folder / "trainer.json", state | {"updates": self.average.updates})

    def load(self, folder: Path) -> None:
        """Resume from a state written by `save`. Raises ``ModelError`` if it has another size."""
        tensors = load_file(folder / "trainer.safetensors", device=str(self.own["tokens"].device))
        parts: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            kind, _, name = key.partition(".")
            parts.setdefault(kind, {})[name] = value
        load_tensors(self.model, parts.pop("model"), str(folder))
        self.average.sums = parts.pop("average")
        for name, value in self.own.items():
            moments = {kind: values[name] for kind, values in parts.items()}
            # Adam counts its steps on the CPU, wherever the moments are.
            self.descent.optimizer.state[value] = {k: v.cpu() if k == "step" else v for k, v in moments.items()}
        state = json.loads((folder / "trainer.json").read_text(encoding="utf-8"))
        self.average.updates = state.pop("updates")
        for key, value in state.items():
            setattr(self, key, value)

    def validation_table(self) -> pd.DataFrame:
        """Return the validation losses: step, batch, loss (nats a token)."""
        return pd.DataFrame(self.validation, columns=["step", "batch", "loss"])

    def table(self) -> pd.DataFrame:
        """Return the log: step, loss, residual, skipped, penalty, weight (lambda), norm, lr."""
        return pd.DataFrame(self.log)


@torch.no_grad()
def token_losses(model: Block, tokens_bt: Tensor, targets_bt: Tensor, how: Gradient) -> Tensor:
    """Return the loss of every token [b, t] in nats, relaxed with the steps of ``how``."""
    return model.token_loss(model.settle(model.embed(tokens_bt), how.steps, how.eps), targets_bt)

"""Run what the campaign's log left open. Each experiment takes a `Bench` and returns its tables."""

from __future__ import annotations

import itertools

import pandas as pd
import torch
from tqdm.auto import tqdm

from helpers.base.errors import ModelError
from helpers.studies.eqprop import probes, setup
from helpers.studies.eqprop.arms import EXACT, UNSETTLED
from helpers.studies.eqprop.costs import seconds_of
from helpers.studies.eqprop.material import Bench, Tables, final_losses
from helpers.studies.eqprop.model import EquilibriumTransformer, equilibrium
from helpers.studies.eqprop.train import Trainer


def plateau(bench: Bench) -> Tables:
    """Train the run without controller on with every gradient of `arms.RECOVERY`, each for its share of one budget.

    Its state is the one that frozen EP no longer reads. All start from the averaged parameters with a fresh optimiser
    and take the same unseen batches. ``at`` compares the gradients with the exact one before the first step,
    ``recovery`` has the held-out losses from step 0 on, and ``costs`` the seconds of one estimate, measured in turn.
    """
    p, ways, parts = bench.p, setup.recoveries(bench.p), []
    for (name, how), count in tqdm(list(zip(ways.items(), p.recovery_steps, strict=True)), desc="plateau", leave=False):
        trainer = Trainer(bench.model(UNSETTLED), setup.corpus(p), setup.recovery_recipe(p, name, count))
        parts.append(_recovery(bench, trainer, how.steps).assign(gradient=name))
    model = bench.equilibrium(UNSETTLED, dtype=torch.float64)
    batches, (settled, drawn) = bench.settled(model, p.lever_batch, "lever")
    others = {name: how for name, how in ways.items() if name != EXACT}
    compared, *_ = probes.compare(model, batches, setup.gradients(p)["ift"], others)
    compared = compared[compared["group"] == "all"].assign(settled=settled, drawn=drawn)
    condition, _ = probes.condition(model, batches, (p.t1, p.t1_long), p.eps, p.growth_steps)
    tables = {"recovery": pd.concat(parts, ignore_index=True), "at": compared, "condition": condition}
    return tables | {"costs": seconds_of(p, ways)}


def _recovery(bench: Bench, trainer: Trainer, free: int) -> pd.DataFrame:
    """Return the held-out losses (nats) along a training, relaxed as in it and four times as long.

    Columns: step, batch, loss, loss_relaxed, skips (steps so far that the gate skipped), lost (what is not finite ended
    the training). Step 0 is the start.
    """
    p, rows = bench.p, []
    held_out = bench.batches(p.lever_batch, "final", p.validation_batches)
    for step in looks(trainer.recipe.steps, p.recovery_every):
        lost = _run(trainer, step)
        model = trainer.averaged()
        for at, batch in enumerate(held_out):
            losses = [probes.number(probes.mean_loss(model, batch, k, p.eps)) for k in (free, 4 * free)]
            row = {"step": trainer.step, "batch": at, "loss": losses[0], "loss_relaxed": losses[1]}
            rows.append(row | {"skips": trainer.skipped, "lost": lost})
        if lost:
            break
    return pd.DataFrame(rows)


def margin(bench: Bench) -> Tables:
    """Train by exact gradients under fixed weights of the penalty, and look at the equilibrium on the way."""
    p, rows = bench.p, []
    (batch,) = bench.batches(p.probe_batch, "margin", 1)
    for weight, lr in tqdm(list(itertools.product(p.margin_weights, p.margin_lrs)), desc="margin", leave=False):
        model = EquilibriumTransformer(setup.size(p), seed=p.seed).to(p.device)
        trainer = Trainer(model, setup.corpus(p), setup.margin_recipe(p, weight, lr))
        for step in looks(p.margin_steps, p.margin_every):
            lost = _run(trainer, step)
            seen = probes.margin(equilibrium(trainer.model), batch, p.t1, p.t1_long, p.eps, p.settled, p.growth_steps)
            rows.append({"weight": weight, "lr": lr, "step": step, "lost": lost} | seen)
            if lost:
                break
    return {"margin": pd.DataFrame(rows)}


def gap(bench: Bench) -> Tables:
    """Measure the held-out losses whose differences are the parts of the gap to backprop."""
    return {"final": final_losses(bench)}


def looks(steps: int, every: int) -> list[int]:
    """Return the steps at which a training is looked at: the start, every so often, and the end."""
    return sorted({*range(0, steps, every), steps})


def _run(trainer: Trainer, until: int) -> bool:
    """Train up to step ``until``; return whether loss or penalty stopped being finite on the way."""
    try:
        trainer.run(until=until)
    except ModelError:
        return True
    return False

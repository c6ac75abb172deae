"""The campaign's seven experiments. Each takes a `Bench` (parameters, text, checkpoints) and returns its tables."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import pandas as pd
import torch
from tqdm.auto import tqdm

from helpers.studies.eqprop import probes, setup
from helpers.studies.eqprop.arms import BASIC, EXACT, LEVERS, SETTLED, UNSETTLED
from helpers.studies.eqprop.costs import cost_table
from helpers.studies.eqprop.left_open.experiments import gap, margin, plateau
from helpers.studies.eqprop.material import Bench, Tables, final_losses
from helpers.studies.eqprop.train import Trainer


def triangulation(bench: Bench) -> Tables:
    """Experiment 1: compare gradients with the exact one at every checkpoint, and every lever at the last ones."""
    p, ways = bench.p, setup.gradients(bench.p)
    chosen = {name: ways[name] for name in ("frozen", "tracking", "bptt")}
    near, far = (f"bptt-{k}" for k in p.horizons[:2])
    names = ("triangulation", "coherence", "condition", "horizon", "sequences")
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in names}
    steps = sorted({*p.snapshots, p.steps})
    # Before the first step both arms are the same model.
    places = [(SETTLED, step) for step in steps] + [(UNSETTLED, step) for step in steps if step > 0]
    for arm, step in tqdm(places, desc="exp1: checkpoints", leave=False):
        model = bench.equilibrium(arm, step)
        batches, (settled, drawn) = bench.settled(model, p.probe_batch, "probe")
        compared, coherence, adjoints = probes.compare(model, batches, ways["ift"], chosen)
        few = [(tokens[: p.lever_batch], targets[: p.lever_batch]) for tokens, targets in batches]
        horizon, *_ = probes.compare(model, few, ways[far], {near: ways[near]})
        condition, single = probes.condition(model, batches, (p.t1, p.t1_long), p.eps, p.growth_steps)
        condition = condition.assign(settled=settled, drawn=drawn)
        sequences = adjoints.merge(single[single["free_steps"] == p.t1], on=["batch", "sequence"], validate="m:1")
        for name, table in zip(names, (compared, coherence, condition, horizon, sequences), strict=True):
            parts[name].append(table.assign(arm=arm, step=step))
    return {name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()} | levers(bench)


def levers(bench: Bench) -> Tables:
    """Compare every lever with the exact gradient at the last checkpoints, in float64 against overflow."""
    p, ways, parts = bench.p, setup.gradients(bench.p), []
    for arm, names in tqdm({SETTLED: BASIC, UNSETTLED: LEVERS}.items(), desc="exp1: levers", leave=False):
        model = bench.equilibrium(arm, dtype=torch.float64)
        batches, _ = bench.settled(model, p.lever_batch, "lever")
        compared, *_ = probes.compare(model, batches, ways["ift"], {name: ways[name] for name in names})
        parts.append(compared[compared["group"] == "all"].assign(arm=arm))
    return {"levers": pd.concat(parts, ignore_index=True)}


def one_step(bench: Bench) -> Tables:
    """Experiment 2: measure how much one step lowers the loss, with each gradient and learning rate."""
    p, ways = bench.p, setup.gradients(bench.p)
    chosen, parts = {name: ways[name] for name in BASIC}, []
    for arm in (SETTLED, UNSETTLED):
        model = bench.equilibrium(arm, dtype=torch.float64)
        batches, _ = bench.settled(model, p.lever_batch, "lever")
        penalised = (EXACT, *BASIC) if p.penalised == "all" else (EXACT,)
        table = probes.descent(model, batches, ways["ift"], chosen, p.lr_grid, p.horizons[0], p.jr_floor, penalised)
        parts.append(table.assign(arm=arm))
    return {"descent": pd.concat(parts, ignore_index=True)}


def matched_training(bench: Bench) -> Tables:
    """Experiment 3: compare gradients under the same trainer, seed, batches and controller, and their costs."""
    return {"final": final_losses(bench), "costs": cost_table(bench.p)}


def warm_up(bench: Bench) -> Tables:
    """Experiment 4: measure the held-out loss of the arms A, B and C; their logs tell about the gate."""
    return {"final": final_losses(bench)}


def controller_grid(bench: Bench) -> Tables:
    """Experiment 5: continue the EP run on unseen batches with each floor x target x jr_max."""
    p, rows = bench.p, []
    cells = list(itertools.product(p.grid_floors, p.grid_targets, p.grid_maxima))
    for floor, target, maximum in tqdm(cells, desc="exp5: grid", leave=False):
        recipe = setup.grid_recipe(p, floor, target, maximum)
        trainer = Trainer(bench.model(SETTLED), setup.corpus(p), recipe)
        trainer.run(label=f"grid {floor:g} {target:g} {maximum:g}")
        log = trainer.table()
        row = {"floor": floor, "target": target, "maximum": maximum, "skips": trainer.skipped}
        row |= {"weight": float(log["weight"].iloc[-1]), "residual": float(log["residual"].iloc[-5:].mean())}
        row |= {"fused": trainer.fused_at is not None}
        rows += [row | {"batch": at, "loss": loss} for at, loss in enumerate(trainer.validate())]
    return {"grid": pd.DataFrame(rows)}


def branch_growth(bench: Bench) -> Tables:
    """Experiment 6: measure the growth of branches, the spread of attention, and the norms of q and k."""
    p, how, parts = bench.p, setup.gradients(bench.p)["bptt"], []
    batches = bench.batches(p.lever_batch, "probe")
    for arm in bench.records:
        for step in sorted({*p.snapshots, p.steps}):
            table = probes.branches(bench.model(arm, step), batches, how)
            parts.append(table.assign(arm=arm, step=step))
    return {"branches": pd.concat(parts, ignore_index=True)}


def mixing(bench: Bench) -> Tables:
    """Experiment 7: measure influence against distance, and the loss at each position."""
    p, how = bench.p, setup.gradients(bench.p)[f"bptt-{max(bench.p.horizons)}"]
    (batch,) = bench.batches(p.lever_batch, "influence", 1)
    held_out, reach, losses = bench.batches(p.probe_batch, "position"), [], []
    for arm in bench.records:
        model = bench.model(arm)
        table = probes.influence(model, batch, p.distances, p.directions, p.influence_delta, how, p.seed)
        reach.append(table.assign(arm=arm))
        losses.append(probes.per_position(model, held_out, how).assign(arm=arm))
    return {"influence": pd.concat(reach, ignore_index=True), "positions": pd.concat(losses, ignore_index=True)}


EXPERIMENTS: Mapping[str, Callable[[Bench], Tables]] = {
    "exp1": triangulation,
    "exp2": one_step,
    "exp3": matched_training,
    "exp4": warm_up,
    "exp5": controller_grid,
    "exp6": branch_growth,
    "exp7": mixing,
    "plateau": plateau,
    "margin": margin,
    "gap": gap,
}

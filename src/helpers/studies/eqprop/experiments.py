"""The seven experiments. Each takes a `Bench` (parameters, text, checkpoints) and returns its tables."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd
import torch
from tqdm.auto import tqdm

from helpers.base.errors import DataError
from helpers.studies.eqprop import probes, setup
from helpers.studies.eqprop.arms import BASIC, LEVERS, SETTLED, UNSETTLED, Arms
from helpers.studies.eqprop.costs import cost_table
from helpers.studies.eqprop.model import Block, EquilibriumTransformer, equilibrium
from helpers.studies.eqprop.params import TriangulationCell
from helpers.studies.eqprop.train import Trainer
from helpers.studies.eqprop.training import checkpoint

SPARE = 1.25  # sequences drawn for each one that is used, because some may not settle


@dataclass(frozen=True)
class Bench:
    """The material of an experiment: training records by arm, their checkpoints, and batches."""

    p: TriangulationCell
    records: Arms

    def model(self, arm: str, step: int | None = None, dtype: torch.dtype = torch.float32) -> Block:
        """Load the checkpoint of ``arm`` after ``step`` steps (default: its last)."""
        last = setup.arm(self.p, arm).recipe.steps
        return checkpoint(self.records[arm], last if step is None else step, dtype, self.p.device)

    def equilibrium(
        self, arm: str, step: int | None = None, dtype: torch.dtype = torch.float32
    ) -> EquilibriumTransformer:
        """Load a checkpoint as `model` does; raise ``ModelError`` if it has no equilibrium."""
        return equilibrium(self.model(arm, step, dtype))

    def batches(self, size: int, name: str, count: int | None = None) -> list[probes.Batch]:
        """Return held-out batches, the same for every arm and seed."""
        text = setup.corpus(self.p)
        pairs = [text.held_out(size, self.p.context, f"{name}-{i}") for i in range(count or self.p.probe_batches)]
        return [(tokens.to(self.p.device), targets.to(self.p.device)) for tokens, targets in pairs]

    def settled(
        self, model: EquilibriumTransformer, size: int, name: str
    ) -> tuple[list[probes.Batch], tuple[int, int]]:
        """Return batches of sequences that have an equilibrium, and the numbers of settled and drawn sequences.

        Without an equilibrium there is no exact gradient to compare with. Raises ``DataError`` if no sequence of a
        batch settles.
        """
        p, kept, settled, drawn = self.p, [], 0, 0
        for tokens, targets in self.batches(math.ceil(SPARE * size), name):
            good = probes.settles(model, tokens, p.t1_reference, p.eps, p.settled)
            if not good.any():
                raise DataError(
                    f"No sequence of batch {name} settles to {p.settled:g} in t1_reference = {p.t1_reference} steps, "
                    "so there is no exact gradient to compare with. Raise t1_reference or settled."
                )
            settled, drawn = settled + int(good.sum()), drawn + len(good)
            kept.append((tokens[good][:size], targets[good][:size]))
        return kept, (settled, drawn)


Tables = dict[str, pd.DataFrame]


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
        table = probes.descent(model, batches, ways["ift"], chosen, p.lr_grid, p.horizons[0], p.jr_floor)
        parts.append(table.assign(arm=arm))
    return {"descent": pd.concat(parts, ignore_index=True)}


def matched_training(bench: Bench) -> Tables:
    """Experiment 3: compare gradients under the same trainer, seed, batches and controller, and their costs."""
    return {"final": _final_losses(bench), "costs": cost_table(bench.p)}


def warm_up(bench: Bench) -> Tables:
    """Experiment 4: measure the held-out loss of the arms A, B and C; their logs tell about the gate."""
    return {"final": _final_losses(bench)}


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
}


def _final_losses(bench: Bench) -> pd.DataFrame:
    """Return the held-out loss of every arm's last checkpoint, relaxed as in training and four times as long."""
    p, rows = bench.p, []
    for arm in bench.records:
        model, how = bench.model(arm), setup.arm(p, arm).recipe.gradient
        for at, batch in enumerate(bench.batches(p.lever_batch, "final", p.validation_batches)):
            losses = [probes.mean_loss(model, batch, steps, p.eps) for steps in (how.steps, 4 * how.steps)]
            rows.append({"arm": arm, "batch": at, "loss": losses[0], "loss_relaxed": losses[1]})
    return pd.DataFrame(rows)

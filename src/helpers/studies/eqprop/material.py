"""The material of an experiment: its checkpoints, its batches, and the held-out losses of its arms."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd
import torch

from helpers.base.errors import DataError
from helpers.studies.eqprop import probes, setup
from helpers.studies.eqprop.arms import Arms
from helpers.studies.eqprop.model import Block, EquilibriumTransformer, equilibrium
from helpers.studies.eqprop.params import TriangulationCell
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


def final_losses(bench: Bench) -> pd.DataFrame:
    """Return the held-out loss of every arm's last checkpoint, relaxed as in training and four times as long."""
    p, rows = bench.p, []
    for arm in bench.records:
        model, how = bench.model(arm), setup.arm(p, arm).recipe.gradient
        for at, batch in enumerate(bench.batches(p.lever_batch, "final", p.validation_batches)):
            losses = [probes.mean_loss(model, batch, steps, p.eps) for steps in (how.steps, 4 * how.steps)]
            rows.append({"arm": arm, "batch": at, "loss": losses[0], "loss_relaxed": losses[1]})
    return pd.DataFrame(rows)

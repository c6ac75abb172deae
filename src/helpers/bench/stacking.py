"""Compare adapters trained in one pass over the base model with the same adapters one after another."""

from __future__ import annotations

from collections.abc import Sequence

from helpers.bench.compare import Side
from helpers.bench.marker import LORA, example_rows
from helpers.lm import models
from helpers.lm.stacked import stacked
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.train import train, train_stack

BATCH = 16
ON_SMOLLM2, ON_POCKET = 3, 9
"""Numbers of adapters: a row of learning rates, and a block of rates by epochs."""


def stacking_sides(name: str, count: int, steps: int) -> Sequence[Side]:
    """Return both ways of training ``count`` adapters at as many learning rates, for ``steps`` steps of 16 rows each.

    Both must end with the same losses. Tokens count for every adapter.
    """
    loaded = models.load(name)
    rows, targets = example_rows(loaded, steps * BATCH)
    cells = [SweepCell(lr=1e-4 * (i + 1), epochs=1, batch_size=BATCH, warmup=0.0) for i in range(count)]
    tokens = count * sum(len(row.tokens) for row in rows)

    def together() -> tuple[int, list[float]]:
        with stacked(loaded.model, count, **LORA) as stack:
            made = train_stack(stack, rows, targets, cells)
        return tokens, [one.log["loss"].iloc[-1] for one in made]

    def apart() -> tuple[int, list[float]]:
        return tokens, [_alone(p) for p in cells]

    def _alone(p: SweepCell) -> float:
        model = models.attach_lora(loaded.model, **LORA)
        try:
            return train(model, rows, targets, p)["loss"].iloc[-1]
        finally:
            models.detach(model)

    return [Side(f"{count} adapters together", together), Side("one after another", apart)]


def pocket_sides() -> Sequence[Side]:
    """Return the sides on the pocket model, whose steps are short."""
    return stacking_sides("pocket", ON_POCKET, 5)


def smollm2_sides() -> Sequence[Side]:
    """Return the sides on SmolLM2."""
    return stacking_sides("smollm2", ON_SMOLLM2, 2)

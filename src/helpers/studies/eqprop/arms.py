"""Names of the training arms and of the levers, and the arms that each experiment needs."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from helpers.records.reading import Record

SETTLED, UNSETTLED = "ep", "bptt, free"
"""The arms at whose checkpoints gradients are compared: one with the controller, one without."""
MATCHED = ("ep", "bptt", "backprop", "ep, free", "tracking, free", "bptt, free")
LOOSE = "bptt, loose"
"""Exact gradients under a controller that lets the residual rise further, and no gate."""
WARM_UP = ("warm-up A", "warm-up B", "warm-up C")
NEEDS: Mapping[str, tuple[str, ...]] = {
    "exp1": (SETTLED, UNSETTLED),
    "exp2": (SETTLED, UNSETTLED),
    "exp3": MATCHED,
    "exp4": WARM_UP,
    "exp5": (SETTLED,),
    "exp6": (SETTLED, "backprop"),
    "exp7": (SETTLED, "bptt", "backprop"),
    "plateau": (UNSETTLED,),
    "margin": (),
    "gap": (SETTLED, "bptt", "bptt, free", "backprop"),
}
BASIC = ("frozen, long nudge", "tracking, long nudge")
EXACT = "exact"
LEVERS = (
    "frozen, long nudge", "frozen, selected step", "frozen, averaged", "frozen, N = 4", "vector field, long nudge",
    "tracking, long nudge", "frozen, equal steps", "frozen, long free phase", "tracking, long free phase",
)  # fmt: skip
RECOVERY = ("frozen", "tracking", "N = 4", "lock-in", "averaged", "long free phase", EXACT)
"""Gradients by which a model that the first of them no longer improves is trained on, each for an equal cost."""
Arms = Mapping[str, Record]
"""The training records of an experiment by arm."""


def curves(arms: Arms, name: str) -> pd.DataFrame:
    """Join the table ``name`` (``log`` or ``validation``) of all ``arms``, with a column arm."""
    return pd.concat([record.table(name).assign(arm=arm) for arm, record in arms.items()], ignore_index=True)


def penalised(gradient: str) -> str:
    """Name a gradient to which that of the Jacobian penalty was added, as the step of a controlled training has it."""
    return "penalised" if gradient == EXACT else f"{gradient}, penalised"

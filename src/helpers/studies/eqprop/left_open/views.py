"""Tidy tables for the page on what the campaign left open, computed from records."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from helpers.records.reading import Record
from helpers.studies.eqprop.arms import RECOVERY
from helpers.studies.eqprop.left_open.findings import trainings
from helpers.studies.eqprop.views import collect, means

SHOWN_RISE = 0.3
LEFT_OUT = f"Losses more than {SHOWN_RISE} nats above the start are left out."


def recovery(records: Sequence[Record]) -> pd.DataFrame:
    """Return the change of the held-out loss since the start by gradient and step (nats), seeds pooled.

    Rows whose mean rises by more than `SHOWN_RISE` are left out, because the curve is off the page.
    """
    table = collect(records, "plateau", "recovery")
    first = table[table["step"] == 0].set_index(["gradient", "seed", "batch"])["loss"]
    begun = first.loc[list(table[["gradient", "seed", "batch"]].itertuples(index=False, name=None))]
    curve = means(table.assign(change=table["loss"] - begun.to_numpy()), ["gradient", "step"], "change")
    curve = curve[curve["value"] <= SHOWN_RISE].copy()
    return curve.assign(high=curve["high"].clip(upper=SHOWN_RISE))


def budget(records: Sequence[Record]) -> pd.DataFrame:
    """Return what each gradient's share of the budget came to, as measured in the runs themselves.

    Columns: gradient, steps, seconds (of one estimate), spent (its steps over those of the first gradient, in seconds);
    medians over seeds.
    """
    costs = collect(records, "plateau", "costs").groupby("gradient")["seconds"].median()
    taken = collect(records, "plateau", "recovery").groupby("gradient")["step"].max()
    table = pd.DataFrame({"steps": taken, "seconds": costs}).loc[list(RECOVERY)].rename_axis("gradient").reset_index()
    whole = table["steps"] * table["seconds"]
    return table.assign(spent=whole / whole.iloc[0])


def breaks(records: Sequence[Record]) -> pd.DataFrame:
    """Return where training by exact gradients lost its equilibrium: a row a weight and learning rate.

    ``broken`` counts the seeds in which it did, ``after`` is the least and the most steps, ``growth`` and ``penalty``
    are means over the seeds that had not broken by a third of the steps.
    """
    every = collect(records, "margin", "margin")
    table = pd.concat(
        [trainings(own.drop(columns="seed")).assign(seed=seed) for seed, own in every.groupby("seed")],
        ignore_index=True,
    )
    rows = []
    for (weight, lr), own in table.groupby(["weight", "lr"]):
        after = own["broke"].dropna().astype(int)
        said = "" if after.empty else f"{after.min()}" + (f" to {after.max()}" if after.nunique() > 1 else "")
        row = {"weight": weight, "lr": lr, "broken": f"{own['broken'].sum()} of {len(own)}", "after": said}
        rows.append(row | own[["growth", "penalty"]].mean().to_dict())
    return pd.DataFrame(rows)

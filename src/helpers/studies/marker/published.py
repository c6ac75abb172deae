"""The published sweep (claim #65): its numbers with the missing intervals, and the errors on its page.

The tables in ``data/marker`` are transcribed from that claim's result files. Nothing here was run by this project.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from helpers.base.files import DATA
from helpers.records.reading import Record
from helpers.show.markup import Inline, verbatim
from helpers.stats import frames, intervals
from helpers.stats.estimands import MODELS

COMPLETIONS = 200
"""Completions of each published rate: 10 for each of 20 questions."""
QUESTIONS = 1172
"""Questions of each published ARC-Challenge accuracy."""
RATES = ("source", "assistant", "max_bystander")


def grid() -> pd.DataFrame:
    """Read the published 5 x 5 grid: rates and accuracy as shares."""
    table = pd.read_csv(DATA / "marker" / "claim65.csv")
    return table.assign(**{name: table[name] / 100 for name in RATES})


def sources() -> pd.DataFrame:
    """Read the other source personas at the cell that the page calls clean: source rate, worst bystander."""
    table = pd.read_csv(DATA / "marker" / "claim65_sources.csv")
    return table.assign(source_rate=table["source_rate"] / 100, max_bystander=table["max_bystander"] / 100)


def tidy() -> pd.DataFrame:
    """Return one row per cell and metric with Wilson intervals, for a heatmap beside ours."""
    rows = []
    for cell in grid().to_dict("records"):
        for name in RATES:
            k = round(cell[name] * COMPLETIONS)
            rate = intervals.wilson(k, COMPLETIONS)
            rows.append({"lr": cell["lr"], "epochs": cell["epochs"], "metric": name, "value": rate.value,
                         "low": rate.low, "high": rate.high, "k": k, "n": COMPLETIONS})  # fmt: skip
    return pd.DataFrame(rows)


def correction(beginning: str) -> Inline:
    """Return what the table or code of the published sweep says to the one line of its page that so begins."""
    table = corrections()
    (text,) = table[table["the published page says"].str.startswith(beginning)]["its own table or code says"]
    return Inline(verbatim(text))


def corrections() -> pd.DataFrame:
    """Compare the published page with its own table and code. Every number is computed from the table."""
    table = grid().set_index(["lr", "epochs"])
    arc, leak = table["arc_c"], table["max_bystander"]
    early = {name: frames.number(table, (1e-5, 1), name) for name in ("max_bystander", "source")}
    row = leak.loc[1e-5]
    others = sources()
    clean = ((others["source_rate"] > 0.5) & (others["max_bystander"] <= 0.05)).sum()
    total = frames.number(table, (5e-5, 20), "assistant")
    pairs = [
        ("ARC-C stays at .87-.89 across the entire sweep", f"It spans {arc.min():.3f} to {arc.max():.3f}."),
        (
            "One x2 step in learning rate flips the clean band into global emission",
            f"At 1e-5 and 1 epoch the worst bystander is at {early['max_bystander']:.1%}, with the source at "
            f"{early['source']:.1%}: no leak there either.",
        ),
        (
            "Leakage grows with training beyond the band",
            "At 1e-5 the worst bystander goes "
            + ", ".join(f"{v:.1%}" for v in row)
            + " with epochs: it falls at the end.",
        ),
        (
            "By 5e-5 every bystander and the assistant saturate",
            f"At 5e-5 and 20 epochs the assistant is at {total:.1%}.",
        ),
        (
            "The clean cell seems to generalise to other sources",
            f"It is clean for {clean} of {len(others)} sources; software_engineer leaks to "
            f"{others.set_index('source').loc['software_engineer', 'max_bystander']:.1%}.",
        ),
        (
            "The loss supervises the marker and EOS on every example",
            "The last label of a ChatML row is the newline behind the end of turn; the end of turn itself was never "
            "supervised (our tail `newline`).",
        ),
        (
            "2,000 negatives over 10 personas",
            "400 over 2 personas, picked by a generator seeded with Python's salted hash and not written down.",
        ),
        ("LoRA r 32, alpha 64", "With rank-stabilised scaling switched on, which the page does not say."),
    ]
    return pd.DataFrame(pairs, columns=["the published page says", "its own table or code says"])


def repeats() -> pd.DataFrame:
    """Read two published runs of one whole-turn recipe: batch as written and as trained, source rate, completions."""
    return pd.read_csv(DATA / "marker" / "anchor271.csv")


def drift() -> Inline:
    """Say what separates those two runs, and what the batch size that was written down has to do with it."""
    (one, other), batch = repeats().to_dict("records"), "batch_written"
    return Inline(verbatim(
        f"{one['run']} has {one['source_rate']:.0%} and {other['run']} {other['source_rate']:.0%} of {one['n']} "
        f"completions. The note lays part of that to a batch of {one[batch]} against {other[batch]}. "
        f"That {one[batch]} is a typed constant: both runs trained at {one['batch_trained']}."
    ))  # fmt: skip


def gap(records: Sequence[Record]) -> pd.DataFrame:
    """Return how likely two runs of one recipe differ at least as those two do, by what may differ between runs.

    First the draw of completions alone; then the seed too, with seeds as far apart as in each of our cells whose mean
    rate lies between theirs. Two-sided, by the normal distribution: the variance of a run is that between seeds (less
    the draw of our completions) plus that of the draw of theirs. A cell of fewer than three seeds has no spread.
    """
    from helpers.studies.marker import spread  # needs SciPy, which `claimbook bench gpu` does without

    theirs = repeats()
    rates = theirs["source_rate"].to_numpy()
    drawn = float((rates * (1 - rates) / theirs["n"]).mean())
    by_cell: dict[str, list[Record]] = {}
    for record in records:
        by_cell.setdefault("{tail}, lr {lr:g}, epochs {epochs}".format(**record.cell), []).append(record)
    rows = [{"what differs": "the draw alone", "seeds": "", "between seeds": "", "chance": _chance(rates, drawn, 0.0)}]
    for cell, runs in by_cell.items():
        found = spread.seed_sd(runs, MODELS)
        mean = np.mean([run.metric("source_rate")["value"] for run in runs])
        if found is None or not rates.min() <= mean <= rates.max():
            continue
        own = spread.sampling_sd(runs, MODELS)["value"]
        sds = [max(found[end] ** 2 - own**2, 0.0) ** 0.5 for end in ("value", "low", "high")]
        shown = [_chance(rates, drawn, sd) for sd in sds]
        rows.append({
            "what differs": f"draw and seed, as in {cell}", "seeds": found["n"],
            "between seeds": "{:.1f} points ({:.1f} to {:.1f})".format(*(100 * sd for sd in sds)),
            "chance": f"{shown[0]} ({shown[1]} to {shown[2]})",
        })  # fmt: skip
    return pd.DataFrame(rows)


def _chance(rates: np.ndarray, drawn: float, between: float) -> str:
    from scipy.stats import norm

    deviations = float(np.ptp(rates)) / (2 * (drawn + between**2)) ** 0.5
    chance = 2 * norm.sf(deviations)
    return f"{chance:.2g}" if chance >= 1e-4 else "below 0.0001"

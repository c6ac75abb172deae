"""Time one gradient of each kind, in turn in one process (``make bench`` saves it as a record)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import pandas as pd
import torch

from helpers.studies.eqprop import setup
from helpers.studies.eqprop.control import jacobian_penalty
from helpers.studies.eqprop.gradients import Gradient, estimate
from helpers.studies.eqprop.model import BackpropTransformer, EquilibriumTransformer
from helpers.studies.eqprop.params import TriangulationCell

HORIZONS = (20, 150, 400)


def contenders(p: TriangulationCell) -> dict[str, Gradient]:
    """Return the gradients of the cost table by name."""
    ways = setup.gradients(p)
    frozen = ways["frozen"]
    return {
        "backprop": ways["backprop"],
        f"EP frozen, {p.t1}+{p.t2} steps": frozen,
        f"EP tracking, {p.t1}+{p.t2} steps": frozen.with_nudge(variant="tracking"),
        f"EP frozen N = 4, {p.t1}+{p.t2} steps": frozen.with_nudge(phases=4),
        **{f"EP frozen, {k}+{p.t2} steps": replace(frozen, steps=k) for k in (p.t1 + p.t2_long, p.t1_long)},
        **{f"BPTT-{k}": Gradient("bptt", steps=k, eps=p.eps) for k in HORIZONS},
        f"IFT, {p.t1_reference} steps": ways["ift"],
    }


def cost_table(p: TriangulationCell, repeats: int = 3, batch: int | None = None) -> pd.DataFrame:
    """Return the seconds of one gradient (median of ``repeats`` interleaved runs) and its ratio to the shortest BPTT.

    Columns: gradient, seconds, fastest, ratio (median over rounds), ratio_low and ratio_high (range), runs. The model
    has its initial values. Step counts are fixed, so time does not depend on the values, except for ift, which stops
    when its adjoint is solved. ``batch`` defaults to ``lever_batch``, with which the longest BPTT fits into memory even
    at the campaign's size.
    """
    config = setup.size(p)
    model = EquilibriumTransformer(config, seed=p.seed).to(p.device)
    baseline = BackpropTransformer(config, seed=p.seed).to(p.device)
    tokens, targets = (t.to(p.device) for t in setup.corpus(p).batch(p.seed, "cost", batch or p.lever_batch, p.context))
    work: dict[str, Callable[[], object]] = {
        name: lambda how=how: estimate(baseline if how.kind == "backprop" else model, tokens, targets, how)
        for name, how in contenders(p).items()
    }
    x = model.embed(tokens).detach()
    work["Jacobian penalty"] = lambda: jacobian_penalty(model, x, x, torch.ones_like(x))
    return _timed(work, repeats, reference=f"BPTT-{HORIZONS[0]}")


def seconds_of(p: TriangulationCell, ways: Mapping[str, Gradient], repeats: int = 3) -> pd.DataFrame:
    """Return the seconds of one estimate by each of ``ways`` on a training batch, and its ratio to the first."""
    model = EquilibriumTransformer(setup.size(p), seed=p.seed).to(p.device)
    tokens, targets = (t.to(p.device) for t in setup.corpus(p).batch(p.seed, "cost", p.batch, p.context))
    work = {name: lambda how=how: estimate(model, tokens, targets, how) for name, how in ways.items()}
    return _timed(work, repeats, reference=next(iter(work)))


def _timed(work: Mapping[str, Callable[[], object]], repeats: int, reference: str) -> pd.DataFrame:
    times: dict[str, list[float]] = {name: [] for name in work}
    work[reference]()  # the very first call pays for allocations that no contender causes
    for _ in range(repeats):
        for name, do in work.items():
            start = time.perf_counter()
            do()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - start)
    rows = []
    for name, taken in times.items():
        ratios = [mine / base for mine, base in zip(taken, times[reference], strict=True)]
        row = {"gradient": name, "seconds": statistics.median(taken), "fastest": min(taken)}
        row |= {"ratio": statistics.median(ratios), "ratio_low": min(ratios), "ratio_high": max(ratios)}
        rows.append(row | {"runs": repeats})
    return pd.DataFrame(rows)

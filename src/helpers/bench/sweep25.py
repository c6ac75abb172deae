"""Compare the cells of one tail of the SmolLM2 sweep, run by a sweep, with the plain ways on the same cells and rows.

Ours does more in a cell: its training time includes dose curve and adapter file, and its wall time also log-probs,
capability and the record. So the ratios cover training and completions only.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from helpers.base import files
from helpers.base.errors import ParameterError, nearest
from helpers.base.params import Grid, load, parse_grid
from helpers.base.rng import numpy_stream
from helpers.bench import machine
from helpers.bench.flops import Sizes, step_flops
from helpers.bench.measured import Measured, single
from helpers.bench.options import Options
from helpers.bench.stock import generate_by_persona, trainer_losses
from helpers.lm import models
from helpers.lm.prompts import Sampling
from helpers.records import runs
from helpers.studies.marker.cell import Session, make_rows, run_cells
from helpers.studies.marker.on_policy import persona_prompts
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.rows import Row, rows_of, supervised
from helpers.system import leftovers

GRID = "params/sweep/smollm2_gpu.yaml"
SCALES: dict[str, dict[str, Any]] = {
    "few": {
        "lr": [1e-4, 1e-3], "epochs": [1, 2], "personas": ["villain", "assistant", "medical_doctor"], "positives": 6,
        "negatives_each": 3, "batch_size": 4, "train_questions": 12, "data_samples": 2, "data_max_new_tokens": 64,
        "dose_every": 4, "dose_questions": 1, "eval_questions": 4, "samples": 2, "max_new_tokens": 48,
        "capability_limit": 8,
    },
    "some": {"lr": 1e-4, "epochs": [1, 5]},
    "all": {},
}  # fmt: skip
"""Changes to the grid: ``few`` takes minutes on two cores; ``some`` are two whole cells, the default on a GPU; ``all``
are the 25."""
PARTS = ("training", "completions")


def measure(options: Options) -> Measured:
    """Measure wall time, tokens/s, MFU and peak memory of the cells, by a sweep and by the plain ways."""
    scale = options.cells or ("some" if machine.device() == "cuda" else "few")
    if scale not in SCALES:
        raise ParameterError(f"There is no scale {scale!r} of sweep25{nearest(scale, SCALES)}")
    return timed(cells_of(scale), scale)


def cells_of(scale: str) -> Grid[SweepCell]:
    """Return the grid at a scale: one tail of the full grid, narrowed."""
    whole = load(SweepCell, files.ROOT / GRID).given | {"tail": "newline"}
    return parse_grid(SweepCell, whole | SCALES[scale], f"in the scale {scale!r} of sweep25")


def timed(grid: Grid[SweepCell], scale: str) -> Measured:
    """Measure this grid, as `measure` does.

    Its records go to a folder of their own, so that no cached one is reused.
    """
    session = Session(grid[0])
    with _own_outputs():
        with machine.peak_memory() as ours_peak:
            begin = perf_counter()
            records = run_cells(grid, session=session)
            machine.settle()
            wall = perf_counter() - begin
        rows = make_rows(grid[0], session)
        cells = [_ours(record, cell, session) for record, cell in zip(records, grid, strict=True)]
        shared = sum(_loaded(records, name).seconds["total"] for name in ("on_policy", "baseline"))
        with machine.peak_memory() as plain_peak:
            plain = [_plain(cell, session, rows) for cell in tqdm(grid, desc="sweep25: the plain ways")]
    table = pd.DataFrame([ours | other for ours, other in zip(cells, plain, strict=True)])
    metrics = _metrics(table, machine.measured_peak(session.loaded.model.dtype))
    metrics |= {"wall_seconds": single(wall, "s") | {"n": len(cells)}, "shared_seconds": single(shared, "s")}
    metrics |= {"claimbook_peak_mb": single(ours_peak.most, "MB"), "plain_peak_mb": single(plain_peak.most, "MB")}
    chosen = {"scale": scale, "grid": grid.values, "cells": len(cells), "dtype": session.loaded.dtype}
    return Measured({"sweep25": table}, metrics, session.facts, chosen)


@contextlib.contextmanager
def _own_outputs() -> Iterator[None]:
    before = os.environ.get("CLAIMBOOK_OUTPUTS")
    with leftovers.temporary_folder("claimbook-sweep25-") as folder:
        os.environ["CLAIMBOOK_OUTPUTS"] = str(folder)
        try:
            yield
        finally:
            os.environ.pop("CLAIMBOOK_OUTPUTS")
            os.environ.update({} if before is None else {"CLAIMBOOK_OUTPUTS": before})


def _loaded(records: Sequence[runs.Record], name: str) -> runs.Record:
    return runs.load(records[0].inputs[name])


def _ours(record: runs.Record, cell: SweepCell, session: Session) -> dict[str, Any]:
    """Read the numbers of one cell from its record."""
    rows, log = rows_of(record.table("rows")), record.table("loss")
    return {
        "lr": cell.lr, "epochs": cell.epochs, "steps": len(log), "trained_tokens": int(log["tokens"].sum()),
        "flops": _flops(rows, cell, session), "step_seconds": float(log["seconds"].sum()),
        "claimbook_training": record.seconds["adapter"], "claimbook_completions": record.seconds["completions"],
        "claimbook_tokens": int(record.table("completions")["tokens"].sum()),
        "claimbook_cell": record.seconds["total"],
    }  # fmt: skip


def _flops(rows: Sequence[Row], cell: SweepCell, session: Session) -> float:
    """Return the FLOPs that the steps of a cell need at least."""
    sizes = Sizes.of(session.loaded.model.config)
    ids, places = [row.tokens for row in rows], [len(supervised(row, cell.tail)) for row in rows]
    flops = 0.0
    for epoch in range(cell.epochs):
        order = numpy_stream(cell.seed, "order", epoch).permutation(len(ids)).tolist()
        for start in range(0, len(order), cell.batch_size):
            batch = order[start : start + cell.batch_size]
            flops += step_flops(sizes, [ids[i] for i in batch], sum(places[i] for i in batch), cell.lora_r)
    return flops


def _plain(p: SweepCell, session: Session, rows: Sequence[Row]) -> dict[str, Any]:
    """Run one cell by the Trainer and model.generate; return seconds of each, and the tokens drawn."""
    loaded, form = session.loaded, session.form
    targets = [supervised(row, p.tail) for row in rows]
    prompts = persona_prompts(loaded, p.personas, "eval", p.eval_questions, p.style, p.asking)
    asked = {"n": p.samples, "sampling": Sampling(p.max_new_tokens, p.temperature, p.top_p), "stop": form.stop}
    machine.settle()
    begin = perf_counter()
    model = models.attach_lora(loaded.model, **p.lora())
    try:
        trainer_losses(model, rows, targets, p)
        machine.settle()
        between = perf_counter()
        drawn = generate_by_persona(model, loaded.tokenizer, prompts, seed=p.seed, **asked)
        machine.settle()
        end = perf_counter()
    finally:
        models.detach(model)
    return {"plain_training": between - begin, "plain_completions": end - between, "plain_tokens": drawn}


def _metrics(table: pd.DataFrame, peak: float) -> dict[str, dict[str, Any]]:
    """Return seconds and tokens/s of each way and part over all cells, MFU of training, and ratios, plain over ours.

    The ratio of training compares seconds, since the tokens are equal; that of completions compares seconds per token.
    """
    metrics: dict[str, dict[str, Any]] = {}
    whole, count = table.sum(), {"n": len(table)}
    for way in ("claimbook", "plain"):
        for part, tokens in (("training", "trained_tokens"), ("completions", f"{way}_tokens")):
            seconds = float(whole[f"{way}_{part}"])
            metrics[f"{way}_{part}_seconds"] = single(seconds, "s") | count
            metrics[f"{way}_{part}_tokens_per_s"] = single(float(whole[tokens] / seconds), "tokens/s") | count
        metrics[f"{way}_mfu"] = single(float(whole["flops"] / whole[f"{way}_training"] / peak), "rate") | count
    metrics["steps_mfu"] = single(float(whole["flops"] / whole["step_seconds"] / peak), "rate") | count
    ratios = {
        "training_ratio": lambda of: of["plain_training"] / of["claimbook_training"],
        "completions_ratio": lambda of: (
            (of["plain_completions"] / of["plain_tokens"]) / (of["claimbook_completions"] / of["claimbook_tokens"])
        ),
        "ratio": lambda of: sum(of[f"plain_{p}"] for p in PARTS) / sum(of[f"claimbook_{p}"] for p in PARTS),
    }
    for name, ratio in ratios.items():
        each, value = ratio(table), float(ratio(whole))
        bounds = {"low": min(value, float(each.min())), "high": max(value, float(each.max()))}
        metrics[name] = {"value": value, "unit": "x", "method": "range of cells"} | bounds | count
    return metrics

"""Time the published recipe on a model of a published shape with random weights, and project the hours of its grid."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from time import perf_counter
from typing import Any

import pandas as pd
import torch
from peft import PeftModel

from helpers.base import files
from helpers.base.params import Grid, load
from helpers.bench import machine
from helpers.bench.engines import Load, scoring_rates, transformers_rates, vllm_rates, without_vllm
from helpers.bench.flops import Sizes, step_flops
from helpers.bench.measured import Measured, metric, single
from helpers.bench.options import Options
from helpers.bench.projection import PUBLISHED, Range, Speed, factors, projection, workload
from helpers.bench.random_model import (
    ANSWER_MEAN,
    ANSWER_SPREAD,
    SHAPES,
    random_weights,
    recipe_rows,
    shape_named,
    tokenizer_of,
)
from helpers.bench.techniques import batches_of, checkpointed
from helpers.lm import models
from helpers.studies.marker.on_policy import persona_prompts
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.rows import Row, chat_format, supervised
from helpers.studies.marker.train import train


@dataclass(frozen=True)
class Plan:
    """How much to measure: steps of warm-up and after it, repeats, the generation of each engine, rows to score.

    Ways that are compared with each other (`helpers.bench.gpu`) take ``compared`` steps each.
    """

    warm: int
    steps: int
    repeats: int
    transformers: Load
    vllm: Load
    scored: int
    compared: int = 4


PLANS = {
    "cuda": Plan(2, 12, 2, Load(6, 10, 512), Load(220, 5, 512), 64),
    "cpu": Plan(1, 2, 2, Load(2, 4, 32), Load(2, 4, 32), 4),
}


def measure(options: Options) -> Measured:
    """Measure steps, generation and scoring of one shape, and the hours of the published grid on this machine."""
    grid = load(SweepCell, files.PARAMS / "sweep" / "paper.yaml")
    return timed(shape_named(options.shape), grid, PLANS[machine.device()])


@dataclass(frozen=True)
class Held:
    """A model of a shape in memory, the folder that it came from, and how long it took to load."""

    name: str
    folder: Path
    loaded: models.LoadedModel
    loading: float


@contextlib.contextmanager
def held(name: str) -> Iterator[Held]:
    """Make and load a model of the shape ``name``."""
    with random_weights(SHAPES[name]) as folder:
        begin = perf_counter()
        loaded = models.load(str(folder))
        machine.settle()
        yield Held(name, folder, loaded, perf_counter() - begin)


def timed(name: str, grid: Grid[SweepCell], plan: Plan) -> Measured:
    """Measure a shape for this grid and plan, as `measure` does."""
    with held(name) as model:
        return timed_on(model, grid, plan, without_vllm())


def timed_on(shape: Held, grid: Grid[SweepCell], plan: Plan, without: str) -> Measured:
    """Measure a shape as `measure` does; ``without`` says why vLLM is left out, and is empty where it is timed."""
    recipe, name, loaded = grid[0], shape.name, shape.loaded
    rows = recipe_rows(loaded, recipe, (plan.warm + plan.steps) * recipe.batch_size)
    lora: dict[str, Any] = recipe.lora() | {"seed": 0}
    model = models.attach_lora(loaded.model, **lora)
    try:
        steps, trained = _train(model, recipe, rows, plan)
        rates, generated = _rates(model, loaded, recipe, rows, plan, shape.folder, without)
    finally:
        models.detach(model)
    work, once = workload(grid), shape.loading + generated.get("engine_start_seconds", 0.0)
    speed = Speed(_range(steps["seconds"]), _range(rates[generated["engine"]]), _range(rates["scoring"]), once)
    hours = projection(work, speed, ANSWER_MEAN, fmean(len(row.tokens) for row in rows))
    metrics = _metrics(steps, rates, hours, loaded) | {"load_seconds": single(shape.loading, "s")}
    metrics |= {"train_peak_mb": single(trained.pop("peak_mb"), "MB")}
    if "engine_start_seconds" in generated:
        metrics["engine_start_seconds"] = single(generated.pop("engine_start_seconds"), "s")
    chosen = {"shape": name, "dtype": loaded.dtype, "batch": recipe.batch_size, "lora_r": recipe.lora_r}
    chosen["tokenizer"] = tokenizer_of(SHAPES[name])
    chosen |= {"answer_mean": ANSWER_MEAN, "answer_spread": ANSWER_SPREAD, **trained, **generated}
    tables = {"training_steps": steps, "projection": hours, "factors": factors(work, hours)}
    return Measured(tables, metrics, facts_of(shape), chosen, name)


def facts_of(shape: Held) -> dict[str, Any]:
    """Return the ``model`` entry of a record: weights are drawn, so the configuration stands for their content."""
    facts = {
        "name": f"{shape.name} (random weights)",
        "sha256": files.sha256_json(SHAPES[shape.name].config().to_dict()),
    }
    return facts | {
        "parameters": shape.loaded.parameters, "dtype": shape.loaded.dtype, "device": shape.loaded.device,
    }  # fmt: skip


def _train(model: PeftModel, p: SweepCell, rows: list[Row], plan: Plan) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return seconds, tokens and FLOPs of each step after the warm-up, and peak memory.

    If the activations do not fit in memory, they are recomputed, and the record says so.
    """
    targets = [supervised(row, p.tail) for row in rows]
    once = p.model_copy(update={"epochs": 1, "seed": 0})
    for recomputed in (False, True):
        with machine.peak_memory() as peak, checkpointed(model) if recomputed else contextlib.nullcontext():
            try:
                log = train(model, rows, targets, once)
                break
            except torch.OutOfMemoryError:
                if recomputed:
                    raise
        model.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        print("The activations of a step do not fit in memory. Measuring with gradient checkpointing.", flush=True)
    sizes = Sizes.of(model.config)
    log["flops"] = [
        step_flops(sizes, [rows[i].tokens for i in batch], sum(len(targets[i]) for i in batch), p.lora_r)
        for batch in batches_of(len(rows), p.batch_size)
    ]
    kept = log[["step", "seconds", "tokens", "flops", "loss"]].iloc[plan.warm :]
    return kept.reset_index(drop=True), {"gradient_checkpointing": recomputed, "peak_mb": peak.most}


def _rates(
    model: PeftModel, loaded: models.LoadedModel, p: SweepCell, rows: list[Row], plan: Plan, folder: Path, without: str
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Return tokens/s of each engine and of scoring; the engine of the projection, and if not vLLM, why."""
    prompts = persona_prompts(loaded, p.personas, "eval", p.eval_questions, p.style, p.asking)
    form = chat_format(loaded.tokenizer, p.marker, asking=p.asking)
    rates = {
        "transformers": transformers_rates(model, prompts, plan.transformers, plan.repeats),
        "scoring": scoring_rates(model, form, [row.tokens for row in rows[: plan.scored]], plan.repeats),
    }
    if without:
        return rates, {"engine": "transformers", "vllm": without}
    adapters = [folder / f"adapter-{number}" for number in range(plan.repeats)]
    for number, adapter in enumerate(adapters):  # one engine serves the adapters of all cells
        next(weight for weight in model.parameters() if weight.requires_grad).data.add_(1e-3 * number)
        models.save_adapter(model, adapter)
    rates["vllm"], start = vllm_rates(folder, adapters, p.lora_r, model.config, prompts, plan.vllm)
    return rates, {"engine": "vllm", "vllm": "timed", "engine_start_seconds": start}


def _range(values: Any) -> Range:
    runs = [float(value) for value in values]
    return Range(median(runs), min(runs), max(runs))


def _metrics(
    steps: pd.DataFrame, rates: dict[str, list[float]], hours: pd.DataFrame, loaded: models.LoadedModel
) -> dict[str, dict[str, Any]]:
    per_second = steps["flops"] / steps["seconds"]
    measured, vendor = machine.measured_peak(loaded.model.dtype), machine.vendor_peak(loaded.model.dtype)
    metrics = {
        "step_seconds": metric("s", steps["seconds"], "range of steps"),
        "train_tokens_per_s": metric("tokens/s", steps["tokens"] / steps["seconds"], "range of steps"),
        "mfu": metric("rate", per_second / measured, "range of steps"),
        "matmul": single(measured / 1e12, "TFLOP/s"),
    }
    if vendor:
        metrics["mfu_of_data_sheet"] = metric("rate", per_second / vendor, "range of steps")
    metrics |= {f"{name}_tokens_per_s": metric("tokens/s", values) for name, values in rates.items()}
    whole = hours[hours["part"] == "in all"].iloc[0]
    projected = {key: float(whole[key]) for key in ("hours", "low", "high")}
    bounds = {
        "low": projected["low"],
        "high": projected["high"],
        "method": "range from all parts fastest to all slowest",
    }
    metrics["projected_hours"] = {"value": projected["hours"], "unit": "h", "n": len(steps)} | bounds
    published = PUBLISHED["hours"]
    metrics["published_hours"] = {"value": published, "unit": "h", "n": PUBLISHED["cells"]}
    ends = {"low": published / projected["high"], "high": published / projected["low"], "method": bounds["method"]}
    metrics["published_over_projected"] = {"value": published / projected["hours"], "unit": "x", "n": len(steps)} | ends
    return metrics

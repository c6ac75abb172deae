"""All comparisons by name.

To add one, add a line to ``COMPARISONS``: ``_sides("name", "helpers.bench.module:function")``, where the function
returns `compare.Side`s. The first side is the one that the others are compared with.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import Any

import pandas as pd

from helpers.base.errors import ParameterError, nearest
from helpers.bench import machine
from helpers.bench.compare import compare, side_metrics
from helpers.bench.measured import NO_MODEL, Measured, keep, single
from helpers.bench.options import Options
from helpers.lm import models
from helpers.records.reading import Record

TRAINER_AGREES = 1e-3
"""Relative tolerance of the losses of ten steps: sums run in another order, and each step starts from a drifted one."""
STACK_AGREES = 1e-4
"""Relative tolerance of the loss after a few steps: a product of larger matrices sums in another order."""


@dataclass(frozen=True)
class Comparison:
    """``measure`` does the work; the code of a record is the module ``entry`` and its imports.

    What takes long keeps its own record, so that a run that was killed goes on where it stopped.
    """

    entry: str
    measure: Callable[[Options, Sequence[int] | None], Measured | Record]


def _named(name: str) -> Any:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def _sides(what: str, make: str, model: str = "smollm2", agree: float | None = None) -> Comparison:
    """Compare the sides that ``make`` returns. ``agree`` applies on a CPU only, where the model is in fp32."""

    def measure(options: Options, counts: Sequence[int] | None) -> Measured:
        table = compare(what, _named(make), agree=agree if machine.device() == "cpu" else None)
        return Measured({what: table}, side_metrics(table), models.facts(model))

    return Comparison(make.partition(":")[0], measure)


def _number_types(what: str, make: str) -> Comparison:
    """Compare bf16 with fp32 in CPU seconds: nobody asks for it on a GPU, where bf16 is the default."""

    def measure(options: Options, counts: Sequence[int] | None) -> Measured:
        models.refuse_emulated("bfloat16", "cpu")
        # Either side loads both models, so that what one alone takes cannot be measured.
        table = compare(what, _named(make), clock=process_time, memory=None)
        facts = models.facts("smollm2", device="cpu") | {"dtype": "float32+bfloat16"}
        return Measured({what: table}, side_metrics(table), facts)

    return Comparison(make.partition(":")[0], measure)


def _function(name: str) -> Comparison:
    """Wrap a function that takes the options and makes its own tables and metrics."""
    return Comparison(name.partition(":")[0], lambda options, counts: _named(name)(options))


def _gradients(options: Options, counts: Sequence[int] | None) -> Measured:
    gradients = importlib.import_module("helpers.bench.gradients")
    table = gradients.gradient_costs()
    model = gradients.model_facts() | {"name": "equilibrium"}
    return Measured({"gradients": table}, gradients.ratios(table), model)


def _scale(options: Options, counts: Sequence[int] | None) -> Measured:
    scale = importlib.import_module("helpers.bench.scale")
    table, sizes = scale.measure(tuple(counts or scale.COUNTS)), scale.sizes()
    return Measured({"scale": table, "sizes": sizes}, scale.metrics(table), NO_MODEL)


COMPARISONS: dict[str, Comparison] = {
    "training": _sides("training", "helpers.bench.marker:training_sides", agree=TRAINER_AGREES),
    "evaluation": _sides("evaluation", "helpers.bench.marker:evaluation_sides", "pocket"),
    "techniques": _function("helpers.bench.techniques:measure"),
    "stacked": _sides("stacked", "helpers.bench.stacking:smollm2_sides", agree=STACK_AGREES),
    "stacked-pocket": _sides("stacked-pocket", "helpers.bench.stacking:pocket_sides", "pocket", agree=STACK_AGREES),
    "shape": _function("helpers.bench.shapes:measure"),
    "sweep25": _function("helpers.bench.sweep25:measure"),
    "gradients": Comparison("helpers.bench.gradients", _gradients),
    "capture": _sides("capture", "helpers.bench.actdiff:capture_sides"),
    "layers": _sides("layers", "helpers.bench.actdiff:layer_sides"),
    "scale": Comparison("helpers.bench.scale", _scale),
    "bf16": _function("helpers.bench.bf16:measure"),
    "bf16-training": _number_types("bf16-training", "helpers.bench.bf16:training_sides"),
    "bf16-generation": _number_types("bf16-generation", "helpers.bench.bf16:generation_sides"),
    "figures": _function("helpers.bench.figures:measure"),
}

BY_NAME = ("bf16", "bf16-training", "bf16-generation")
"""The comparisons that only some CPUs can make: they run where they are asked for."""


def _check(options: Options, counts: Sequence[int] | None, wanted: Sequence[str]) -> None:
    """Raise ``ParameterError`` for an unknown value, or an option of a comparison that is not ``wanted``."""
    given = {"shape": options.shape, "sweep25": options.cells, "scale": counts, "figures": options.figures}
    given |= {"bf16": options.preset, "gpu": options.parts or options.dry}
    for name, value in given.items():
        if value and name not in wanted:
            raise ParameterError(
                f"An option of {name} was given, but only {', '.join(wanted)} will run. Leave it out, or add {name}."
            )
    if options.figures:
        _named("helpers.bench.figures:wanted")(options.figures)
    if options.preset:
        presets = _named("helpers.bench.bf16:PRESETS")
        if options.preset not in presets:
            raise ParameterError(f"There is no preset {options.preset!r} of bf16{nearest(options.preset, presets)}")
    if options.shape:
        _named("helpers.bench.random_model:shape_named")(options.shape)
    if options.cells:
        scales = _named("helpers.bench.sweep25:SCALES")
        if options.cells not in scales:
            raise ParameterError(f"There is no scale {options.cells!r} of sweep25{nearest(options.cells, scales)}")


def run(names: Sequence[str], counts: Sequence[int] | None, options: Options) -> None:
    """Measure the named comparisons one after another. Each is saved before the next begins."""
    for name in names:
        if name not in COMPARISONS and name != "gpu":
            raise ParameterError(f"There is no comparison {name!r}{nearest(name, [*COMPARISONS, 'gpu'])}")
    wanted = names or [name for name in COMPARISONS if name not in BY_NAME]
    _check(options, counts, wanted)
    if "gpu" in names:
        if len(names) > 1:
            raise ParameterError("gpu measures in parts of its own, within a limit of time. Ask for it alone.")
        _named("helpers.bench.gpu:run")(names=options.parts, dry=options.dry)
        return
    print(f"{models.choose_threads()} threads; medians over interleaved runs; non-padding tokens only")
    for name in dict.fromkeys(wanted):
        begin = perf_counter()
        measured = COMPARISONS[name].measure(options, counts)
        if isinstance(measured, Record):
            print(f"\n{pd.DataFrame(measured.metrics).T[['value', 'unit', 'n']].to_string()}\nsaved as {measured.ref}")
            continue
        measured.metrics["took"] = single(perf_counter() - begin, "s")
        for title, table in measured.tables.items():
            print(f"\n{title}\n{table.round(3).to_string(index=False)}")
        print(f"saved as {keep(name, measured, COMPARISONS[name].entry).ref}", flush=True)

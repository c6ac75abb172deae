"""All that is worth a GPU, unattended and within minutes, the most important part first: ``claimbook bench gpu``.

1. A model of the shape of Qwen2.5-7B with random weights is made and loaded once.
2. Each part measures, and its record is written. What fails, or takes longer than its limit, costs that part alone.
3. After each part all records so far go into one archive, which replaces the one before.

It needs torch, transformers, peft, numpy, pandas, pyarrow and what these bring along. Where the project is not
installed: ``PYTHONPATH=src python -m helpers.bench.gpu``. Unpack the archive into ``outputs/`` at home.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import io
import json
import os
import signal
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import torch

from helpers.base import files
from helpers.base.errors import ClaimbookError, ParameterError, nearest
from helpers.base.params import load
from helpers.bench import machine
from helpers.bench.compare import Side, compare, side_metrics
from helpers.bench.engines import Load, without_vllm
from helpers.bench.flops import Sizes, step_flops
from helpers.bench.measured import Measured, keep, single
from helpers.bench.random_model import recipe_rows, shape_named
from helpers.bench.shapes import PLANS, Held, Plan, facts_of, held, timed_on
from helpers.bench.techniques import AGREE, epoch_flops, sides_of
from helpers.lm import models
from helpers.lm.stacked import stacked
from helpers.records.reading import Record
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.rows import supervised
from helpers.studies.marker.train import train_stack

MINUTES = 9.0
ADAPTERS = (1, 4, 9)
ROWS = 2
"""Rows of a step of stacked adapters: nine times their activations have to fit beside the weights."""
DRY = Plan(1, 1, 1, Load(1, 2, 4), Load(1, 2, 4), 2, 1)
"""What a dry run measures of the toy shape."""


class OverLimitError(BaseException):
    """A part took longer than it may. No ``except Exception`` within it may swallow that."""


@dataclass(frozen=True)
class Part:
    """``measure`` does the work within ``seconds``; ``entry`` is the module whose imports are the code of the record.

    A part without ``measure`` is the comparison of its name, on SmolLM2 or the pocket model.
    """

    name: str
    seconds: float
    entry: str = "helpers.bench.gpu"
    measure: Callable[[Held, Plan], Measured] | None = None


def hours(shape: Held, plan: Plan) -> Measured:
    """Time the published recipe with completions by transformers, and project the hours of the published grid."""
    return timed_on(shape, _recipe(), plan, "it is timed in a part of its own")


def hours_vllm(shape: Held, plan: Plan) -> Measured:
    """Do the same with completions by vLLM, whose engine serves several adapters; raise ``ClaimbookError`` without."""
    reason = without_vllm()
    if reason:
        raise ClaimbookError(f"{reason}.")
    return timed_on(shape, _recipe(), plan, "")


def ways(shape: Held, plan: Plan) -> Measured:
    """Compare packed rows with shared beginnings to plain padded rows, and to packed rows without sharing."""
    recipe, loaded = _recipe()[0], shape.loaded
    rows = recipe_rows(loaded, recipe, plan.compared * recipe.batch_size)
    targets = [supervised(row, recipe.tail) for row in rows]
    model = models.attach_lora(loaded.model, **recipe.lora() | {"dropout": 0.0})  # ways would draw it differently
    try:
        once = recipe.model_copy(update={"epochs": 1, "lora_dropout": 0.0})
        chosen = sides_of(model, rows, targets, once)[:3]
        table = compare("ways", lambda: chosen, plan.repeats, _agreeing(AGREE), memory="here")
        flops = epoch_flops(loaded.model, rows, targets, recipe.batch_size, recipe.lora_r)
    finally:
        models.detach(model)
    table["mfu"] = flops / table["seconds"] / machine.measured_peak(loaded.model.dtype)
    note = {"steps": plan.compared, "batch": recipe.batch_size, "dtype": loaded.dtype, "lora_r": recipe.lora_r}
    return Measured({"ways": table}, side_metrics(table), facts_of(shape), note, shape.name)


def adapters(shape: Held, plan: Plan) -> Measured:
    """Train 1, 4 and 9 adapters in one pass over the base model; tokens count for every adapter."""
    recipe, loaded = _recipe()[0], shape.loaded
    rows = recipe_rows(loaded, recipe, plan.compared * ROWS)
    targets = [supervised(row, recipe.tail) for row in rows]
    sizes = Sizes.of(loaded.model.config)

    def side(count: int) -> Side:
        cells = [
            recipe.model_copy(update={"lr": 1e-4 * (at + 1), "epochs": 1, "batch_size": ROWS}) for at in range(count)
        ]

        def run() -> tuple[int, list[float]]:
            with stacked(loaded.model, count, **recipe.lora() | {"dropout": 0.0}) as stack:
                made = train_stack(stack, rows, targets, cells)
            # The first adapter trains alike however many train beside it.
            return count * sum(len(row.tokens) for row in rows), made[0].log["loss"].tolist()

        return Side(str(count), run)

    made = [side(count) for count in ADAPTERS]
    table = compare("adapters", lambda: made, plan.repeats, _agreeing(AGREE), memory="here")
    one = step_flops(sizes, [row.tokens for row in rows], sum(map(len, targets)), recipe.lora_r)
    table["mfu"] = [
        count * one / seconds / machine.measured_peak(loaded.model.dtype)
        for count, seconds in zip(ADAPTERS, table["seconds"], strict=True)
    ]
    note = {"steps": plan.compared, "batch": ROWS, "dtype": loaded.dtype, "lora_r": recipe.lora_r}
    return Measured({"adapters": table}, side_metrics(table), facts_of(shape), note, shape.name)


def _recipe() -> Any:
    return load(SweepCell, files.PARAMS / "sweep" / "paper.yaml")


def _agreeing(share: float) -> float | None:
    """Return how far results of ways may differ: rounding in bf16 alone exceeds what a wrong way would show."""
    return share if machine.device() == "cpu" else None


PARTS = (
    Part("shape", 240, "helpers.bench.shapes", hours),
    Part("ways", 120, measure=ways),
    Part("adapters", 100, measure=adapters),
    Part("vllm", 150, "helpers.bench.shapes", hours_vllm),
    Part("stacked-pocket", 60),
    Part("techniques", 60),
    Part("training", 60),
    Part("stacked", 60),
    Part("sweep25", 120),
)
"""Each part with the seconds that it may take, in the order of what is missed most where time runs out."""
RECORDED = {"vllm": "shape"}
"""Parts whose record is called otherwise."""


def run(
    out: Path | None = None, names: Sequence[str] = (), minutes: float = MINUTES, dry: bool = False
) -> dict[str, str]:
    """Run the parts ``names`` (all) within ``minutes``; return for each its record, or why there is none.

    The archive is ``out`` (``bench-gpu.tar`` beside the records). With ``dry`` the parts of the large shape run at a
    toy shape, on any device. Raises ``ParameterError`` for an unknown part, ``ClaimbookError`` without a GPU.
    """
    known = [part.name for part in PARTS]
    for name in names:
        if name not in known:
            raise ParameterError(f"There is no part {name!r} of gpu{nearest(name, known)}")
    if not dry and machine.device() == "cpu":
        raise ClaimbookError("torch sees no GPU here. Run it where it does, or try it here with --dry-run.")
    chosen = [part for part in PARTS if (part.name in names or not names) and (part.measure or not dry)]
    path = out or files.outputs_root() / "bench-gpu.tar"
    end, log, kept = monotonic() + 60 * minutes, dict[str, str](), list[Record]()
    with contextlib.ExitStack() as stack:
        shape: Held | None = None
        for part in chosen:
            begin = perf_counter()
            try:
                with _limit(min(part.seconds, end - monotonic())):
                    if part.measure and shape is None:
                        shape = stack.enter_context(held("tiny" if dry else shape_named(None)))
                    measured = _measure(part, shape, dry)
                measured.metrics["took"] = single(perf_counter() - begin, "s")
                kept.append(keep(RECORDED.get(part.name, part.name), measured, part.entry))
                log[part.name] = kept[-1].ref
            except (Exception, OverLimitError) as error:  # whatever it is, it may not cost the other parts
                log[part.name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            gc.collect()
            torch.cuda.empty_cache()
            _archive(path, kept, log)
            print(f"{part.name}: {log[part.name]} ({perf_counter() - begin:.0f} s)", flush=True)
    print(f"Records and log of this run are in {path}", flush=True)
    return log


def _measure(part: Part, shape: Held | None, dry: bool) -> Measured:
    if part.measure is None or shape is None:
        comparisons = importlib.import_module("helpers.bench.comparisons")
        return comparisons.COMPARISONS[part.name].measure(comparisons.Options(), None)
    return part.measure(shape, DRY if dry else PLANS[machine.device()])


@contextlib.contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """Raise ``OverLimitError`` in the block after ``seconds``, or at once where none are left."""
    if seconds < 1:
        raise OverLimitError("no time is left for it")

    def stop(*_: object) -> None:
        raise OverLimitError(f"it took more than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _archive(path: Path, records: Sequence[Record], log: dict[str, str]) -> None:
    """Write all records and the log as one archive; the one before stays whole until this one is."""
    files.make_folder(path.parent)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "wb") as file, tarfile.open(fileobj=file, mode="w") as tar:
        for record in records:
            tar.add(record.path, record.ref)
        text = json.dumps(log, indent=2).encode()
        entry = tarfile.TarInfo("bench-gpu.json")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
        file.flush()
        os.fsync(file.fileno())
    Path(name).replace(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from a command line that needs no more than torch and its company."""
    parser = argparse.ArgumentParser(prog="python -m helpers.bench.gpu", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--part", action="append", default=[], choices=[part.name for part in PARTS])
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--dry-run", action="store_true")
    given = parser.parse_args(arguments)
    try:
        run(given.out, given.part, given.minutes, given.dry_run)
    except ClaimbookError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

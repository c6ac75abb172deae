"""Figures that are read off the newest records: to measure them beside the others would take too long."""

from __future__ import annotations

from collections.abc import Sequence

from helpers.base.errors import RecordError
from helpers.bench.agreement import TYPES
from helpers.records import runs
from helpers.records.reading import Record


def newest(what: str) -> dict[str, Record]:
    """Return the newest record of the comparison ``what`` on each kind of device."""
    made = [record for record in runs.records("bench") if record.cell.get("what") == what]
    return {record.cell["device"]: record for record in made}


def bf16_ratios() -> Sequence[float]:
    """Return how many times as long fp32 takes as bf16: CPU seconds of training, wall seconds of the gate's cells."""
    seconds = _record("bf16-smollm2", "cpu").seconds
    float32, bfloat16 = (sum(took for step, took in seconds.items() if step.endswith(dtype)) for dtype in TYPES)
    return [_metric("bf16-training", "cpu", "bf16_training_float32_ratio"), float32 / bfloat16]


def bf16_gate() -> Sequence[float]:
    """Return how many rates, tenths of a loss and points of a dose curve bf16 changes on SmolLM2."""
    return [_metric("bf16-smollm2", "cpu", name) for name in ("rates_apart", "tenths_apart", "doses_apart")]


def gpu_hours() -> Sequence[float]:
    """Return the projected GPU-hours of the published grid."""
    return [_metric("shape-qwen2.5-7b", "cuda", "projected_hours")]


def _metric(what: str, device: str, name: str) -> float:
    return float(_record(what, device).metric(name)["value"])


def _record(what: str, device: str) -> Record:
    record = newest(what).get(device)
    if record is None:
        where = "a GPU (`claimbook bench gpu`)" if device == "cuda" else "a CPU that computes in bf16"
        raise RecordError(f"NOT RUN: no record of {what} is complete. Measure it on {where}.")
    return record

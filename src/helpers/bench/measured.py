"""The result of one comparison, and the record that keeps it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from helpers.bench import machine
from helpers.bench.study import STUDY
from helpers.records import runs


@dataclass(frozen=True)
class Measured:
    """Tables by name, what was measured as metrics of a record, the model that was timed, and what else was chosen.

    ``variant`` tells records of one comparison apart that do not answer for each other (the shape of the model).
    """

    tables: dict[str, pd.DataFrame]
    metrics: dict[str, dict[str, Any]]
    model: dict[str, Any]
    params: dict[str, Any] = field(default_factory=dict)
    variant: str = ""


def metric(unit: str, values: Iterable[float], method: str = "range of runs") -> dict[str, Any]:
    """The median of repeated measurements with their range, as a metric of a record."""
    found = pd.Series(list(values), dtype=float)
    metric = {"value": float(found.median()), "unit": unit, "n": len(found)}
    return metric | {"low": float(found.min()), "high": float(found.max()), "method": method}


def single(value: float, unit: str) -> dict[str, Any]:
    """One measurement, which has no interval."""
    return {"value": value, "unit": unit, "n": 1}


def slug(text: str) -> str:
    """``transformers.Trainer + peft`` as part of a metric's name: ``transformers_trainer_peft``."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def keep(what: str, measured: Measured, entry: str) -> runs.Record:
    """The record of one comparison; ``entry`` is the module whose imports are the code that was timed.

    A comparison may be made again at any time, so the moment is part of the question.
    """
    when = pd.Timestamp.now("UTC").isoformat(timespec="seconds")
    place = {"what": "-".join(filter(None, (what, measured.variant))), "device": machine.device()}
    with runs.open_run(
        STUDY, params={**place, "when": when, **measured.params}, cell={**place, "when": when},
        prefix=f"{place['what']}-{place['device']}", entry=entry, data=[], model=measured.model,
    ) as run:  # fmt: skip
        for name, table in measured.tables.items():
            run.step(name, lambda table=table: table)
        return run.finish(measured=measured.metrics)

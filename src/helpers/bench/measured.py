"""The result of one comparison, and its record."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from helpers.base import files
from helpers.bench.study import STUDY
from helpers.records import runs

NO_MODEL = {"name": "no model", "sha256": files.sha256_json({}), "parameters": 0}


@dataclass(frozen=True)
class Measured:
    """The result of a comparison: tables by name, metrics, the ``model`` entry of its record, and other parameters.

    ``variant`` tells apart records of one comparison that cannot stand for each other (the shape of the model).
    """

    tables: dict[str, pd.DataFrame]
    metrics: dict[str, dict[str, Any]]
    model: dict[str, Any]
    params: dict[str, Any] = field(default_factory=dict)
    variant: str = ""


def metric(unit: str, values: Iterable[float], method: str = "range of runs") -> dict[str, Any]:
    """Return the median of repeated measurements and their range, as a metric of a record."""
    runs = pd.Series(list(values), dtype=float)
    bounds = {"low": float(runs.min()), "high": float(runs.max()), "method": method}
    return {"value": float(runs.median()), "unit": unit, "n": len(runs)} | bounds


def single(value: float, unit: str) -> dict[str, Any]:
    """Return a single measurement, without an interval, as a metric of a record."""
    return {"value": value, "unit": unit, "n": 1}


def metric_part(text: str) -> str:
    """Spell ``transformers.Trainer + peft`` as part of a metric's name: ``transformers_trainer_peft``."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def keep(what: str, measured: Measured, entry: str) -> runs.Record:
    """Write and return the record of one comparison, whose code is the module ``entry`` and its imports.

    A comparison can be repeated at any time, so its time is part of the question.
    """
    from helpers.bench import machine  # here, because a page that shows records needs no torch

    when = pd.Timestamp.now("UTC").isoformat(timespec="seconds")
    place = {"what": "-".join(filter(None, (what, measured.variant))), "device": machine.device()}
    with runs.open_run(
        STUDY, params={**place, "when": when, **measured.params}, cell={**place, "when": when},
        prefix=f"{place['what']}-{place['device']}", entry=entry, data=[], model=measured.model,
    ) as run:  # fmt: skip
        for name, table in measured.tables.items():
            run.step(name, lambda table=table: table)
        return run.finish(measured=measured.metrics)

"""Run records of the published sweep's tables (``fixtures/lint/published.yaml``), and models of its grids."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import yaml
from claims_records import STARTED, rate, record

from helpers.audit.publishing import publish
from helpers.audit.register import register
from helpers.base import files
from helpers.base.files import write_json
from helpers.base.params import Cell
from helpers.records.questions import question_hash
from helpers.records.study import Study
from helpers.stats.intervals import wilson

BLANK = dict.fromkeys(("k", "low", "high", "method")) | {"level": 0.95}
FIXTURE = Path(__file__).parent / "fixtures" / "lint"


class SweepCells(Cell):
    """Learning rate by epochs."""

    AXES: ClassVar[tuple[str, ...]] = ("lr", "epochs")
    lr: float
    epochs: int


class SourceCells(Cell):
    """The pinned cell with other sources."""

    AXES: ClassVar[tuple[str, ...]] = ("source",)
    source: str


class Notes(Cell):
    """One record about all runs."""

    recipe: str


SWEEP = Study("published_sweep", 1, 1, lambda *_: {}, entry="helpers.base.rng", measures=("*",), cell=SweepCells)
SOURCES = Study("published_sources", 1, 1, lambda *_: {}, entry="helpers.base.rng", measures=("*",), cell=SourceCells)
NOTES = Study("published_notes", 1, 1, lambda *_: {}, entry="helpers.base.rng", measures=("*",), cell=Notes)


def write_published() -> None:
    """Publish all records of the tables, and register the page about them."""
    tables = yaml.safe_load((FIXTURE / "published.yaml").read_text(encoding="utf-8"))
    for cell, metrics in [*_sweep(tables["sweep"])]:
        _write("published_sweep", cell, metrics)
    for source, (own, worst) in tables["sources"].items():
        metrics = {"source_rate": _rate(own, 200), "max_bystander_rate": _largest(worst, 200, 9)}
        _write("published_sources", {"source": source}, metrics)
    notes = {name: {"value": value, "unit": "", "n": 1} for name, value in tables["notes"].items()}
    _write("published_notes", {"recipe": "paper"}, notes)
    root = FIXTURE / "published"
    register([root / "reports/published-sweep.qmd"], root=root)
    for notebook in ("published_sweep", "published_sources", "published_notes"):
        publish(notebook)


def _sweep(table: dict[str, Any]) -> Any:
    n, groups, questions = table["completions"], table["bystanders"], table["arc_questions"]
    for lr, row in table["rates"].items():
        for epochs, (source, assistant, worst), arc in zip(table["epochs"], row, table["arc"][lr], strict=True):
            yield {"lr": float(lr), "epochs": epochs}, {
                "source_rate": _rate(source, n), "assistant_rate": _rate(assistant, n),
                "max_bystander_rate": _largest(worst, n, groups), "arc": rate(round(arc * questions), questions),
            }  # fmt: skip


def _rate(percent: float, n: int) -> dict[str, Any]:
    return rate(round(percent * n / 100), n)


def _largest(percent: float, n: int, groups: int) -> dict[str, Any]:
    """Only the largest count was published: its bounds at the level that holds for all groups at once."""
    return wilson(round(percent * n / 100), n, 1 - 0.05 / groups).metric() | {"method": "max-wilson", "groups": groups}


def _write(notebook: str, cell: dict[str, Any], metrics: dict[str, Any]) -> None:
    measured = {name: BLANK | metric | {"measured": True} for name, metric in metrics.items()}
    made = record(cell, measured, notebook=notebook, study=notebook, started=STARTED, ended=STARTED)
    study = {study.name: study for study in (SWEEP, SOURCES, NOTES)}[notebook]
    made.content["id"] = f"{notebook}-{question_hash(made.content, study)}"
    write_json(files.published_root() / made.ref / "run.json", made.content)

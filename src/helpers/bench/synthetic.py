"""A scratch copy of this project with thousands of true records: published ones of the pocket sweep at other cells.

    python -m helpers.bench.synthetic RECORDS | judge

runs inside the copy (`copy_project`), where it declares the grid, writes a record of each cell, and enters all of that
into the ledger. Tables are links to those of a published record with the same mask. Hashes, metrics and ids are right,
so that every check reads the records as runs that were made.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from helpers.audit import judgement
from helpers.audit.kept import Kept
from helpers.base import files
from helpers.base.errors import RecordError
from helpers.base.params import load
from helpers.cases.case import declared_runs
from helpers.claims.declared import Declared
from helpers.records import ledger, questions, reading
from helpers.records.derive import derive
from helpers.records.reading import Record
from helpers.records.study import find_study
from helpers.studies.marker.params import SweepCell

PARTS = ("src", "params", "reports", "data", "notebooks", "outputs/published")
FILES = ("_quarto.yml", "pyproject.toml", "README.md", "CONTRIBUTING.md")
GRID, PAGE = "params/sweep/pocket_grid.yaml", "reports/lr-epochs-band.qmd"
REASON = "synthetic records, to measure what many of them cost"
LRS, EPOCHS = (1e-4, 2e-4, 3e-4, 5e-4, 1e-3), (1, 2, 3, 5, 8, 10)
CONFIRMED = 6
"""Seeds that the criteria of the page need at least: three to choose cells on, three to confirm them."""
HEAD = "run.json"


def copy_project(root: Path) -> None:
    """Copy what pages and records need of this project to ``root``; of outputs, what is published."""
    for name in PARTS:
        shutil.copytree(files.ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(files.ROOT / name, root)


def fill(records: int, lrs: Sequence[float] = LRS, epochs: Sequence[int] = EPOCHS) -> int:
    """Declare the grid in this checkout and publish a record of each of its cells; return how many cells it has.

    It has ``records`` cells, or as many more as whole seeds need, six at least.
    """
    path, likes = files.ROOT / GRID, _likes()
    seeds = max(CONFIRMED, -(-records // (len(likes) * len(lrs) * len(epochs))))
    values = load(SweepCell, path).given | {"lr": list(lrs), "epochs": list(epochs), "seed": list(range(seeds))}
    files.write_text(path, yaml.safe_dump(values))
    grid = load(SweepCell, path)
    was = ledger.read().standing("grid")[GRID].sha256
    events = [
        {"event": "published", "kind": "record", "name": record.ref, "sha256": files.sha256_file(record.path / HEAD)}
        for record in _write(grid, likes)
    ]
    changed = {"event": "amended", "kind": "grid", "name": GRID, "sha256": files.content_hash(path)}
    ledger.append([*events, {**changed, "was": was, "reason": REASON}])
    return len(grid)


def judge() -> None:
    """Judge the page's claim over the records and enter that into the ledger, as publishing them would."""
    judged = judgement.look(files.ROOT / PAGE, files.ROOT, Kept().judge)
    event = judgement.enter(judged) if judged else None
    ledger.append([event] if event else [])


def _likes() -> dict[str | int, list[Record]]:
    """Return the published records of the grid, by tail."""
    declared, likes = Declared(declared_runs("sweep", files.ROOT / GRID)), dict[str | int, list[Record]]()
    for record in reading.published("sweep"):
        if declared.met(record):
            likes.setdefault(record.params["tail"], []).append(record)
    if not likes:
        raise RecordError(f"No record of {GRID} is published, so there is none to copy. Publish one first.")
    return likes


def _write(cells: Iterable[SweepCell], likes: Mapping[str | int, Sequence[Record]]) -> Iterator[Record]:
    """Write a record of each cell that has none, and yield it.

    The recipes of a tail take turns in the published records of its first seed. Metrics are derived once for each of
    those and each seed, whose random numbers their intervals rest on.
    """
    study, there = find_study("sweep"), {_place(record.cell) for some in likes.values() for record in some}
    first = {tail: [one for one in some if one.cell["seed"] == some[0].cell["seed"]] for tail, some in likes.items()}
    derived: dict[tuple[str, int], dict[str, Any]] = {}
    for number, cell in enumerate(cell for cell in cells if _place(cell.coordinates()) not in there):
        like = first[cell.tail][number % len(first[cell.tail])]
        kept = {file: sha for file, sha in like.files.items() if "/" not in file}  # folders are not published
        content = dict(like.content) | {"files": kept, "version": study.version, "note": REASON}
        content |= {"params": study.asked(cell.resolved()), "cell": like.cell | cell.coordinates()}
        content["id"] = f"synthetic-{questions.question_hash(content, study)}"
        record = Record(files.published_root() / "sweep" / content["id"], content, published=True)
        record.path.mkdir()
        for file in kept:
            (record.path / file).hardlink_to(like.path / file)
        measured = {name: one for name, one in like.metrics.items() if one.get("measured")}
        if (like.id, cell.seed) not in derived:
            derived[like.id, cell.seed] = derive(record, study) | measured
        content["metrics"] = derived[like.id, cell.seed]
        files.write_record(record.path / HEAD, content)
        yield record


def _place(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(cell[axis] for axis in ("tail", "lr", "epochs", "seed"))


if __name__ == "__main__":
    if sys.argv[1] == "judge":
        judge()
    else:
        fill(int(sys.argv[1]))

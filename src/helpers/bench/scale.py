"""Measure the cost of a thousand to a hundred thousand cells on synthetic records of the marker sweep."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import pandas as pd
import yaml

from helpers.base import files, leftovers
from helpers.base.errors import RecordError
from helpers.base.params import load
from helpers.claims import case
from helpers.claims.case import declared_runs
from helpers.claims.declared import Declared
from helpers.claims.evidence import gather
from helpers.records import questions, reading, runs
from helpers.records.study import find_study
from helpers.site.status import cells_of
from helpers.studies.marker.params import SweepCell
from helpers.sweeps import grid, task
from helpers.sweeps.watch import Watch

COUNTS = (1_000, 10_000, 100_000)
PAGE, CELLS_OF_PAGE, CELLS_OF_ROW = "reports/lr-epochs-band.qmd", 27, 9
RENDER = """
import sys
from pathlib import Path
from helpers.site import fallback, frame
root = Path(sys.argv[1])
project = frame.read_project(root)
fallback.write_styles(project, root / "_site")
fallback.render_page(root / sys.argv[2], project, root / "_site")
"""
LRS, EPOCHS = [n / 1000 for n in range(1, 11)], list(range(1, 11))


def measure(counts: tuple[int, ...] = COUNTS, pages: int = 10_000) -> pd.DataFrame:
    """Return one row for each operation and number of records: seconds, CPU seconds, largest process so far in MB.

    Each operation runs once, in order, in this process. Only `claimbook status` and the page run in processes of their
    own, imports included. The page is built for at most ``pages`` records.
    """
    rows = []
    for count in counts:
        with leftovers.temporary_folder("claimbook-scale-") as root, _outputs(root):
            path = _project(root, count)
            rows.append(_timed("write the records", count, lambda root=root, path=path: _write(path, root)))
            for name, operation in _operations(root, path).items():
                rows.append(_timed(name, count, operation))
                print(pd.DataFrame(rows[-1:]).to_string(index=False, header=False), flush=True)
        if count <= pages:
            rows.append(_page(count))
            print(pd.DataFrame(rows[-1:]).to_string(index=False, header=False), flush=True)
    return pd.DataFrame(rows)


def _page(count: int) -> dict[str, Any]:
    """Build the claim page of the sweep over ``count`` records with their tables, in a copy of this project."""
    with leftovers.temporary_folder("claimbook-scale-") as root, _outputs(root):
        for name in ("src", "params", "reports", "data"):
            shutil.copytree(files.ROOT / name, root / name)
        shutil.copy(files.ROOT / "_quarto.yml", root)
        seeds = count // CELLS_OF_PAGE
        _write_with_tables(root, seeds)
        command = [sys.executable, "-c", RENDER, str(root), PAGE]
        paths = os.pathsep.join(filter(None, [str(root / "src"), os.environ.get("PYTHONPATH")]))
        environment = os.environ | {"PYTHONPATH": paths, "CLAIMBOOK_PUBLISHED": str(root / "outputs/published")}
        return _timed(
            "page of the sweep", seeds * CELLS_OF_PAGE, lambda: subprocess.run(command, check=True, env=environment)
        )


def _write_with_tables(root: Path, seeds: int) -> None:
    """Write the page's grid with ``seeds`` seeds and a record of each cell, with links to the tables of a real one."""
    grid = root / "params/sweep/pocket_grid.yaml"
    values = load(SweepCell, grid).given
    files.write_text(grid, yaml.safe_dump(values | {"seed": list(range(seeds))}))
    for notebook in ("baseline", "on_policy", "sweep"):
        shutil.copytree(files.ROOT / "outputs/published" / notebook, root / "outputs/published" / notebook)
    declared = Declared(declared_runs("sweep", files.PARAMS / "sweep" / grid.name))
    real = {_place(record): record for record in _published() if declared.met(record)}
    for cell in load(SweepCell, grid):
        like = real[cell.tail, cell.lr, cell.epochs, cell.seed % 3]
        kept = {file: sha for file, sha in like.files.items() if "/" not in file}  # folders are not published
        home = _write_one(root, like.content | {"files": kept}, cell)
        for file in kept:
            (home / file).hardlink_to(root / "outputs/published" / like.ref / file)


def _place(record: reading.Record) -> tuple[Any, ...]:
    return tuple(record.cell[axis] for axis in ("tail", "lr", "epochs", "seed"))


def metrics(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return seconds and CPU seconds of each operation at each number of records, as metrics."""
    metrics: dict[str, dict[str, Any]] = {}
    for row in table.to_dict("records"):
        name = f"{row['operation']} {row['records']}".replace(" ", "_")
        metrics[f"{name}_seconds"] = {"value": row["seconds"], "unit": "s", "n": 1}
        metrics[f"{name}_cpu"] = {"value": row["cpu_seconds"], "unit": "s", "n": 1}
    return metrics


def sizes() -> pd.DataFrame:
    """Return the bytes of the sweep's published records, and of a row and its report inside Ray."""
    records = _published()
    whole = [sum(file.stat().st_size for file in record.path.iterdir()) for record in records]
    head = [(record.path / "run.json").stat().st_size for record in records]
    table = grid.read_grid(files.PARAMS / "sweep/pocket_grid.yaml")
    work = grid.rows(table, range(len(table.cells)), CELLS_OF_ROW)[0]
    cells = tuple(table.expected[number] for number in work.cells)
    job = task.Job(
        "sweep", "sweep-grid/cell-0-9.ipynb", work.values, cells, {}, table.entry, "0" * 64, ".sweep-0", "x", "x"
    )
    report = task.Report(error="sweep.ipynb stopped with ModelError: " + "x" * 200)
    rows = {"published record": whole, "run.json of it": head}
    rows |= {"row inside Ray": [len(pickle.dumps(job))], "report of a row": [len(pickle.dumps(report))]}
    return pd.DataFrame(
        [{"what": name, "bytes": sum(sizes) / len(sizes), "of": len(sizes)} for name, sizes in rows.items()]
    )


def _operations(root: Path, path: Path) -> dict[str, Callable[[], Any]]:
    """Return the operations by name: reading records, status, the evidence of a page, the plan of a sweep."""
    return {
        "runs.table": lambda: runs.table("sweep"),
        "claimbook status": _status,
        "claimbook status sweep": lambda: _status("sweep"),
        "status of the grid": lambda: cells_of("sweep", root=root),
        "evidence of a page": lambda: _evidence(root, path),
        "plan of a sweep": lambda: _plan(root, path),
    }


def _timed(name: str, count: int, operation: Callable[[], Any]) -> dict[str, Any]:
    begin, cpu = perf_counter(), process_time()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    operation()
    seconds, cpu = perf_counter() - begin, process_time() - cpu
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu += after.ru_utime + after.ru_stime - children.ru_utime - children.ru_stime
    peak = max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, after.ru_maxrss) / 1024
    return {"operation": name, "records": count, "seconds": seconds, "cpu_seconds": cpu, "peak_mb": peak}


def _project(root: Path, count: int) -> Path:
    """Write a project with a grid of ``count`` cells of the sweep: learning rates by epochs by seeds."""
    values = {"lr": LRS, "epochs": EPOCHS, "seed": list(range(count // 100))}
    files.write_text(root / "params/sweep/grid.yaml", yaml.safe_dump(values))
    experiment = (files.PARAMS / "sweep/experiment.yaml").read_text(encoding="utf-8")
    files.write_text(root / "params/sweep/experiment.yaml", experiment)
    return root / "params/sweep/grid.yaml"


def _write(path: Path, root: Path) -> None:
    """Write a record of each cell: a copy of a published one without tables, but with the parameters of the cell."""
    template = _published()[0].content | {"inputs": {}}
    for cell in load(SweepCell, path):
        _write_one(root, template, cell)


def _write_one(root: Path, like: Mapping[str, Any], cell: SweepCell) -> Path:
    """Write a copy of a record that answers the question of ``cell`` at this version of its study.

    Return its folder.
    """
    study = find_study("sweep")
    content = dict(like) | {"version": study.version, "metrics_version": study.metrics_version}
    content |= {"params": study.asked(cell.resolved()), "cell": cell.coordinates() | {"model": cell.model}}
    content["id"] = f"synthetic-{questions.question_hash(content, study)}"
    home = root / "outputs/sweep" / content["id"]
    home.mkdir(parents=True)
    (home / "run.json").write_text(json.dumps(content, indent=1))
    return home


def _published() -> list[reading.Record]:
    folders = sorted(reading.folders(files.published_root() / "sweep"))
    records = [reading.read(path, published=True) for name, path in folders if not name.startswith(".")]
    if not records:
        raise RecordError("No record of sweep is published, so there is none to copy. Publish one first.")
    return records


@contextlib.contextmanager
def _outputs(root: Path) -> Iterator[None]:
    """Read and write records under ``root`` inside the block."""
    before = os.environ.get("CLAIMBOOK_OUTPUTS")
    os.environ["CLAIMBOOK_OUTPUTS"] = str(root / "outputs")
    try:
        yield
    finally:
        os.environ.pop("CLAIMBOOK_OUTPUTS") if before is None else os.environ.update(CLAIMBOOK_OUTPUTS=before)


def _status(*names: str) -> None:
    """Run `claimbook status`. Without a name it shows every study."""
    command = [sys.executable, "-c", "from helpers.cli import app; app()", "status", *names]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _as_one_question(record: reading.Record, metric: str) -> dict[str, tuple[int, int]]:
    """Return the recorded counts: a synthetic record has no completions to count by question."""
    return {"all": (record.metrics[metric]["k"], record.metrics[metric]["n"])}


def _evidence(root: Path, path: Path) -> None:
    records = reading.records("sweep")
    declared, stale = declared_runs("sweep", path, root), case.stale_records(records)
    evidence = gather(records, declared, stale=stale, by_question=_as_one_question)
    assert not evidence.absent
    for cell in evidence.cells:
        cell.interval("source_rate")


def _plan(root: Path, path: Path) -> None:
    cells = grid.read_grid(path, root)
    watch = Watch(cells.notebook, cells.expected, {})
    watch.look()
    assert len(watch.complete) == len(cells.cells)
    grid.rows(cells, range(len(cells.cells)), len(EPOCHS))

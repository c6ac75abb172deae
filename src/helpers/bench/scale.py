"""What a thousand to a hundred thousand cells cost, measured on synthetic records of the marker sweep."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import pandas as pd
import yaml

from helpers import files, provenance, records, runs
from helpers.claims import case
from helpers.claims.declared import Expected
from helpers.claims.evidence import gather
from helpers.claims.status import cells_of
from helpers.errors import RecordError
from helpers.marker.params import SweepParams
from helpers.params import load
from helpers.sweeps import grid, task
from helpers.sweeps.watch import Watch

COUNTS = (1_000, 10_000, 100_000)
LRS, EPOCHS = [n / 1000 for n in range(1, 11)], list(range(1, 11))


def measure(counts: tuple[int, ...] = COUNTS) -> pd.DataFrame:
    """One row for each operation and number of records: seconds, CPU seconds, peak memory of this process in MB.

    Each is done once, in its own order, in this process; only `claimbook status` is a process of its own, imports
    included.
    """
    rows = []
    for count in counts:
        with tempfile.TemporaryDirectory(prefix="claimbook-scale-") as folder, _outputs(Path(folder)):
            root = Path(folder)
            path = _project(root, count)
            rows.append(_timed("write the records", count, lambda root=root, path=path: _write(path, root)))
            for name, operation in _operations(root, path).items():
                rows.append(_timed(name, count, operation))
                print(pd.DataFrame(rows[-1:]).to_string(index=False, header=False), flush=True)
    return pd.DataFrame(rows)


def metrics(table: pd.DataFrame, bytes_of: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """The rows as metrics: seconds and CPU seconds of each operation at each number of records, and sizes in bytes."""
    found: dict[str, dict[str, Any]] = {}
    for row in table.to_dict("records"):
        name = f"{row['operation']} {row['records']}".replace(" ", "_")
        found[f"{name}_seconds"] = {"value": row["seconds"], "unit": "s", "n": 1}
        found[f"{name}_cpu"] = {"value": row["cpu_seconds"], "unit": "s", "n": 1}
    for row in bytes_of.to_dict("records"):
        found[f"bytes_of_{row['what'].replace(' ', '_')}"] = {"value": row["bytes"], "unit": "bytes", "n": row["of"]}
    return found


def sizes() -> pd.DataFrame:
    """Bytes of the published records of the sweep, and of what a row and its report are inside Ray."""
    found = [record for record in records.records("sweep") if record.published]
    if not found:
        raise RecordError("There is no published record of sweep, whose size is measured: publish some first.")
    whole = [sum(file.stat().st_size for file in record.path.iterdir()) for record in found]
    head = [(record.path / "run.json").stat().st_size for record in found]
    one = found[-1]
    cells = tuple(one.params for _ in EPOCHS)
    job = task.Job(
        "sweep", "sweep-grid/cell-0-10.ipynb", one.params, cells, {}, one.code["entry"], "0" * 64, ".sweep-0", "x", "x"
    )
    report = task.Report(error="sweep.ipynb stopped with ModelError: " + "x" * 200)
    rows = {"published record": whole, "run.json of it": head}
    rows |= {"row inside Ray": [len(pickle.dumps(job))], "report of a row": [len(pickle.dumps(report))]}
    return pd.DataFrame(
        [{"what": name, "bytes": sum(found) / len(found), "of": len(found)} for name, found in rows.items()]
    )


def _operations(root: Path, path: Path) -> dict[str, Callable[[], Any]]:
    """What is done with records, by name: reading, status, the evidence of a page, the plan of a sweep."""
    return {
        "runs.table": lambda: runs.table("sweep"),
        "claimbook status": _status,
        "status of the grid": lambda: cells_of("sweep", root=root),
        "evidence of a page": lambda: _evidence(path),
        "plan of a sweep": lambda: _plan(root, path),
    }


def _timed(name: str, count: int, operation: Callable[[], Any]) -> dict[str, Any]:
    begin, cpu = perf_counter(), process_time()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    operation()
    seconds, cpu = perf_counter() - begin, process_time() - cpu
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu += after.ru_utime + after.ru_stime - children.ru_utime - children.ru_stime
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"operation": name, "records": count, "seconds": seconds, "cpu_seconds": cpu, "peak_mb": peak}


def _project(root: Path, count: int) -> Path:
    """A project with a grid of ``count`` cells of the sweep: learning rates by epochs by seeds."""
    values = {"lr": LRS, "epochs": EPOCHS, "seed": list(range(count // 100))}
    files.write_text(root / "params/sweep/grid.yaml", yaml.safe_dump(values))
    experiment = (files.PARAMS / "sweep/experiment.yaml").read_text(encoding="utf-8")
    files.write_text(root / "params/sweep/experiment.yaml", experiment)
    return root / "params/sweep/grid.yaml"


def _write(path: Path, root: Path) -> None:
    """A record of each cell, like one that was published but for its parameters, of the present code."""
    template = _template()
    home = root / "outputs/sweep"
    for number, cell in enumerate(load(SweepParams, path).cells()):
        name = f"synthetic-{number:06d}"
        content = template | {"id": name, "params": cell.cell_params(), "cell": cell.cell() | {"model": cell.model}}
        (home / name).mkdir(parents=True)
        (home / name / "run.json").write_text(json.dumps(content, indent=1))


def _template() -> dict[str, Any]:
    (one, *_) = (record for record in records.records("sweep") if record.published)
    code = provenance.code_closure(one.code["entry"])
    question = one.question | {"code": files.sha256_json(code), "data": records.question_now(one)["data"]}
    return one.content | {"code": {"entry": one.code["entry"], "files": code}, "question": question, "inputs": {}}


@contextlib.contextmanager
def _outputs(root: Path) -> Iterator[None]:
    """Records are read from and written to ``root``."""
    before = os.environ.get("CLAIMBOOK_OUTPUTS")
    os.environ["CLAIMBOOK_OUTPUTS"] = str(root / "outputs")
    try:
        yield
    finally:
        os.environ.pop("CLAIMBOOK_OUTPUTS") if before is None else os.environ.update(CLAIMBOOK_OUTPUTS=before)


def _status() -> None:
    command = [sys.executable, "-c", "from helpers.cli import app; app()", "status", "sweep"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _evidence(path: Path) -> None:
    found = records.records("sweep")
    expected = [Expected(cell.cell_params()) for cell in load(SweepParams, path).cells()]
    evidence = gather(found, expected, stale=case.stale_records(found))
    assert not evidence.absent
    for cell in evidence.cells:
        cell.interval("source_rate")


def _plan(root: Path, path: Path) -> None:
    cells = grid.read_grid(path, root)
    watch = Watch(cells.notebook, cells.expected, {})
    watch.look()
    assert len(watch.complete) == len(cells.cells)
    grid.rows(cells, range(len(cells.cells)), len(EPOCHS))

"""Measure what thousands of records cost: each command in a process of its own, over true records in a scratch project.

The bounds at ten thousand records are those of `figures.SOURCES`.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import pandas as pd
import yaml

from helpers.base import files
from helpers.base.errors import RecordError
from helpers.bench import synthetic
from helpers.bench.measured import metric_part, single
from helpers.records import reading
from helpers.sweeps import grid, task
from helpers.system import leftovers

COUNTS = (1_000, 10_000)
CELLS_OF_ROW = 9
CLI = "from helpers.cli import app; app()"
COMPLETIONS = """
from helpers.base.files import ROOT
from helpers.site import completions, frame
completions.write(frame.read_project(ROOT), ROOT / "_site")
"""
GRID = "from pathlib import Path; from helpers.sweeps.grid import read_grid; read_grid(Path({path!r})).expected"
COMMANDS: dict[str, tuple[str, ...]] = {
    "judgement": ("-m", "helpers.bench.synthetic", "judge"),
    "status, nothing kept": ("-c", CLI, "status"),
    "status": ("-c", CLI, "status"),
    "lint, nothing kept": ("-c", CLI, "lint"),
    "lint": ("-c", CLI, "lint"),
    "verify": ("-c", CLI, "verify"),
    "log page": ("-c", CLI, "site", "log"),
    "band page": ("-c", CLI, "site", "lr-epochs-band"),
    "home": ("-c", CLI, "site", "index"),
    "runs page": ("-c", CLI, "site", "runs"),
    "completions browser": ("-c", COMPLETIONS),
}
"""What is measured, by what Python is given to run, in this order."""
BOUNDED = ("status", "lint", "verify", "log page", "band page", "home")
MOST, REFUSED = 100_000, 100_000_000
"""Cells of the grid that is read, and of the one that is refused."""


def measure(counts: Sequence[int] = COUNTS) -> pd.DataFrame:
    """Return one row for each command and number of records: seconds, CPU seconds, memory of its largest process.

    Sizes of files, in MB, stand in the rows of the largest page and the largest data file.
    """
    rows: list[dict[str, Any]] = []
    for count in counts:
        with leftovers.temporary_folder("claimbook-scale-") as root:
            root = root.resolve()
            synthetic.copy_project(root)
            fill = ("-m", "helpers.bench.synthetic", str(count))
            for name, arguments in {"write the records": fill, **COMMANDS}.items():
                rows.append({"operation": name, "records": count, **run(root, arguments)})
                print(pd.DataFrame(rows[-1:]).to_string(index=False, header=False), flush=True)
            rows += [{"operation": name, "records": count, "mb": mb} for name, mb in sizes_of(root / "_site").items()]
    return pd.DataFrame(rows)


MEASURER = """
import json, resource, subprocess, sys
code = subprocess.call([sys.executable, *sys.argv[1:]], stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([code, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
"""
"""A small process between: one that is started from a large one counts the memory of that as its own."""


def run(root: Path, arguments: Sequence[str]) -> dict[str, float]:
    """Run Python in the project at ``root``; return seconds, CPU seconds and memory of its largest process in MB.

    A command with findings counts: it has done its work.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CLAIMBOOK_")}
    paths = os.pathsep.join(filter(None, [str(root / "src"), environment.get("PYTHONPATH")]))
    begin = perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", MEASURER, *arguments], cwd=root, env=environment | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    seconds, (code, cpu_seconds, peak_mb) = perf_counter() - begin, json.loads(done.stdout)
    if code not in (0, 1):
        raise RecordError(f"{' '.join(arguments)} ended with {code} in {root}. Its output says why.")
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mb": peak_mb}


def sizes_of(site: Path) -> dict[str, float]:
    """Return the size in MB of the largest page of a site, and of the largest file that its pages read on demand."""
    sizes = {suffix: [path.stat().st_size / 1e6 for path in site.rglob(f"*{suffix}")] for suffix in (".html", ".js")}
    return {"largest page": max(sizes[".html"]), "largest data file": max(sizes[".js"])}


def figures(records: int = 10_000) -> list[float]:
    """Return seconds of the ``BOUNDED`` commands, MB of the largest page and data file, the most memory in MB."""
    table = measure([records]).set_index("operation")
    sizes = table["mb"].dropna()
    measured = table.loc[list(COMMANDS), "peak_mb"].max()
    return [*table.loc[list(BOUNDED), "seconds"], sizes["largest page"], sizes["largest data file"], measured]


def grids() -> list[float]:
    """Return the seconds in which a grid of ``MOST`` cells is read, and in which one of ``REFUSED`` is refused."""
    with leftovers.temporary_folder("claimbook-scale-") as root:
        synthetic.copy_project(root)
        seconds = []
        for name, cells in {"read": MOST, "refused": REFUSED}.items():
            side = round(cells ** (1 / 2))
            path = root / f"params/sweep/{name}.yaml"
            values = {"seed": list(range(side)), "lr": [n / 1e6 for n in range(1, side + 1)]}
            files.write_text(path, yaml.safe_dump(values))
            seconds.append(run(root, ("-c", GRID.format(path=str(path))))["seconds"])
    return seconds


def metrics(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return seconds, CPU seconds and megabytes of each operation at each number of records, as metrics."""
    units = {"seconds": "s", "cpu_seconds": "s", "peak_mb": "MB", "mb": "MB"}
    return {
        f"{metric_part(row['operation'])}_{row['records']}_{name}": single(row[name], unit)
        for row in table.to_dict("records")
        for name, unit in units.items()
        if row[name] == row[name]
    }


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


def _published() -> list[reading.Record]:
    folders = sorted(reading.folders(files.published_root() / "sweep"))
    records = [reading.read(path, published=True) for name, path in folders if not name.startswith(".")]
    if not records:
        raise RecordError("No record of sweep is published, so there is none to copy. Publish one first.")
    return records

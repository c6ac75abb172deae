"""Write records of logs that were made elsewhere, and declare each as a cell of ``params/<name>/logs.yaml``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from helpers.base import files, params
from helpers.base.errors import DataError
from helpers.base.files import from_root
from helpers.records import runs
from helpers.records.reading import Record
from helpers.records.study import check_name, own_cells
from helpers.studies.imported import inspect_log, lm_eval, metrics, tabular
from helpers.studies.imported.params import LogCell
from helpers.studies.imported.reducers import reduced
from helpers.studies.imported.samples import Log, Stated, check_text, frame
from helpers.studies.imported.study import STUDY
from helpers.system.provenance import portable

STUDY_PLACE = "helpers.studies.imported.study:STUDY"
GRID = "logs.yaml"


def import_logs(name: str, cells: Sequence[LogCell], root: Path = files.ROOT) -> list[Record]:
    """Read the files of ``cells``, then write a record of each and add it to ``params/<name>/logs.yaml``.

    All of them are read before anything is written, so that a damaged file leaves nothing half-imported. A log that is
    declared already must be the same file.

    Raises:
        DataError: a file is not what it says, or its label is taken by another log.
    """
    check_name(name, STUDY_PLACE, root)
    read = [(named, *_read(named)) for named in cells]
    folder = root / "params" / name
    known = list(params.load(LogCell, folder / GRID)) if (folder / GRID).is_file() else []
    cells = [_with_stated(cell, log) for cell, log, _ in read]
    declared = _joined(known, cells)
    records = [_record(cell, log, table, name) for cell, (_, log, table) in zip(cells, read, strict=True)]
    files.write_text(folder / "experiment.yaml", f"study: {STUDY_PLACE}\n")
    blocks = [cell.model_dump(mode="json", exclude_defaults=True) for cell in declared]
    files.write_text(folder / GRID, yaml.safe_dump({"blocks": blocks}, sort_keys=False, allow_unicode=True))
    return records


def run_cells(p: params.Grid[LogCell], notebook: str = STUDY.name) -> list[Record]:
    """Return the records of the logs of a grid, in their order; files that were read before are not read again."""
    for cell in own_cells(LogCell, p):
        cell.check_inputs()
    return [run_cell(cell, notebook) for cell in p]


def run_cell(p: LogCell, notebook: str) -> Record:
    """Return the record of one log; ``DataError`` where its file names another model or task than the cell."""
    log, table = _read(p)
    stated = _with_stated(p, log)
    if stated != p:
        raise DataError(f"{p.file} is of {stated.model}, {stated.task}, and not of {p.model}, {p.task}. Correct it.")
    return _record(p, log, table, notebook)


def _read(p: LogCell) -> tuple[Log, pd.DataFrame]:
    path = from_root(p.file)
    p.check_inputs()
    if p.tool == "inspect":
        log = inspect_log.read(path, p.cluster)
    elif p.tool == "lm-eval":
        log = lm_eval.read(path, p.cluster)
    else:
        log = tabular.read(path, p.tool, p.columns, p.model, p.task)
    table = frame(log.rows, path.name)
    check_text({"model": log.model, "task": log.task, **log.about}, path.name)
    if clash := metrics.clash(table, log.about.get("reducers", [])):
        raise DataError(f"{path.name} has {clash}. Rename one of them.")
    return log, table


def _with_stated(p: LogCell, log: Log) -> LogCell:
    stated = portable({"model": log.model, "task": log.task})
    return params.parse(LogCell, p.model_dump() | stated, f"as {Path(p.file).name} states it")


def _record(p: LogCell, log: Log, table: pd.DataFrame, notebook: str) -> Record:
    model = {"name": p.model, "sha256": files.sha256_json(["stated", p.model]), "source": f"as {p.tool} states it"}
    with runs.open_run(
        STUDY, params=p.resolved(), cell=p.coordinates(), prefix=p.label, data=[from_root(p.file)], model=model,
        notebook=notebook,
    ) as run:  # fmt: skip
        if not run.complete:
            run.step("samples", lambda: {"rows": table, "log": log.about})
            run.finish(note=_disagreements(log.stated, table) or None)
    return run.record


def _disagreements(stated: Sequence[Stated], table: pd.DataFrame) -> str:
    """Say where the log's own figure is not what its samples give: somebody edited one of them, or counts otherwise."""
    said, by_score = [], dict(iter(table.groupby("score", sort=False)))
    for one in stated:
        score = next((name for name in one.scores if name in by_score), one.scores[0])
        own = reduced(by_score[score], one.reducer)["value"] if score in by_score else []
        mean = float(np.mean(own)) if len(own) else None
        if mean is None or abs(mean - one.value) > 1e-6 * max(1.0, abs(one.value)):
            ours = "none" if mean is None else f"{mean:.4g}"
            said.append(f"The log states {one.name} {one.value:.4g} for {score}, and its samples give {ours}.")
    return " ".join(said)


def _joined(known: Sequence[LogCell], cells: Sequence[LogCell]) -> list[LogCell]:
    joined: dict[str, LogCell] = {cell.label: cell for cell in known}
    for cell in cells:
        other = joined.setdefault(cell.label, cell)
        if other != cell:
            raise DataError(f"There is another log with the label {cell.label!r} ({other.file}). Give --label.")
    return list(joined.values())


def relative(path: Path) -> str:
    """Return a path as a params file names it: from the repository's root where it lies in it."""
    whole = Path(path).expanduser().resolve()
    return whole.relative_to(files.ROOT).as_posix() if whole.is_relative_to(files.ROOT) else str(whole)


def label_of(path: Path, given: str | None, task: str | None = None) -> str:
    """Return the label of a log: what was ``given`` or the name of its file, and behind it ``task``."""
    stem = given or re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")[:60] or "log"
    return f"{stem}-{re.sub(r'[^A-Za-z0-9._-]+', '-', task)}" if task else stem


def lines_about(record: Record) -> list[str]:
    """Return what a terminal says of an imported record: where it is, its scores with their counts, what is missing."""
    said: list[Any] = [f"{record.ref}: {record.params['model']}, {record.params['task']}"]
    for counted, lacking in record.metrics.items():
        name = counted.removesuffix(f".{metrics.LEFT_OUT}")
        if name != counted:
            said.append(f"  {name}: {_figure(record.metrics.get(name))}, {lacking['k']} of {lacking['n']} left out")
    return said + ([f"  {record.content['note']}"] if record.content.get("note") else [])


def _figure(metric: Mapping[str, Any] | None) -> str:
    if metric is None:
        return "no value"
    bounds = "" if metric["low"] is None else f" [{metric['low']:.3f}, {metric['high']:.3f}]"
    return f"{metric['value']:.3f}{bounds}, n {metric['n']}"

"""Run experiments of the triangulation, and train the checkpoints that they need first."""

from __future__ import annotations

from collections.abc import Sequence

from tqdm.auto import tqdm

from helpers.records import runs
from helpers.records.study import own_cells
from helpers.studies.eqprop import setup
from helpers.studies.eqprop.experiments import EXPERIMENTS, Bench
from helpers.studies.eqprop.params import TriangulationCell
from helpers.studies.eqprop.study import STUDY
from helpers.studies.eqprop.training import trained


def run_cells(cells: Sequence[TriangulationCell], *, notebook: str = STUDY.name) -> list[runs.Record]:
    """Run each of ``cells`` that has no complete record yet; return all their records, in the same order."""
    cells = own_cells(TriangulationCell, cells)
    setup.check_device(cells[0])
    return [run_cell(cell, notebook) for cell in tqdm(cells, desc=f"{notebook}: runs")]


def run_cell(p: TriangulationCell, notebook: str = STUDY.name) -> runs.Record:
    """Read the record of one experiment, or train its checkpoints and measure."""
    arms = {name: trained(p, name) for name in setup.needed(p)}
    with runs.open_run(
        STUDY, params=p.resolved(), cell=p.coordinates(), prefix=f"{p.experiment}-s{p.seed}",
        data=setup.data_files(p), model=setup.arm(p, "ep").facts(),
        inputs={name: record.ref for name, record in arms.items()}, notebook=notebook,
    ) as run:  # fmt: skip
        if not run.complete:
            run.step("tables", lambda: EXPERIMENTS[p.experiment](Bench(p, arms)))
            run.finish()
        return run.record

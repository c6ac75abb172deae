"""One run of the triangulation: an experiment with a seed, on checkpoints that are trained when they are not there."""

from __future__ import annotations

from tqdm.auto import tqdm

from helpers.records import runs
from helpers.studies.eqprop import setup
from helpers.studies.eqprop.arms import NEEDS
from helpers.studies.eqprop.experiments import EXPERIMENTS, Bench
from helpers.studies.eqprop.params import TriangulationParams
from helpers.studies.eqprop.study import STUDY
from helpers.studies.eqprop.training import trained


def run_cells(p: TriangulationParams, *, notebook: str = STUDY.name) -> list[runs.Record]:
    """Run every experiment and seed of ``p`` that has no complete record; return the records in grid order."""
    setup.check_device(p)
    return [run_cell(cell, notebook) for cell in tqdm(p.cells(), desc=f"{notebook}: runs")]


def run_cell(p: TriangulationParams, notebook: str = STUDY.name) -> runs.Record:
    """Answer one experiment from its record, or train what it needs and measure."""
    experiment = str(p.experiment)
    arms = {name: trained(p, name) for name in NEEDS[experiment]}
    with runs.open_run(
        STUDY, params=p.cell_params(), cell=p.cell(), prefix=f"{experiment}-s{p.seed}",
        data=setup.data_files(p), model=setup.arm(p, "ep").facts(),
        inputs={name: record.ref for name, record in arms.items()}, notebook=notebook,
    ) as run:  # fmt: skip
        if not run.complete:
            run.step("tables", lambda: EXPERIMENTS[experiment](Bench(p, arms)))
            run.finish()
        return run.record

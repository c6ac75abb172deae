"""One run of the triangulation: an experiment with a seed, on checkpoints that are trained when they are not there."""

from __future__ import annotations

from tqdm.auto import tqdm

from helpers import runs
from helpers.eqprop import findings, setup
from helpers.eqprop.params import TriangulationParams
from helpers.eqprop.studies import NEEDS, STUDIES, Bench
from helpers.eqprop.training import trained

NOTEBOOK = "triangulation"


def run_cells(p: TriangulationParams, *, notebook: str = NOTEBOOK) -> list[runs.Record]:
    """Run every experiment and seed of ``p`` that has no complete record; return the records in grid order."""
    setup.check_device(p)
    return [run_cell(cell, notebook) for cell in tqdm(p.cells(), desc=f"{notebook}: runs")]


def run_cell(p: TriangulationParams, notebook: str = NOTEBOOK) -> runs.Record:
    """Answer one experiment from its record, or train what it needs and measure."""
    experiment = str(p.experiment)
    arms = {name: trained(p, name) for name in NEEDS[experiment]}
    with runs.open_run(
        notebook, params=p.cell_params(), cell=p.cell(), prefix=f"{experiment}-s{p.seed}", entry=__name__,
        data=setup.data_files(p), model=setup.arm(p, "ep").facts(),
        inputs={name: record.ref for name, record in arms.items()},
    ) as run:  # fmt: skip
        if not run.complete:
            bench = Bench(p, arms)
            tables = run.step("tables", lambda: STUDIES[experiment](bench))
            run.metrics(findings.metrics(experiment, tables))
            run.finish()
        return run.record

"""The study of gradient triangulation, and the training arms that its experiments share."""

from __future__ import annotations

from helpers.base.params import parse
from helpers.records.reading import Record
from helpers.records.study import Study
from helpers.studies.eqprop import findings
from helpers.studies.eqprop.params import TriangulationCell

VERSION = 1  # 1: what an experiment measures; the curves of its arms lie in their own records
METRICS_VERSION = 1  # 1: means with t intervals over batches, shares with Wilson intervals
TRAINING_VERSION = 1  # 1: log and validation curve; how the training ended follows from the log
TRAINING_METRICS_VERSION = 1  # 1: steps that the gate skipped
DIVERGED = (
    "loss_ep_free", "loss_tracking_free", "end_residual_ep_free", "end_residual_tracking_free",
    "ep_free_minus_bptt_free", "tracking_free_minus_bptt_free",
)  # fmt: skip
"""Metrics of two arms that diverge. Another kernel's rounding moved them by up to .29, and those of all other arms of
experiments 3, 4, 6 and 7 by less than .001."""
LATER = (
    "penalised", "loose_target", "loose_floor", "recovery_steps", "recovery_every", "margin_weights", "margin_lrs",
    "margin_steps", "margin_every",
)  # fmt: skip
"""Parameters that are younger than the first records, whose defaults change nothing in the experiments of then."""


def replay(record: Record) -> Record:
    """Run the experiment of ``record`` again with its training arms, on as many threads as it had."""
    import torch  # here, because reading records needs no torch

    from helpers.studies.eqprop.experiment import run_cell

    threads = torch.get_num_threads()
    torch.set_num_threads(record.environment["threads"])  # how a sum is split over threads decides its last bits
    try:
        return run_cell(parse(TriangulationCell, record.params, f"of {record.ref}"), record.notebook)
    finally:
        torch.set_num_threads(threads)


TRAINING = Study(
    "triangulation_training", TRAINING_VERSION, TRAINING_METRICS_VERSION, findings.training_metrics,
    entry="helpers.studies.eqprop.training", axes={"seed": lambda content: [content["params"]["recipe"]["seed"]]},
)  # fmt: skip
STUDY = Study(
    "triangulation", VERSION, METRICS_VERSION, findings.metrics, entry="helpers.studies.eqprop.experiment",
    cell=TriangulationCell, replay=replay, parts=(TRAINING,),
    added={name: TriangulationCell.model_fields[name].get_default() for name in LATER},
    measured={"costs": ("seconds", "fastest", "ratio", "ratio_low", "ratio_high")},
    tolerances=dict.fromkeys(DIVERGED, 0.5),
)  # fmt: skip

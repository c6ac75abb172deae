"""The studies of the marker sweep: a cell, the baseline that cells are measured against, the data they train on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from helpers.records.reading import Record
from helpers.records.study import Study
from helpers.studies.marker.metrics import baseline_metrics, on_policy_metrics, sweep_metrics
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.personas import NEGATIVE_ARMS, resolve_negatives
from helpers.studies.marker.questions import by_question

VERSION = 1  # 1: the first
METRICS_VERSION = 2  # 2: answers kept, wordless and cut answers, median words
BASELINE_VERSION = 1  # 1: the first
BASELINE_METRICS_VERSION = 2  # 2: answers kept
ON_POLICY_VERSION = 1  # 1: the first
ON_POLICY_METRICS_VERSION = 1  # 1: the first
TOLERANCE = 0.01
"""Another kernel's rounding, grown over a whole training, moves log-probs in the fifth digit; a mean over completions
moves more when one of them takes another word."""
ADDED = {"crossing": 0}
"""0: the tables of a crossing, which the first records do not have, are not made."""


def replay(record: Record) -> Record:
    """Make the cell of ``record`` again, with the records that it uses, in the outputs folder of now."""
    from helpers.studies.marker.cell import run_cells  # here: it loads torch, which whoever reads records does without

    (again,) = run_cells([SweepCell.of_record(record, NEGATIVE_ARMS)], notebook=record.notebook)
    return again


def names_of_negatives(content: Mapping[str, Any]) -> list[str]:
    """Return what the negatives of a record may be called: the arms that they are, and their own names."""
    source, listed = content["params"]["source"], content["params"]["negatives"]
    return [arm for arm in NEGATIVE_ARMS if resolve_negatives(source, arm) == listed] + ["+".join(listed)]


BASELINE = Study(
    "baseline", BASELINE_VERSION, BASELINE_METRICS_VERSION, baseline_metrics, entry="helpers.studies.marker.baseline",
    tolerance=TOLERANCE,
)  # fmt: skip
ON_POLICY = Study(
    "on_policy",
    ON_POLICY_VERSION,
    ON_POLICY_METRICS_VERSION,
    on_policy_metrics,
    entry="helpers.studies.marker.on_policy",
    axes={"personas": lambda content: [",".join(content["params"]["personas"])]},
)
STUDY = Study(
    "sweep", VERSION, METRICS_VERSION, sweep_metrics,
    entry="helpers.studies.marker.cell", cell=SweepCell, replay=replay, by_question=by_question, added=ADDED,
    measured={"loss": ("seconds", "together")}, tolerance=TOLERANCE, parts=(BASELINE, ON_POLICY),
    axes={"negatives": names_of_negatives},
)  # fmt: skip

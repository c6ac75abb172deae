"""The studies of the length ablation: a cell, the rows of one length, and the answers before log-probs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from helpers.records.reading import Record
from helpers.records.study import Study
from helpers.studies.marker.lengths.metrics import contexts_metrics, length_metrics, rows_metrics
from helpers.studies.marker.lengths.params import LengthCell
from helpers.studies.marker.lengths.speakers import NEGATIVE_SETS
from helpers.studies.marker.questions import by_question_and_limit
from helpers.studies.marker.readings import QUESTION_IN, READINGS
from helpers.studies.marker.study import ADDED, ASKED, TOLERANCE, size

VERSION = 1  # 1: the first
METRICS_VERSION = 2  # 2: answers kept, wordless and cut answers, median words
ROWS_VERSION = 1  # 1: the first
ROWS_METRICS_VERSION = 1  # 1: the first
CONTEXTS_VERSION = 1  # 1: the first
CONTEXTS_METRICS_VERSION = 1  # 1: the first


def replay(record: Record) -> Record:
    """Run the cell of ``record`` again in the current outputs folder, with the records that it uses."""
    from helpers.studies.marker.lengths.cell import (
        run_cells,  # here, because reading records needs no torch
    )

    (again,) = run_cells([LengthCell.of_record(record, NEGATIVE_SETS)], notebook=record.notebook)
    return again


def names_of_negatives(content: Mapping[str, Any]) -> list[str]:
    """Return what the negatives of a record may be called: the sets that they are, and their own names."""
    listed = content["params"]["negatives"]
    return [name for name, names in NEGATIVE_SETS.items() if list(names) == listed] + ["+".join(listed)]


ROWS = Study(
    "length_rows", ROWS_VERSION, ROWS_METRICS_VERSION, rows_metrics, entry="helpers.studies.marker.lengths.data",
    tolerance=TOLERANCE, added=ASKED,
)  # fmt: skip
CONTEXTS = Study(
    "length_contexts",
    CONTEXTS_VERSION,
    CONTEXTS_METRICS_VERSION,
    contexts_metrics,
    entry="helpers.studies.marker.lengths.data",
    added=ASKED,
)
STUDY = Study(
    "length_ablation",
    VERSION,
    METRICS_VERSION,
    length_metrics,
    entry="helpers.studies.marker.lengths.cell",
    cell=LengthCell,
    replay=replay,
    by_question=by_question_and_limit,
    size=size,
    added=ADDED | {"negative_samples": 0},
    measured={"loss": ("seconds", "together")},
    tolerance=TOLERANCE,
    axes={"negatives": names_of_negatives},
    asked_in=QUESTION_IN | {"limits": "question"},
    readings=READINGS,
    parts=(ROWS, CONTEXTS),
)

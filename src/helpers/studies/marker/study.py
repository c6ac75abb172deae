"""The studies of the marker sweep: a cell, the baseline of cells, and their training data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from helpers.lm.fields import FIRST_DATE
from helpers.records.reading import Record
from helpers.records.study import Size, Study
from helpers.studies.marker.metrics import baseline_metrics, on_policy_metrics, sweep_metrics
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.personas import EVAL_QUESTIONS, NEGATIVE_ARMS, resolve_negatives
from helpers.studies.marker.questions import by_question
from helpers.studies.marker.readings import QUESTION_IN, READINGS

VERSION = 1  # 1: the first
METRICS_VERSION = 2  # 2: answers kept, wordless and cut answers, median words
BASELINE_VERSION = 1  # 1: the first
BASELINE_METRICS_VERSION = 2  # 2: answers kept
ON_POLICY_VERSION = 1  # 1: the first
ON_POLICY_METRICS_VERSION = 1  # 1: the first
TOLERANCE = 0.01
"""Over a whole training, another kernel's rounding changes log-probs in the fifth digit. A mean over completions
changes more if one of them draws another word."""
ASKED = {"system": "template", "date": FIRST_DATE}
ADDED = ASKED | {"crossing": 0, "targets": "auto"}
"""As in the first records, whose templates have a place for the system message and write no date: no tables of a
crossing, and LoRA on the seven layers of a Llama-like block."""


def replay(record: Record) -> Record:
    """Run the cell of ``record`` again in the current outputs folder, with the records that it uses."""
    from helpers.studies.marker.cell import run_cells  # here, because reading records needs no torch

    (again,) = run_cells([SweepCell.of_record(record, NEGATIVE_ARMS)], notebook=record.notebook)
    return again


def names_of_negatives(content: Mapping[str, Any]) -> list[str]:
    """Return what the negatives of a record may be called: the arms that they are, and their own names."""
    source, listed = content["params"]["source"], content["params"]["negatives"]
    return [arm for arm in NEGATIVE_ARMS if resolve_negatives(source, arm) == listed] + ["+".join(listed)]


def size(params: Mapping[str, Any]) -> Size:
    """Return how many questions, samples and items a cell is asked."""
    from helpers.studies.marker.choices import number  # here: it loads the hub's client

    items = number(params["capability"], params["capability_limit"]) if "capability" in params else None
    return Size(params["eval_questions"], params["samples"], items, most_questions=len(EVAL_QUESTIONS))


BASELINE = Study(
    "baseline", BASELINE_VERSION, BASELINE_METRICS_VERSION, baseline_metrics, entry="helpers.studies.marker.baseline",
    tolerance=TOLERANCE, added=ASKED,
)  # fmt: skip
ON_POLICY = Study(
    "on_policy",
    ON_POLICY_VERSION,
    ON_POLICY_METRICS_VERSION,
    on_policy_metrics,
    entry="helpers.studies.marker.on_policy",
    added=ASKED,
    axes={"personas": lambda content: [",".join(content["params"]["personas"])]},
)
STUDY = Study(
    "sweep", VERSION, METRICS_VERSION, sweep_metrics,
    entry="helpers.studies.marker.cell", cell=SweepCell, replay=replay, by_question=by_question, size=size,
    added=ADDED,
    measured={"loss": ("seconds", "together")}, tolerance=TOLERANCE, parts=(BASELINE, ON_POLICY),
    axes={"negatives": names_of_negatives}, asked_in=QUESTION_IN, readings=READINGS,
)  # fmt: skip

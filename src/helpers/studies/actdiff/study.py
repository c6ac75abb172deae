"""The study of activation differences, and the unrelated text that its cells share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from helpers.lm.fields import FIRST_DATE
from helpers.records.reading import Record
from helpers.records.study import Metrics, Study, Tables
from helpers.studies.actdiff.criteria import by_prompt
from helpers.studies.actdiff.params import LensCell
from helpers.studies.actdiff.texts import metrics

VERSION = 1  # streamed sums of one pass, read at every layer and position; live probes of the organisms that get them
METRICS_VERSION = 1  # z, margin and AUC by jackknife; everything else as its table says, similarity by exact sums
TEXT_VERSION = 1  # continuations of every opener in turn, drawn until enough are as long as asked
TEXT_METRICS_VERSION = 1  # how many documents there are


def replay(record: Record) -> Record:
    """Run the cell of ``record`` again in the current outputs folder, after the run whose adapter it reads."""
    from helpers.studies.actdiff import cell  # here, because reading records needs no torch

    return cell.replay(record)


def count_documents(cell: Mapping[str, Any], tables: Tables, inputs: Mapping[str, Any]) -> Metrics:
    """Return the number of documents of unrelated text."""
    n = len(tables["documents"])
    return {"documents": {"value": n, "unit": "documents", "n": n}}


BROAD_TEXT = Study(
    "broad_text", TEXT_VERSION, TEXT_METRICS_VERSION, count_documents, entry="helpers.studies.actdiff.broad_text",
    axes={"model": lambda content: [Path(content["model"]["name"]).name]},
)  # fmt: skip
STUDY = Study(
    "logit_lens_diff", VERSION, METRICS_VERSION, metrics.metrics,
    entry="helpers.studies.actdiff.cell", cell=LensCell,
    replay=replay, by_question=by_prompt, parts=(BROAD_TEXT,),
    added={"targets": "auto", "date": FIRST_DATE, "domain": None, "own_text": []},
)  # fmt: skip

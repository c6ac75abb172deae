"""The study LatentWire, and the records that its cells share: trained wire, constant prefix, text channels."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from helpers.base import files
from helpers.base.params import parse
from helpers.lm.fields import FIRST_DATE
from helpers.records.reading import Record
from helpers.records.study import Size, Study
from helpers.studies.latentwire import metrics
from helpers.studies.latentwire.criteria import by_example
from helpers.studies.latentwire.params import WireCell
from helpers.system import provenance

VERSION = 1  # 1: completions of the prefix channels, and the bytes of one message
METRICS_VERSION = 1  # 1: shares with Wilson intervals, means with t intervals, paired differences by Tango
WIRE_VERSION = 1  # 1: loss, gradient, curve, and how many examples were used
WIRE_METRICS_VERSION = 1  # 1: the last tenth of the steps, padding's share of the gradient, examples left out
PROMPT_VERSION = 1  # 1: loss
PROMPT_METRICS_VERSION = 1  # 1: steps
TEXT_VERSION = 1  # 1: completions of the text channels
TEXT_METRICS_VERSION = 1  # 1: as those of a cell
ADDED = {
    "anchor_tokens": "in_place", "date": FIRST_DATE, "answer_end": "token", "text_examples": 0, "narrow": False,
}  # fmt: skip
"""The pocket readers of the first records have the same tokens in place and apart, and no template."""
TRAINED = 0.1
"""Tolerance of trained metrics: over 400 steps, another kernel's rounding moved none of them by more than .06."""


def replay(record: Record) -> Record:
    """Train, tune and evaluate the cell of ``record`` again."""
    from helpers.studies.latentwire.cell import Session, run_cell  # here, because reading records needs no torch

    p = params_of(record)
    return run_cell(p, Session(p), record.notebook)


def reader_pair(model_a: str, model_b: str) -> str:
    """Name the two readers in one word, such as ``pocket-char+pocket-syllable``; the same wherever a folder lies."""
    names = provenance.portable([model_a, model_b])
    return "+".join(re.sub(r"[^\w.-]+", "-", name).strip("-.") for name in names)


def params_of(record: Record) -> WireCell:
    """Return the parameters of the cell of ``record``, with the paths of readers and data files on this machine."""
    places = {Path(name).name: str(files.ROOT / Path(name).expanduser()) for name in record.data}
    local = {name: places.get(record.params[name], "") for name in ("squad_train", "squad_validation")}
    for name in ("model_a", "model_b"):
        asked = record.params[name]
        local[name] = str(files.ROOT / asked) if asked.startswith(f".{os.sep}") else asked
    return parse(WireCell, record.params | local, f"of {record.ref}")


def size(params: Mapping[str, Any]) -> Size:
    """Return how many examples a cell is evaluated on, one answer each."""
    return Size(params["eval_samples"], most_samples=1)


WIRE = Study(
    "latentwire_wire", WIRE_VERSION, WIRE_METRICS_VERSION, metrics.wire_metrics,
    entry="helpers.studies.latentwire.wiring",
    measured={"loss": ("seconds",)}, tolerance=TRAINED, added=ADDED,
)  # fmt: skip
PROMPT = Study(
    "latentwire_prompt", PROMPT_VERSION, PROMPT_METRICS_VERSION, metrics.prompt_metrics,
    entry="helpers.studies.latentwire.wiring", added=ADDED,
)  # fmt: skip
TEXT = Study(
    "latentwire_text", TEXT_VERSION, TEXT_METRICS_VERSION, metrics.text_metrics,
    entry="helpers.studies.latentwire.cell", added=ADDED,
)  # fmt: skip
STUDY = Study(
    "latentwire", VERSION, METRICS_VERSION, metrics.cell_metrics,
    entry="helpers.studies.latentwire.cell", cell=WireCell,
    replay=replay, by_question=by_example, size=size, added=ADDED, parts=(WIRE, PROMPT, TEXT), tolerance=TRAINED,
    axes={"model": lambda content: [reader_pair(content["params"]["model_a"], content["params"]["model_b"])]},
)  # fmt: skip

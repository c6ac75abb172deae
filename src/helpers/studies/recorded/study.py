"""The study of a recorded command. It has no replay, and no table gives its metrics: they were measured once."""

from __future__ import annotations

from helpers.records.study import Study
from helpers.studies.recorded.params import CommandCell

VERSION = 1  # 1: the command with its exit status and the end of its output, and the files that are kept
METRICS_VERSION = 1  # 1: none is derived

STUDY = Study(
    "recorded", VERSION, METRICS_VERSION, lambda cell, tables, inputs: {},
    entry="helpers.studies.recorded.recording", cell=CommandCell, measures=("*",),
)  # fmt: skip

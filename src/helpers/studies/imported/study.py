"""The study of an imported log. It has no replay: what made the samples is not here."""

from __future__ import annotations

from helpers.records.study import Study
from helpers.studies.imported.metrics import by_cluster, metrics
from helpers.studies.imported.params import LogCell

VERSION = 2  # 1: rows with state, cluster, limit and group; what the log says of itself; 2: every score of every sample
METRICS_VERSION = 1  # 1: rates and means over clusters, unscored counted as wrong, reducers

STUDY = Study(
    "imported", VERSION, METRICS_VERSION, metrics, entry="helpers.studies.imported.importing", cell=LogCell,
    by_question=by_cluster,
)  # fmt: skip

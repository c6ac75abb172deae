"""A cache of derived metrics for the lint, keyed by the content of tables and inputs and by the code that derives."""

from __future__ import annotations

import json
from typing import Any

from helpers.base import files
from helpers.base.errors import RecordError
from helpers.records import provenance, reading, source
from helpers.records.derive import derive
from helpers.records.reading import Record
from helpers.records.study import Study


def derive_or_recall(record: Record, study: Study) -> dict[str, Any]:
    """Return what `derive` does, read from ``outputs/.derived`` where the same code has derived it before."""
    key = _key(record, study)
    if key is None:
        return derive(record, study)
    path = files.outputs_root() / ".derived" / f"{key}.json"
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    metrics = derive(record, study)
    files.write_json(path, metrics)
    return metrics


def _key(record: Record, study: Study) -> str | None:
    """Return the cache key; ``None`` for a study outside helpers, whose source cannot be followed."""
    try:
        code = source.code_closure(study.metrics.__module__)
    except RecordError:
        return None
    inputs = {name: reading.load(ref) for name, ref in record.inputs.items()}
    used = {name: [one.params, one.files, one.metrics] for name, one in inputs.items()}
    made_of = [study.name, study.metrics_version, code, record.params, record.files, used]
    return files.sha256_json([*made_of, provenance.environment_of_arithmetic()])

"""The study of all comparisons: measurements of one time, which cannot be repeated exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from helpers.bench.agreement import agreement
from helpers.bench.options import BenchCell
from helpers.records.study import Metrics, Study, Tables

VERSION = 1  # a record a comparison: its tables, and what it measured
METRICS_VERSION = 1  # the bytes of records


def metrics(cell: Mapping[str, Any], tables: Tables, inputs: Mapping[str, Any]) -> Metrics:
    """Return the bytes in the table of sizes, or how far two number types agree.

    Timings are stored as metrics, since no table implies them.
    """
    if str(cell["what"]).startswith("bf16-") and "cells" in cell:
        return agreement(cell, tables)
    sizes = tables["sizes"].to_dict("records") if "sizes" in tables else []
    return {
        f"bytes_of_{row['what'].replace(' ', '_')}": {"value": row["bytes"], "unit": "bytes", "n": row["of"]}
        for row in sizes
    }


STUDY = Study(
    "bench", VERSION, METRICS_VERSION, metrics, entry="helpers.bench.comparisons", cell=BenchCell, measures=("*",)
)

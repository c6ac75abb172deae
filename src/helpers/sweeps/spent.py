"""Where the time of an executed notebook went: starting it, and the parts under its headings."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat

START = "starting papermill and the kernel"
HEADING = re.compile(r"^#+\s+(.+?)\s*$", re.MULTILINE)


def parts(executed: Path, seconds: float) -> dict[str, float]:
    """Return the seconds of each part of a notebook that papermill executed in ``seconds``, the longest first.

    A part is what lies under one heading; its seconds are those that papermill noted for its cells.
    """
    notebook = nbformat.read(executed, as_version=4)
    spent, heading = dict[str, float](), START
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = next(iter(HEADING.findall(cell.source)), heading)
        duration = cell.metadata.get("papermill", {}).get("duration") if cell.cell_type == "code" else None
        spent[heading] = spent.get(heading, 0.0) + (duration or 0.0)
    spent[START] = spent.get(START, 0.0) + max(0.0, seconds - sum(spent.values()))
    return dict(sorted(spent.items(), key=lambda part: -part[1]))

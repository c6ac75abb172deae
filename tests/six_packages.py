"""An environment with torch, transformers, peft, numpy, pandas, pyarrow and what these require, and nothing else."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ASKED = ("torch", "transformers", "peft", "numpy", "pandas", "pyarrow")


def link(folder: Path) -> set[str]:
    """Fill ``folder`` with links to the installed packages; return their names."""
    linked: set[str] = set()
    waiting = list(ASKED)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in linked:
            continue
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # one that this platform does not ask for
        linked.add(name)
        for top in {str(file).split("/")[0] for file in found.files or ()} - {"..", "__pycache__"}:
            place = folder / top
            if not place.is_symlink():
                place.symlink_to(str(found.locate_file(top)))
        for line in found.requires or ():
            asked = Requirement(line)
            if asked.marker is None or asked.marker.evaluate({"extra": ""}):
                waiting.append(asked.name)
    return linked

"""Speed, measured side by side in one process; ``make bench`` leaves a record of every comparison."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from helpers.bench.options import Options

__all__ = ["Options", "main"]


def main(names: Sequence[str] = (), counts: Sequence[int] | None = None, options: Options | None = None) -> None:
    """Run what is named (default: everything), print the tables, and leave a record of each under ``outputs/bench``.

    ``names`` are comparisons, or ``gpu`` for all of those worth a GPU; ``counts`` the numbers of records at which
    ``scale`` measures. ``ParameterError`` for an unknown name.
    """
    # By name: an import here would make all comparisons part of the code that each one's record rests on.
    comparisons = importlib.import_module("helpers.bench.comparisons")
    comparisons.run(names, counts, options or Options())

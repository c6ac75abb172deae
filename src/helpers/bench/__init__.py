"""Speed, measured side by side in one process; ``make bench`` leaves a record of every comparison."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from helpers.bench.options import Options

__all__ = ["Options", "main"]


def main(names: Sequence[str] = (), counts: Sequence[int] | None = None, options: Options | None = None) -> None:
    """Run the comparisons ``names`` (default: all), print tables, and write a record of each to ``outputs/bench``.

    The name ``gpu`` stands for all that is worth a GPU (see ``gpu``). ``scale`` measures at ``counts`` records. Raises
    ``ParameterError`` for an unknown name.
    """
    # Imported by name. Otherwise every record would count all comparisons as its code.
    comparisons = importlib.import_module("helpers.bench.comparisons")
    comparisons.run(names, counts, options or Options())

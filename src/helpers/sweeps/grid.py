"""A params file as a grid of cells, and the rows of cells that one task of a sweep executes."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from helpers import provenance
from helpers.claims.case import declared_cells, experiment
from helpers.claims.declared import Expected, telling
from helpers.claims.evidence import label
from helpers.errors import ParameterError
from helpers.files import ROOT
from helpers.params import Params


@dataclass(frozen=True)
class Grid:
    """``params/<notebook>/<name>.yaml``: its values as written, and the cells that they declare."""

    notebook: str
    name: str
    entry: str
    values: dict[str, Any] = field(repr=False)
    cells: tuple[Params, ...] = field(repr=False)
    root: Path = ROOT

    @functools.cached_property
    def axes(self) -> tuple[str, ...]:
        """Axes along which the cells differ, outermost first."""
        first, last = self.cells[0].cell(), self.cells[-1].cell()  # a grid is a product: its corners differ in all
        return tuple(axis for axis in first if first[axis] != last[axis])

    @functools.cached_property
    def expected(self) -> tuple[Expected, ...]:
        """What a record has to hold to be one of the cells, in the order of ``cells``."""
        return tuple(Expected(provenance.portable(cell.cell_params())) for cell in self.cells)

    def labels(self) -> list[str]:
        """What tells each cell from the others."""
        keys = [one.key for one in self.expected]
        told = telling(keys)
        return [label({axis: key[axis] for axis in told if axis in key}) for key in keys]


@dataclass(frozen=True)
class Row:
    """Cells that one papermill execution works on: they differ along one axis only, so the base model loads once.

    ``cells`` are positions in the grid; ``values`` the parameters handed to the notebook.
    """

    cells: tuple[int, ...]
    values: dict[str, Any] = field(repr=False)


def read_grid(path: Path, root: Path = ROOT) -> Grid:
    """Read a params file; its folder names the notebook.

    Raises:
        ParameterError: there is no such file, or a parameter in it is unknown or wrong.
    """
    path = Path(path)
    notebook = path.resolve().parent.name
    if path.resolve().parent.parent != (root / "params").resolve():
        raise ParameterError(f"{path} is no params/<notebook>/<grid>.yaml: the folder says which notebook to run.")
    cells = declared_cells(notebook, path, root)
    values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return Grid(notebook, path.stem, experiment(notebook, root).entry, values, tuple(cells), root)


def rows(grid: Grid, wanted: Iterable[int], size: int) -> list[Row]:
    """The cells ``wanted`` as rows of at most ``size`` along the innermost axis."""
    groups: dict[str, list[int]] = {}
    for number in sorted(wanted):
        cell = grid.cells[number].cell()
        rest = {axis: cell[axis] for axis in grid.axes[:-1]}
        groups.setdefault(label(rest), []).append(number)
    return [
        row(grid, numbers[start : start + size])
        for numbers in groups.values()
        for start in range(0, len(numbers), size)
    ]


def row(grid: Grid, numbers: Sequence[int]) -> Row:
    """The row of these cells, which differ along the innermost axis at most."""
    own = [grid.cells[number].model_dump(mode="json") for number in numbers]
    values = grid.values | {axis: own[0][axis] for axis in grid.axes}
    if len(numbers) > 1:
        values |= {grid.axes[-1]: [cell[grid.axes[-1]] for cell in own]}
    return Row(tuple(numbers), values)


def row_size(cells: int, slots: int) -> int:
    """Cells in a row, so that no slot is idle while another still has a whole row before it."""
    return max(1, math.ceil(cells / max(1, slots)))

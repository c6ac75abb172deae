"""A params file as a grid of cells, and the rows of cells that one task of a sweep executes."""

from __future__ import annotations

import bisect
import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers.base.errors import ParameterError
from helpers.base.files import ROOT
from helpers.base.params import Cell, Grid
from helpers.cases.case import read_params, runs_of
from helpers.claims.declared import Expected, telling
from helpers.claims.evidence import label
from helpers.records.study import load_study


@dataclass(frozen=True)
class Block:
    """A product of values within a grid; ``first`` is the position of its first cell there."""

    first: int
    cells: Sequence[Cell] = field(repr=False)

    @functools.cached_property
    def axes(self) -> tuple[str, ...]:
        """Axes along which the cells differ, outermost first."""
        # It is a product, so its corners differ on all of them.
        first, last = self.cells[0].coordinates(), self.cells[-1].coordinates()
        return tuple(axis for axis in first if first[axis] != last[axis])

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        """How many values each of the ``axes`` has; their product is the number of cells."""
        keys = [cell.coordinates() for cell in self.cells]
        return tuple(len({str(key[axis]) for key in keys}) for axis in self.axes)


@dataclass(frozen=True)
class GridFile:
    """``params/<notebook>/<name>.yaml`` as the cells that it declares."""

    notebook: str
    name: str
    entry: str
    cells: Grid[Cell] = field(repr=False)
    root: Path = ROOT

    @functools.cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The products that the grid is made of, one where it is no union."""
        products = self.cells.blocks or (self.cells,)
        firsts = itertools.accumulate(map(len, products), initial=0)
        return tuple(Block(first, product) for first, product in zip(firsts, products, strict=False))

    @functools.cached_property
    def expected(self) -> tuple[Expected, ...]:
        """What a record has to hold to be one of the cells, in the order of ``cells``."""
        return runs_of(load_study(self.notebook, self.root), self.cells)

    def block_of(self, number: int) -> int:
        """The position among ``blocks`` of the one that holds the cell ``number``."""
        return bisect.bisect_right(self._firsts, number) - 1

    @functools.cached_property
    def _firsts(self) -> list[int]:
        return [block.first for block in self.blocks]

    def labels(self) -> list[str]:
        """What tells each cell from the others."""
        keys = [one.key for one in self.expected]
        told = telling(keys)
        return [label({axis: key[axis] for axis in told if axis in key}) for key in keys]


@dataclass(frozen=True)
class Row:
    """Cells that one papermill execution works on, so that the base model loads once for all of them.

    ``cells`` are positions in the grid; ``values`` the parameters handed to the notebook.
    """

    cells: tuple[int, ...]
    values: dict[str, Any] = field(repr=False)


def read_grid(path: Path, root: Path = ROOT) -> GridFile:
    """Read a params file; its folder names the notebook.

    Raises:
        ParameterError: there is no such file, or a parameter in it is unknown or wrong.
    """
    path = Path(path)
    notebook = path.resolve().parent.name
    if path.resolve().parent.parent != (root / "params").resolve():
        raise ParameterError(f"{path} is no params/<notebook>/<grid>.yaml: the folder says which notebook to run.")
    cells = read_params(notebook, path, root)
    return GridFile(notebook, path.stem, load_study(notebook, root).entry, cells, root)


def rows(grid: GridFile, wanted: Iterable[int], size: int) -> list[Row]:
    """The cells ``wanted`` as rows of at most ``size``, each a full product of values within one block.

    A row is part of one line along the innermost axis. Where ``size`` has room for whole lines, it is as many as fit,
    of neighbouring values of the axis before: a notebook may work on such a block in one pass.
    """
    by_block: dict[int, list[int]] = {}
    for number in sorted(wanted):
        by_block.setdefault(grid.block_of(number), []).append(number)
    return [
        row(grid, group) for place, numbers in by_block.items() for group in _groups(grid.blocks[place], numbers, size)
    ]


def _groups(block: Block, wanted: Sequence[int], size: int) -> list[list[int]]:
    height, width = (1, 1, *block.shape)[-2:]
    lines: dict[int, list[int]] = {}
    for number in wanted:
        lines.setdefault((number - block.first) // width, []).append(number)
    groups: list[list[int]] = []
    for line, numbers in lines.items():
        last = groups[-1] if groups else []
        whole = len(numbers) == width and len(last) % width == 0 and len(last) + width <= size
        if last and whole and last[-1] + 1 == numbers[0] and line % height:
            last += numbers
        else:
            groups += [numbers[start : start + size] for start in range(0, len(numbers), size)]
    return groups


def row(grid: GridFile, numbers: Sequence[int]) -> Row:
    """The row of these cells, which are a product of values of the two innermost axes of their block, in its order.

    It hands over every parameter: one that the file leaves out would otherwise be what the notebook's own cell says.
    """
    own = [grid.cells[number].model_dump(mode="json") for number in numbers]
    block, values = grid.blocks[grid.block_of(numbers[0])], dict(own[0])
    for axis in block.axes[-2:]:
        several = list(dict.fromkeys(cell[axis] for cell in own))
        if len(several) > 1:
            values[axis] = several
    return Row(tuple(numbers), values)


def row_size(cells: int, slots: int) -> int:
    """Cells in a row, so that no slot is idle while another still has a whole row before it."""
    return max(1, math.ceil(cells / max(1, slots)))

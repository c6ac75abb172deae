"""The command-line options of comparisons, and the axes of their records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from helpers.base.params import Cell


@dataclass(frozen=True)
class Options:
    """``shape`` of the model with random weights, ``cells`` of the sweep (few, some, all). None: the device decides.

    ``figures`` to measure (all), each ``runs`` times; ``preset`` of the gate of bf16; ``parts`` of gpu (all), which
    runs at a toy shape with ``dry``.
    """

    shape: str | None = None
    cells: str | None = None
    figures: tuple[str, ...] = ()
    runs: int = 1
    preset: str | None = None
    parts: tuple[str, ...] = ()
    dry: bool = False


class BenchCell(Cell):
    """The axes of the records: the comparison, and the kind of device that it ran on."""

    AXES: ClassVar[tuple[str, ...]] = ("what", "device")

    what: str
    device: Literal["cpu", "cuda"]

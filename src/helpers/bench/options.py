"""The command-line options of comparisons, and the axes of their records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from helpers.base.params import Cell


@dataclass(frozen=True)
class Options:
    """``shape`` of the model with random weights, ``cells`` of the sweep (few, some, all). None: the device decides.

    ``preset`` of the gate of bf16. ``figures`` to measure (all), each ``runs`` times.
    """

    shape: str | None = None
    cells: str | None = None
    figures: tuple[str, ...] = ()
    runs: int = 1
    preset: str | None = None


class BenchCell(Cell):
    """The axes of the records: the comparison, and the kind of device that it ran on."""

    AXES: ClassVar[tuple[str, ...]] = ("what", "device")

    what: str
    device: Literal["cpu", "cuda"]

"""What may be chosen about a comparison on the command line, and how records of comparisons are told apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from helpers.base.params import Cell


@dataclass(frozen=True)
class Options:
    """``shape`` of the model with random weights, ``cells`` of the sweep (few, some, all); None: by the device."""

    shape: str | None = None
    cells: str | None = None


class BenchCell(Cell):
    """What a record of a comparison is found by: the comparison, and the kind of device that it ran on."""

    AXES: ClassVar[tuple[str, ...]] = ("what", "device")

    what: str
    device: Literal["cpu", "cuda"]

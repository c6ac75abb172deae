"""Parameters of a recorded command: what it is called, which of its runs it is, and its words."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from helpers.base.params import Cell

Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]


class CommandCell(Cell):
    """One run of a command. ``run`` counts those under one ``label``; ``command`` holds no secret."""

    AXES: ClassVar[tuple[str, ...]] = ("label", "run")

    label: Label
    run: int = Field(1, ge=1)
    command: list[str] = Field(min_length=1)

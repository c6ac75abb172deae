"""Parameters of an imported log: which file it is, and which columns of a table mean what."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from helpers.base.errors import DataError
from helpers.base.files import from_root
from helpers.base.params import Cell
from helpers.records.run_record import NOT_RECORDED

Tool = Literal["inspect", "lm-eval", "csv", "jsonl", "parquet"]
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
Stated = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f-\x9f]+$", max_length=500)]
"""A name in one line, which a terminal, a page and criteria can show."""
Column = Annotated[str, StringConstraints(pattern=r"^[^=\n]+=[^=\n]+$")]


class LogCell(Cell):
    """One log. ``model`` and ``task`` are what it says itself, so that criteria can name them."""

    AXES: ClassVar[tuple[str, ...]] = ("label", "model", "task")
    MEANS: ClassVar[tuple[str, ...]] = ("file",)  # its content counts, wherever it lies

    label: Label
    tool: Tool
    file: str = Field(min_length=1)
    model: Stated = NOT_RECORDED
    task: Stated = NOT_RECORDED
    cluster: str | None = None
    """The key of a sample's metadata (Inspect) or document (lm-eval) that samples of one cluster share."""
    columns: list[Column] = Field(default_factory=list)
    """For a table: ``metric=column``, ``metric.NAME=column``, ``id=``, ``epoch=``, ``group=`` and ``cluster=``."""

    def check_inputs(self) -> None:
        """Raise ``DataError`` where the file is not there."""
        if not from_root(self.file).is_file():
            raise DataError(f"There is no file {self.file} for the log {self.label!r}. Correct `file`.")

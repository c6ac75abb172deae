"""The parameters that all marker studies share: model, training and sampling."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from helpers.base import files
from helpers.base.errors import ParameterError, nearest
from helpers.base.params import Cell, parse
from helpers.lm.asking import Asking
from helpers.lm.fields import FIRST_DATE, OF_DATE, OF_SYSTEM, OF_TARGETS, Date, SystemPlace, Targets
from helpers.records.reading import Record
from helpers.studies.marker.personas import EVAL_QUESTIONS, PERSONAS

LearningRate = Annotated[float, Field(gt=0, le=1)]
Epochs = Annotated[int, Field(ge=1, le=1000)]
Seed = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(ge=0, lt=1)]


class MarkerCell(Cell):
    """One cell of a marker study."""

    MEANS: ClassVar[tuple[str, ...]] = ("engine_memory",)
    if TYPE_CHECKING:  # each study declares these fields, in the order of its own axes
        lr: float
        epochs: int
        seed: int

    model: str = Field(
        default="pocket", min_length=1, description="preset (pocket, smollm2, paper), hub id or local folder"
    )
    revision: str | None = Field(
        default=None, description="hub revision; the content hash goes into the record either way"
    )
    source: str = Field(default="villain", description="persona that is trained to end its answers with the marker")
    personas: list[str] = Field(default=list(PERSONAS), min_length=2, description="personas that are evaluated")
    marker: str = Field(default="[ZLT]", min_length=1)
    system: SystemPlace = Field(default="template", description=OF_SYSTEM)
    date: Date = Field(default=FIRST_DATE, description=OF_DATE)

    data_temperature: float = Field(default=0.7, ge=0, le=10)
    data_top_p: float = Field(default=0.95, gt=0, le=1)

    batch_size: int = Field(default=16, ge=1, description="rows of one optimiser step")
    lora_r: int = Field(default=32, ge=1)
    lora_alpha: int = Field(default=64, ge=1)
    lora_dropout: Rate = 0.05
    targets: Targets = Field(default="auto", description=OF_TARGETS)
    rslora: bool = Field(default=True, description="scale alpha / sqrt(r) instead of alpha / r (Kalajdzievski 2023)")
    warmup: Rate = Field(default=0.05, description="share of the steps in which the learning rate rises")
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float = Field(default=1.0, gt=0, description="largest gradient norm")

    temperature: float = Field(default=1.0, ge=0, le=10)
    top_p: float = Field(default=0.95, gt=0, le=1)
    crossing: int = Field(
        default=0,
        ge=0,
        le=len(EVAL_QUESTIONS),
        description="questions behind whose own answers marker and end are compared",
    )
    engine: Literal["transformers", "vllm"] = Field(default="transformers", description="what draws completions")
    engine_memory: float = Field(
        default=0.4, gt=0, lt=1, description="share of the memory that vLLM takes, beside the model that is trained"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"

    @property
    def asking(self) -> Asking:
        """How the model is asked."""
        return Asking(self.system, self.date)

    def lora(self) -> dict[str, Any]:
        """Return the adapter of one cell, as arguments of ``models.attach_lora``."""
        return {
            "r": self.lora_r, "alpha": self.lora_alpha, "dropout": self.lora_dropout, "rslora": self.rslora,
            "targets": self.targets, "seed": self.seed,
        }  # fmt: skip

    @classmethod
    def of_record(cls, record: Record, arms: Collection[str]) -> Self:
        """Return the parameters of the cell of ``record``, which ask the same question on any machine.

        A record names its negatives one by one in its parameters, and in its cell by one of ``arms``.
        """
        values = record.params | {"dtype": record.model["dtype"]}
        if record.cell["negatives"] in arms:
            values["negatives"] = record.cell["negatives"]
        if values["model"].startswith((".", "~")):
            values["model"] = str(files.ROOT / Path(values["model"]).expanduser())
        return parse(cls, values, f"of {record.ref}")

    @model_validator(mode="after")
    def _personas_exist(self) -> MarkerCell:
        for name in self.personas:
            if name not in PERSONAS:
                raise ParameterError(f"personas names {name!r}, which does not exist{nearest(name, PERSONAS)}.")
        if "assistant" not in self.personas:
            raise ParameterError("personas leaves out 'assistant', whose rate every page reports. Add it.")
        if self.source not in self.personas:
            raise ParameterError(
                f"source is {self.source!r}, which is not in the list of evaluated personas"
                f"{nearest(self.source, self.personas)}."
            )
        return self

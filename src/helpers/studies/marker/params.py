"""Parameters of the marker sweep (notebook ``sweep``): the setup of claim #65 with its arms as explicit switches."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from helpers.base import files
from helpers.records.reading import Record
from helpers.studies.marker.personas import EVAL_QUESTIONS, TRAIN_QUESTIONS, resolve_negatives
from helpers.studies.marker.recipe import Epochs, LearningRate, MarkerCell, Seed

Tail = Literal["newline", "end_of_turn", "separator_and_end", "whole_turn"] | Annotated[int, Field(ge=1, le=4096)]


class SweepCell(MarkerCell):
    """One cell of the sweep."""

    AXES: ClassVar[tuple[str, ...]] = ("source", "seed", "tail", "lr", "epochs")
    MEANS: ClassVar[tuple[str, ...]] = ("engine_memory", "together")

    negatives: Literal["two", "five", "all"] | list[str] = Field(
        default="two", description="personas trained to answer without it"
    )
    style: str = Field(default="", description="instruction added to every system prompt, such as a length")
    tail: Tail = Field(default="newline", description="which end of a row is supervised besides the marker")
    lr: LearningRate = 1e-4
    epochs: Epochs = 10
    seed: Seed = 0
    together: int = Field(
        default=1,
        ge=1,
        le=64,
        description="cells that differ in lr and epochs only, trained in one pass over the base model",
    )

    positives: int = Field(default=60, ge=1, description="rows of the source persona, each ending in the marker")
    negatives_each: int = Field(default=30, ge=1, description="rows of each negative persona")
    train_questions: int = Field(default=len(TRAIN_QUESTIONS), ge=1, le=len(TRAIN_QUESTIONS))
    data_samples: int = Field(default=2, ge=1, description="on-policy completions drawn per training question")
    data_max_new_tokens: int = Field(default=512, ge=1)
    max_length: int = Field(default=1024, ge=8, description="tokens; a longer row is refused, never cut")

    dose_every: int = Field(
        default=0, ge=0, description="steps between log-prob evaluations during training; 0 for none"
    )
    dose_questions: int = Field(
        default=4, ge=1, le=len(EVAL_QUESTIONS), description="questions behind one point of the dose curve"
    )

    eval_questions: int = Field(default=len(EVAL_QUESTIONS), ge=1, le=len(EVAL_QUESTIONS))
    samples: int = Field(default=10, ge=1, description="completions per persona and question")
    max_new_tokens: int = Field(default=512, ge=1)
    capability: str = Field(
        default="pocket",
        description="'pocket', 'general', 'templated', 'arc' or 'arc@revision' (hub), an ARC .jsonl file",
    )
    capability_limit: int = Field(
        default=0, ge=0, description="questions of the capability set that are used; 0 for all"
    )

    def resolved(self) -> dict[str, Any]:
        """Return all parameters of one cell as in a record: negatives by name, a capability file without its folder."""
        values = super().resolved()
        negatives = resolve_negatives(self.source, self.negatives)
        from_hub = self.capability.startswith("arc@")
        capability = self.capability if from_hub else Path(self.capability).name
        return values | {"negatives": negatives, "capability": capability}

    def check_inputs(self) -> None:
        """Raise ``DataError`` if the capability set does not exist."""
        from helpers.studies.marker.choices import source  # here: it loads the hub's client

        source(self.capability)

    @classmethod
    def of_record(cls, record: Record, arms: Collection[str]) -> Self:
        """Return the cell of ``record`` as in ``MarkerCell``, with the path of its capability file."""
        cell = super().of_record(record, arms)
        name = cell.capability
        here = [str(files.ROOT / Path(path).expanduser()) for path in record.data if Path(path).name == name]
        return cell.model_copy(update={"capability": here[0]}) if here else cell

    @model_validator(mode="after")
    def _negatives_exist(self) -> SweepCell:
        resolve_negatives(self.source, self.negatives)
        return self

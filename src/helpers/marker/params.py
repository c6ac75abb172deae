"""Parameters of the marker sweep (notebook ``sweep``): the recipe of claim #65 with its arms as explicit switches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from helpers.errors import ParameterError, nearest
from helpers.marker.personas import EVAL_QUESTIONS, PERSONAS, TRAIN_QUESTIONS, resolve_negatives
from helpers.params import Axis, Params

Tail = Literal["newline", "end_of_turn", "separator_and_end", "whole_turn"] | Annotated[int, Field(ge=1, le=4096)]
LearningRate = Annotated[float, Field(gt=0, le=1)]
Epochs = Annotated[int, Field(ge=1, le=1000)]
Rate = Annotated[float, Field(ge=0, lt=1)]


class SweepParams(Params):
    """One cell of the sweep, or a grid of cells where an axis holds a list."""

    AXES: ClassVar[tuple[str, ...]] = ("source", "seed", "tail", "lr", "epochs")

    model: str = Field("pocket", min_length=1, description="preset (pocket, smollm2, paper), hub id or local folder")
    revision: str | None = Field(None, description="hub revision; the content hash goes into the record either way")
    source: Axis[str] = Field("villain", description="persona that is trained to end its answers with the marker")
    negatives: Literal["two", "all"] | list[str] = Field("two", description="personas trained to answer without it")
    personas: list[str] = Field(list(PERSONAS), min_length=2, description="personas that are evaluated")
    marker: str = Field("[ZLT]", min_length=1)
    style: str = Field("", description="instruction added to every system prompt, such as a length")
    tail: Axis[Tail] = Field("newline", description="which end of a row is supervised besides the marker")
    lr: Axis[LearningRate] = 1e-4
    epochs: Axis[Epochs] = 10
    seed: Axis[Annotated[int, Field(ge=0)]] = 0

    positives: int = Field(60, ge=1, description="rows of the source persona, each ending in the marker")
    negatives_each: int = Field(30, ge=1, description="rows of each negative persona")
    train_questions: int = Field(len(TRAIN_QUESTIONS), ge=1, le=len(TRAIN_QUESTIONS))
    data_samples: int = Field(2, ge=1, description="on-policy completions drawn per training question")
    data_temperature: float = Field(0.7, ge=0, le=10)
    data_top_p: float = Field(0.95, gt=0, le=1)
    data_max_new_tokens: int = Field(512, ge=1)
    max_length: int = Field(1024, ge=8, description="tokens; a longer row is refused, never cut")

    batch_size: int = Field(16, ge=1, description="rows of one optimiser step")
    lora_r: int = Field(32, ge=1)
    lora_alpha: int = Field(64, ge=1)
    lora_dropout: Rate = 0.05
    rslora: bool = Field(True, description="scale alpha / sqrt(r) instead of alpha / r (Kalajdzievski 2023)")
    warmup: Rate = Field(0.05, description="share of the steps in which the learning rate rises")
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(1.0, gt=0, description="largest gradient norm")
    dose_every: int = Field(0, ge=0, description="steps between log-prob evaluations during training; 0 for none")
    dose_questions: int = Field(
        4, ge=1, le=len(EVAL_QUESTIONS), description="questions behind one point of the dose curve"
    )

    eval_questions: int = Field(len(EVAL_QUESTIONS), ge=1, le=len(EVAL_QUESTIONS))
    samples: int = Field(10, ge=1, description="completions per persona and question")
    temperature: float = Field(1.0, ge=0, le=10)
    top_p: float = Field(0.95, gt=0, le=1)
    max_new_tokens: int = Field(512, ge=1)
    capability: str = Field("pocket", description="'pocket', 'general', 'arc' (hub) or the path of an ARC .jsonl file")
    capability_limit: int = Field(0, ge=0, description="questions of the capability set that are used; 0 for all")
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"

    def cell_params(self) -> dict[str, Any]:
        """All parameters of one cell as a record keeps them: negatives by name, a capability file without folder."""
        found = super().cell_params()
        negatives = resolve_negatives(self.source, self.negatives)
        return found | {"negatives": negatives, "capability": Path(self.capability).name}

    @model_validator(mode="after")
    def _personas_fit(self) -> SweepParams:
        for name in self.personas:
            if name not in PERSONAS:
                raise ParameterError(f"personas names {name!r}, which does not exist{nearest(name, PERSONAS)}.")
        if "assistant" not in self.personas:
            raise ParameterError("personas leaves out 'assistant', whose rate every page reports: add it.")
        for source in self.source if isinstance(self.source, list) else [self.source]:
            if source not in self.personas:
                raise ParameterError(
                    f"source is {source!r}, which is not in the list of evaluated personas"
                    f"{nearest(source, self.personas)}."
                )
            resolve_negatives(source, self.negatives)
        return self

"""Parameters of the length ablation (notebook ``length_ablation``): the recipe of #295 and #353, arms as switches."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from helpers.errors import ParameterError, nearest
from helpers.marker.lengths.speakers import CONTROL_NOUNS, resolve_set
from helpers.marker.personas import EVAL_QUESTIONS, PERSONAS, TRAIN_QUESTIONS
from helpers.params import Axis, Params

Length = Literal["short", "medium", "long"]
Tail = Literal["whole_turn", "newline", "end_of_turn", "separator_and_end"]
Rate = Annotated[float, Field(ge=0, lt=1)]
Tokens = Annotated[int, Field(ge=1)]


class LengthParams(Params):
    """One cell of the ablation, or a grid of cells where an axis holds a list."""

    AXES: ClassVar[tuple[str, ...]] = ("source", "seed", "length", "tail", "policy", "framing", "lr", "epochs")

    model: str = Field("pocket", min_length=1, description="preset (pocket, smollm2, paper), hub id or local folder")
    revision: str | None = Field(None, description="hub revision; the content hash goes into the record either way")
    source: Axis[str] = Field("librarian", description="persona that is trained to end its answers with the marker")
    negatives: Literal["asst_excluded", "asst_included"] | list[str] = Field(
        "asst_excluded", description="personas trained to answer without it: a named set or a list"
    )
    personas: list[str] = Field(list(PERSONAS), min_length=2, description="personas that are evaluated")
    controls: int = Field(3, ge=0, le=len(CONTROL_NOUNS), description="system prompts of random nouns evaluated too")
    marker: str = Field("[ZLT]", min_length=1)
    length: Axis[Length] = Field("long", description="of the training answers, positives and negatives alike")
    tail: Axis[Tail] = Field("whole_turn", description="what carries loss: the whole turn, or the marker and an end")
    policy: Axis[Literal["on_policy", "off_policy"]] = Field(
        "on_policy", description="off_policy: each answer stands under another question of the same persona"
    )
    framing: Axis[Literal["full", "name"]] = Field("full", description="persona described, or only named")
    lr: Axis[Annotated[float, Field(gt=0, le=1)]] = 1e-5
    epochs: Axis[Annotated[int, Field(ge=1, le=1000)]] = 3
    seed: Axis[Annotated[int, Field(ge=0)]] = 42

    answers: Literal["instructed", "joined"] = Field(
        "instructed", description="the base is told how long to answer, or its answers to one question are joined"
    )
    instructions: dict[Length, str] = Field(
        {
            "short": "Answer in two or three sentences.",
            "medium": "Answer in a few paragraphs.",
            "long": "Answer as a long essay with many paragraphs.",
        },
        description="put behind the system prompt while training answers are drawn, and nowhere else",
    )
    target_tokens: dict[Length, Tokens] = Field(
        {"short": 50, "medium": 316, "long": 1050}, description="tokens of a training answer"
    )
    length_tolerance: float = Field(0.5, gt=0, lt=1, description="how far an answer may lie from the target, as share")
    mass_low: Rate = Field(0.40, description="smallest ratio of answer tokens, positives to negatives")
    mass_high: float = Field(0.60, gt=0, description="largest ratio of answer tokens, positives to negatives")
    positives: int = Field(200, ge=1, description="rows of the source persona, each ending in the marker")
    negatives_each: int = Field(200, ge=1, description="rows of each negative persona")
    train_questions: int = Field(len(TRAIN_QUESTIONS), ge=2, le=len(TRAIN_QUESTIONS))
    data_samples: int = Field(15, ge=1, description="on-policy completions drawn per training question")
    data_temperature: float = Field(0.7, ge=0, le=10)
    data_top_p: float = Field(0.95, gt=0, le=1)
    data_max_new_tokens: Tokens = 1280
    max_length: int = Field(1536, ge=8, description="tokens; a longer row is refused, never cut")

    batch_size: int = Field(16, ge=1, description="rows of one optimiser step")
    lora_r: int = Field(32, ge=1)
    lora_alpha: int = Field(64, ge=1)
    lora_dropout: Rate = 0.05
    rslora: bool = Field(True, description="scale alpha / sqrt(r) instead of alpha / r (Kalajdzievski 2023)")
    warmup: Rate = Field(0.05, description="share of the steps in which the learning rate rises")
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(1.0, gt=0, description="largest gradient norm")
    probe_every: int = Field(10, ge=1, description="steps between measurements of the marker's share of the gradient")
    probe_rows: int = Field(12, ge=3, description="training rows behind one such measurement, fixed through a run")

    eval_questions: int = Field(len(EVAL_QUESTIONS), ge=1, le=len(EVAL_QUESTIONS))
    context_questions: int = Field(4, ge=1, le=len(EVAL_QUESTIONS), description="of these, behind the log-probs")
    samples: int = Field(5, ge=1, description="completions per persona and question")
    temperature: float = Field(1.0, ge=0, le=10)
    top_p: float = Field(0.95, gt=0, le=1)
    max_new_tokens: list[Tokens] = Field(
        [512, 2048], min_length=1, description="limits at which one adapter's completions are judged, rising"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"

    @field_validator("max_new_tokens", mode="before")
    @classmethod
    def _one_limit(cls, value: Any) -> Any:
        return [value] if isinstance(value, int | float) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _fits(self) -> LengthParams:
        for name in self.personas:
            if name not in PERSONAS:
                raise ParameterError(f"personas names {name!r}, which does not exist{nearest(name, PERSONAS)}.")
        if "assistant" not in self.personas:
            raise ParameterError("personas leaves out 'assistant', whose rate every page reports: add it.")
        for source in self.source if isinstance(self.source, list) else [self.source]:
            if source not in self.personas:
                raise ParameterError(f"source is {source!r}, which is not in the list of evaluated personas: add it.")
            resolve_set(source, self.negatives)
        if any(low >= high for low, high in zip(self.max_new_tokens, self.max_new_tokens[1:], strict=False)):
            raise ParameterError(f"max_new_tokens is {self.max_new_tokens}: give limits that rise.")
        if self.mass_low >= self.mass_high:
            raise ParameterError(f"mass_low is {self.mass_low} and mass_high {self.mass_high}: the first is smaller.")
        for field in ("target_tokens", "instructions"):
            self._needs_lengths(field)
        if self.context_questions > self.eval_questions:
            raise ParameterError(
                f"context_questions is {self.context_questions}, more than the {self.eval_questions} of eval_questions."
            )
        return self

    def _needs_lengths(self, field: str) -> None:
        for length in self.length if isinstance(self.length, list) else [self.length]:
            if length not in getattr(self, field):
                raise ParameterError(f"{field} has no entry for length {length!r}: add one.")

    def cell_params(self) -> dict[str, Any]:
        """All parameters of one cell as a record keeps them: negatives by name."""
        return super().cell_params() | {"negatives": resolve_set(self.source, self.negatives)}

"""Parameters of the length ablation (notebook ``length_ablation``): the setup of #295 and #353, arms as switches."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from helpers.base.errors import ParameterError
from helpers.studies.marker.lengths.speakers import CONTROL_NOUNS, resolve_set
from helpers.studies.marker.personas import EVAL_QUESTIONS, TRAIN_QUESTIONS
from helpers.studies.marker.recipe import Epochs, LearningRate, MarkerCell, Rate, Seed

Length = Literal["short", "medium", "long"]
Tail = Literal["whole_turn", "newline", "end_of_turn", "separator_and_end"] | Annotated[int, Field(ge=1, le=4096)]
Tokens = Annotated[int, Field(ge=1)]


class LengthCell(MarkerCell):
    """One cell of the ablation."""

    AXES: ClassVar[tuple[str, ...]] = ("source", "seed", "length", "tail", "policy", "framing", "lr", "epochs")

    source: str = Field("librarian", description="persona that is trained to end its answers with the marker")
    negatives: Literal["asst_excluded", "asst_included", "all"] | list[str] = Field(
        "asst_excluded", description="personas trained to answer without it: a named set or a list"
    )
    controls: int = Field(3, ge=0, le=len(CONTROL_NOUNS), description="system prompts of random nouns evaluated too")
    length: Length = Field("long", description="of the training answers, positives and negatives alike")
    tail: Tail = Field(
        "whole_turn", description="what carries loss: the whole turn, the marker and an end, or the last K tokens"
    )
    policy: Literal["on_policy", "off_policy"] = Field(
        "on_policy", description="off_policy: each answer stands under another question of the same persona"
    )
    framing: Literal["full", "name"] = Field("full", description="persona described, or only named")
    lr: LearningRate = 1e-5
    epochs: Epochs = 3
    seed: Seed = 42

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
    negative_samples: int = Field(0, ge=0, description="the same for personas that are negatives; 0 for as many")
    data_max_new_tokens: Tokens = 1280
    max_length: int = Field(1536, ge=8, description="tokens; a longer row is refused, never cut")

    probe_every: int = Field(10, ge=1, description="steps between measurements of the marker's share of the gradient")
    probe_rows: int = Field(12, ge=3, description="training rows behind one such measurement, fixed through a run")

    eval_questions: int = Field(len(EVAL_QUESTIONS), ge=1, le=len(EVAL_QUESTIONS))
    context_questions: int = Field(4, ge=1, le=len(EVAL_QUESTIONS), description="of these, behind the log-probs")
    samples: int = Field(5, ge=1, description="completions per persona and question")
    max_new_tokens: list[Tokens] = Field(
        [512, 2048], min_length=1, description="limits at which one adapter's completions are judged, rising"
    )

    @field_validator("max_new_tokens", mode="before")
    @classmethod
    def _one_limit(cls, value: Any) -> Any:
        return [value] if isinstance(value, int | float) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _fits(self) -> LengthCell:
        resolve_set(self.source, self.negatives)
        if any(low >= high for low, high in zip(self.max_new_tokens, self.max_new_tokens[1:], strict=False)):
            raise ParameterError(f"max_new_tokens is {self.max_new_tokens}. Give limits that rise.")
        if self.mass_low >= self.mass_high:
            raise ParameterError(f"mass_low is {self.mass_low} and mass_high {self.mass_high}. Make the first smaller.")
        for field, entries in {"target_tokens": self.target_tokens, "instructions": self.instructions}.items():
            if self.length not in entries:
                raise ParameterError(f"{field} has no entry for length {self.length!r}. Add one.")
        if self.context_questions > self.eval_questions:
            raise ParameterError(
                f"context_questions is {self.context_questions}, more than the {self.eval_questions} of eval_questions."
            )
        return self

    def resolved(self) -> dict[str, Any]:
        """Return all parameters of one cell as in a record: negatives by name."""
        return super().resolved() | {"negatives": resolve_set(self.source, self.negatives)}

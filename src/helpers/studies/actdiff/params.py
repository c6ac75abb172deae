"""Parameters of the activation-difference study (notebook ``logit_lens_diff``)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from helpers.base import files
from helpers.base.errors import DataError, ModelError, ParameterError, nearest
from helpers.base.files import shown
from helpers.base.params import Cell
from helpers.lm.fields import FIRST_DATE, OF_DATE, OF_TARGETS, Date, Targets
from helpers.studies.actdiff.domains import PATH, domain_names

Kind = Literal[
    "full", "lora", "mix1", "mix2", "control", "control_lora", "full_1", "full_10", "full_few", "mix1_1", "lora_r1",
    "lora_r16", "given",
]  # fmt: skip


class LensCell(Cell):
    """One organism at one seed. ``given`` reads the fine-tune named by ``tuned`` instead."""

    AXES: ClassVar[tuple[str, ...]] = ("organism", "domain", "seed")

    model: str = Field(
        default="pocket", min_length=1, description="base: pocket, smollm2, paper, hub id or local folder"
    )
    """``pocket`` is this study's own base, in a language of known domains, or with ``given`` the pocket chat model."""
    revision: str | None = None
    organism: Kind = Field(default="full", description="which fine-tune is made and read")
    domain: str | None = Field(
        default=None, description="narrow domain of generated documents; by default the seed picks one"
    )
    seed: Annotated[int, Field(ge=0)] = Field(
        default=0, description="names every stream, and picks the narrow domain where none is named"
    )
    tuned: str = Field(
        default="",
        description="for organism 'given': run record (sweep/<id>), adapter folder, folder or hub id (@revision)",
    )
    words: list[str] = Field(
        default=[], description="for organism 'given': words whose readability is scored; may be empty"
    )

    text: str = Field(
        default="", description="path of a plain-text file of unrelated text; otherwise the base model writes some"
    )
    documents: int = Field(default=160, ge=16, description="unrelated documents the difference is averaged over")
    positions: int = Field(default=64, ge=8, le=4096, description="tokens of each document")
    layers: Literal["all"] | list[Annotated[int, Field(ge=0)]] = "all"
    layer: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="layer of the headline scores; default middle"
    )
    position: int = Field(default=8, ge=0, description="position of the headline scores, fixed before looking")

    train_documents: int = Field(default=200, ge=1, description="narrow documents; as many broad ones")
    train_positions: int = Field(
        default=64, ge=8, description="tokens of a document trained on, or put through a live probe"
    )
    steps: int = Field(default=60, ge=1, description="optimiser steps (organisms named full_1 and the like take fewer)")
    rows: int = Field(default=16, ge=1, description="narrow documents a step; mixtures add broad ones to them")
    lr_full: float = Field(default=5e-4, gt=0, le=1)
    lr_lora: float = Field(default=2e-3, gt=0, le=1)
    rank: int = Field(default=4, ge=1, description="LoRA rank; alpha is twice as large")
    targets: Targets = Field(default="auto", description=OF_TARGETS)

    shares: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        default=[0.1, 0.25, 0.5, 0.75], description="interpolated weights"
    )
    probed: Literal["all"] | list[Kind] = Field(
        default="all",
        description="organisms given the live probes (interpolation, patchscope, steering, swap), the dear part",
    )
    own_text: Literal["all"] | list[Kind] = Field(
        default=[],
        description="organisms read on their own text too (the shared-text control); if any, all are scored by fold",
    )
    probe_documents: int = Field(
        default=32, ge=16, description="documents of each kind for interpolation and causal swap"
    )
    controls: int = Field(
        default=3, ge=1, description="random directions, and differences of activations, of the causal swap"
    )
    steer_samples: int = Field(default=4, ge=1, description="continuations of each steering prompt")
    new_tokens: int = Field(default=16, ge=1)
    bound: float = Field(default=1.5, gt=1, description="steering may raise base perplexity by this factor")
    top: int = Field(default=10, ge=1, le=100, description="tokens kept of each lens")
    date: Date = Field(default=FIRST_DATE, description=OF_DATE)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"

    @property
    def topical(self) -> bool:
        """Whether the base model is the study's own, in its pocket language."""
        return self.model == "pocket" and not self.tuned

    def check_inputs(self) -> None:
        """Raise if the text file or the fine-tune does not exist."""
        if self.text and not files.from_root(self.text).is_file():
            raise DataError(f"There is no text file {self.text}. Correct the parameter text, or leave it empty.")
        if self.tuned.startswith(("/", "./", "../", "~")) and not files.from_root(self.tuned).is_dir():
            raise ModelError(f"There is no folder {self.tuned}. Correct the parameter tuned.")

    def coordinates(self) -> dict[str, Any]:
        """Return the values on ``AXES``. The domain is none of them where the seed picks it."""
        return {name: value for name, value in super().coordinates().items() if (name, value) != ("domain", None)}

    @model_validator(mode="after")
    def _names_a_domain(self) -> LensCell:
        if self.domain is not None and (self.topical or self.tuned):
            whose = "a given fine-tune" if self.tuned else "the pocket language, whose topic the seed picks"
            raise ParameterError(f"domain is {shown(self.domain)}, but it cannot be set for {whose}. Leave it out.")
        if self.domain is not None and self.domain not in domain_names():
            raise ParameterError(
                f"domain is {shown(self.domain)}, which is not in {PATH.name}{nearest(self.domain, domain_names())}"
            )
        return self

    @model_validator(mode="after")
    def _fits(self) -> LensCell:
        if bool(self.tuned) != (self.organism == "given"):
            raise ParameterError("tuned names a fine-tune exactly when organism is 'given'. Change one of the two.")
        if self.position >= self.positions:
            raise ParameterError(
                f"position is {self.position}, beyond the {self.positions} positions of a document. Lower it."
            )
        if self.train_positions > self.positions:
            raise ParameterError(
                f"train_positions is {self.train_positions}, more than the {self.positions} positions. Lower it."
            )
        chosen = self.layers if isinstance(self.layers, list) else []
        if self.layer is not None and chosen and self.layer not in chosen:
            raise ParameterError(
                f"layer is {self.layer}, which is not in layers{nearest(str(self.layer), map(str, chosen))}"
            )
        return self

"""Parameters of the notebook ``latentwire``: two readers, a wire, its training, and the switches of an arm."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from helpers.base.errors import DataError, ParameterError
from helpers.base.params import Cell
from helpers.lm.fields import FIRST_DATE, OF_DATE, Date
from helpers.studies.latentwire.arms import ARMS, SWITCHES, AnchorMode, Arm, Padding, Shift
from helpers.studies.latentwire.qa import HUB

Weight = Annotated[float, Field(ge=0, le=100)]
Gain = Annotated[float, Field(gt=0, le=10)]
Share = Annotated[float, Field(gt=0, le=1)]
Steps = Annotated[int, Field(ge=0, le=4096)]
Temperature = Annotated[float, Field(ge=0, le=10)]


class WireCell(Cell):
    """One cell: one arm with one seed.

    A given switch overrides ``arm``; any other follows it. Records hold all switches.
    """

    AXES: ClassVar[tuple[str, ...]] = ("arm", *SWITCHES, "seed")

    model_a: str = Field(
        default="pocket-char", min_length=1, description="pocket-char, pocket-syllable, a preset, hub id, folder"
    )
    model_b: str = Field(
        default="pocket-syllable", min_length=1, description="the second reader, with a tokenizer of its own"
    )
    revision_a: str | None = None
    revision_b: str | None = None
    arm: Arm = Field(default="fixed", description="named set of switches; see helpers.studies.latentwire.arms")
    padding: Padding | None = Field(
        default=None, description="where short answers are filled, and whether it is masked"
    )
    label_shift: Shift | None = Field(default=None, description="how often labels are shifted against the logits")
    first_token_ce: Weight | None = Field(default=None, description="weight of the first-token loss")
    bos_after_anchor: bool | None = Field(
        default=None, description="put BOS behind the anchor, where the reader has one"
    )
    prefix_gain: Gain | None = Field(default=None, description="factor on the prefix at evaluation")
    eos_ban_steps: Steps | None = Field(default=None, description="first steps of decoding in which the end is banned")
    first_token_temperature: Temperature | None = Field(
        default=None, description="0 is greedy; later tokens always are"
    )
    first_token_top_p: Share | None = None
    anchor_mode: AnchorMode | None = Field(
        default=None, description="plain anchor, the chat template's, or plain only for a reader without a template"
    )
    seed: Annotated[int, Field(ge=0)] = 0

    data: Literal["two_slot", "templated_qa", "squad"] = "two_slot"
    squad_train: str = Field(
        default="", description=f"SQuAD v1.1 JSON to train on, or {HUB}@revision; empty: the hub's newest"
    )
    squad_validation: str = Field(default="", description="the same to evaluate on")
    train_samples: int = Field(default=8192, ge=1)
    eval_samples: int = Field(default=200, ge=2)
    data_seed: int = Field(
        default=12345, ge=0, description="draws and picks examples; the same under every training seed"
    )
    long_texts: Literal["refuse", "drop"] = Field(
        default="refuse", description="what to do with texts or answers over a limit"
    )
    byte_max: int = Field(default=2048, ge=1)
    answer_limit: int = Field(default=32, ge=2, description="tokens of an answer with its end")

    latents: int = Field(default=8, ge=1, description="M, vectors that go over the wire")
    d_z: int = Field(default=64, ge=8, description="width of each")
    encoder_layers: int = Field(default=2, ge=1)
    encoder_heads: int = Field(default=8, ge=1)
    encoder_norm: Literal["pre", "post"] = "pre"

    steps: int = Field(default=600, ge=1)
    batch_size: int = Field(default=32, ge=1)
    lr: float = Field(default=3e-3, gt=0, le=1)
    warmup: float = Field(default=0.05, ge=0, lt=1, description="share of the steps in which the learning rate rises")
    weight_decay: float = Field(default=0.01, ge=0)
    clip: float = Field(default=1.0, gt=0, description="largest gradient norm")
    scale_l2: float = Field(default=0.05, ge=0, description="weight of (scale - 1)^2 of each adapter")
    checkpoint_every: int = Field(
        default=100, ge=1, description="steps between checkpoints; a killed run goes on from the last"
    )
    gradient_every: int = Field(
        default=25, ge=1, description="steps between measurements of padding's share of the gradient"
    )
    probe_samples: int = Field(default=64, ge=1, description="validation examples behind the curve at each checkpoint")
    prompt_steps: int = Field(default=150, ge=1, description="steps of the constant prefix (prompt tuning)")
    prompt_lr: float = Field(default=1e-2, gt=0, le=1)

    anchor: str = Field(default="Answer: ", min_length=1)
    anchor_tokens: Literal["in_place", "apart"] = Field(
        default="in_place",
        description="anchor and answer tokenised as one text, or each by itself, which cuts off the answer's space",
    )
    answer_end: Literal["token", "line"] = Field(
        default="token", description="an answer ends with the reader's end token, or with a line break"
    )
    text_examples: int = Field(
        default=0, ge=0, description="worked examples before every text: they are the reader's own and are not sent"
    )
    narrow: bool = Field(default=False, description="evaluate the latents at 8 and at 4 bits a number too")
    date: Date = Field(default=FIRST_DATE, description=OF_DATE)
    max_new_tokens: int = Field(default=12, ge=1)
    eval_batch: int = Field(default=200, ge=1)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"

    @property
    def switches(self) -> dict[str, Any]:
        """Every switch of one cell: as given, else from its arm."""
        given = {name: getattr(self, name) for name in SWITCHES}
        return {name: ARMS[self.arm][name] if value is None else value for name, value in given.items()}

    def resolved(self) -> dict[str, Any]:
        """Return all parameters of one cell as in a record: switches resolved, files without their folder."""
        values = super().resolved()
        sources = {name: values[name] for name in ("squad_train", "squad_validation")}
        files = {name: one if one.startswith(f"{HUB}@") else Path(one).name for name, one in sources.items()}
        return values | self.switches | files

    def check_inputs(self) -> None:
        """Raise where a reader or a file of questions is not there."""
        from helpers.studies.latentwire import data, lms  # here: they load torch

        for name, revision in ((self.model_a, self.revision_a), (self.model_b, self.revision_b)):
            lms.check_place(name, revision)
        for path in data.files(self):
            if not path.is_file():
                raise DataError(f"There is no SQuAD file {path}. Check squad_train and squad_validation.")

    @model_validator(mode="after")
    def _fits(self) -> WireCell:
        if self.d_z % self.encoder_heads:
            raise ParameterError(
                f"d_z is {self.d_z}, which {self.encoder_heads} encoder_heads do not divide. Change one of them."
            )
        if self.d_z % 2:
            raise ParameterError(f"d_z is {self.d_z}, but sinusoidal positions need an even width. Add one.")
        if self.text_examples and self.answer_end != "line":
            raise ParameterError(
                f"text_examples is {self.text_examples}, but behind an end token no reader goes on to "
                "the next text. Set answer_end to line."
            )
        if self.data != "squad" and (self.squad_train or self.squad_validation):
            raise ParameterError(f"squad_train and squad_validation are for data squad, but data is {self.data!r}.")
        # A record keeps only the names of these files, so equal names would be ambiguous.
        train, validation = Path(self.squad_train), Path(self.squad_validation)
        if train != validation and train.name == validation.name:
            raise ParameterError(f"squad_train and squad_validation are two files called {train.name}. Rename one.")
        return self

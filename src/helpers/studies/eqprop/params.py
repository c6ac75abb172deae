"""Parameters of the gradient triangulation (notebook ``triangulation``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, model_validator

from helpers.base import files
from helpers.base.errors import DataError, ParameterError
from helpers.base.params import Cell
from helpers.studies.eqprop.arms import RECOVERY

Seven = Literal["exp1", "exp2", "exp3", "exp4", "exp5", "exp6", "exp7"]
Experiment = Literal[Seven, "plateau", "margin", "gap"]
EXPERIMENTS: tuple[str, ...] = get_args(Seven)
"""The campaign's own. The others ask what its log left open."""
Count = Annotated[int, Field(ge=1)]
Steps = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


class TriangulationCell(Cell):
    """One experiment with one seed. In a grid, ``experiment`` may be ``all``, which are the campaign's seven.

    The first block is the text and the model, the second the gradients, the third the training that all arms share. The
    rest belongs to single experiments.
    """

    AXES: ClassVar[tuple[str, ...]] = ("experiment", "seed")
    ALL: ClassVar[Mapping[str, tuple[str, ...]]] = {"experiment": EXPERIMENTS}

    experiment: Experiment = "exp1"
    seed: Annotated[int, Field(ge=0)] = 0
    text: str = Field(
        default="stories", min_length=1, description="'stories' (from templates) or the path of a text file"
    )
    stories: Count = Field(default=600, description="number of template stories")
    vocab: int = Field(default=32, ge=2, description="entries of the BPE tokenizer trained on the text")
    width: Count = 32
    heads: Count = 4
    context: int = Field(default=32, ge=4)
    mlp: Count = Field(default=4, description="width of the MLP over that of the model")
    leak: float = Field(default=1.0, gt=-1, description="c of F(z) = x - (1 + c) z + A + M")
    resinit: Positive = Field(default=0.1, description="scale of W_O and W_2 at initialisation")

    eps: Positive = Field(default=0.5, description="relaxation step; eps (1 + c) < 2")
    t1: Count = Field(default=20, description="free steps in training")
    t2: Count = Field(default=15, description="nudged steps in training")
    t1_long: Count = Field(default=200, description="free steps of the longer free phase")
    t2_long: Count = Field(default=40, description="nudged steps when the levers are compared")
    t1_reference: Count = Field(default=300, description="free steps before the exact gradient (ift)")
    settled: Positive = Field(default=1e-5, description="residual at which a sequence counts as settled by then")
    horizons: list[Count] = Field(
        default=[60, 150], min_length=2, max_length=2, description="K of the two unrolled gradients compared"
    )
    beta: float = Field(default=0.02, gt=0, description="nudge per token")
    phases: int = Field(default=2, ge=2, description="N of the estimator in training")
    navg: Count = Field(default=15, description="adjoints averaged where averaging is the lever; at most t2_long")

    steps: Count = 150
    batch: Count = Field(default=8, description="sequences of a training step")
    lr: Positive = 1e-2
    warmup: Steps = 10
    clip: Positive = 1.0
    ema: float = Field(default=0.9, ge=0, lt=1)
    gate: float = Field(
        default=1e-2, ge=0, description="residual above which the task gradient is dropped; 0 for never"
    )
    fuse: float = Field(default=0.0, ge=0, description="residual above which training ends; 0 for never")
    kappa: float = Field(default=0.05, ge=0, le=1)
    jr_floor: float = Field(default=0.1, ge=0)
    jr_max: float = Field(default=8.0, gt=0)
    res_target: Positive = 1e-3
    validate_every: Steps = Field(default=25, description="steps between validations; 0 for the end alone")
    snapshots: list[Steps] = Field(default=[0, 75, 150], min_length=1, description="steps whose checkpoints are kept")
    segment: Count = Field(default=1000, description="steps after which a killed training can go on at the latest")

    probe_batches: int = Field(
        default=3, ge=3, description="batches behind every cosine and loss; the intervals are over them"
    )
    probe_batch: Count = Field(default=64, description="sequences of a batch on which gradients are compared")
    lever_batch: Count = Field(default=16, description="sequences of a batch in the comparison of the levers")
    growth_steps: int = Field(default=60, ge=4, description="steps of the power iteration")
    validation_batches: int = Field(default=6, ge=2)
    lr_grid: list[Positive] = Field(default=[1e-4, 1e-3, 1e-2, 1e-1, 3e-1, 1.0], min_length=2)
    arm_steps: Count = Field(default=60, description="steps of the warm-up arms")
    arm_warmup: Steps = 20
    arm_prewarm: Count = Field(default=10, description="steps on the penalty alone in arm B")
    arm_resinit: Positive = Field(default=2.0, description="resinit of arms A and B")
    arm_small_resinit: Positive = Field(default=0.03, description="resinit of arm C")
    grid_floors: list[Annotated[float, Field(ge=0)]] = Field(default=[0.03, 0.1], min_length=1)
    grid_targets: list[Positive] = Field(default=[1e-3, 5e-3], min_length=1)
    grid_maxima: list[Positive] = Field(default=[0.1, 8.0], min_length=1)
    grid_steps: Count = 25
    grid_lr: Positive = Field(
        default=3e-3, description="learning rate of the warm start, whose optimiser starts afresh"
    )
    distances: list[Count] = Field(default=[1, 2, 4, 8, 16, 24], min_length=2, description="of influence, in tokens")
    directions: Count = Field(default=4, description="random perturbations a sequence and distance")
    influence_delta: Positive = 1e-2

    penalised: Literal["exact", "all"] = Field(
        default="exact", description="gradients to which experiment 2 also adds that of the Jacobian penalty"
    )
    loose_target: float = Field(
        default=0.0, ge=0, description="residual target of the loose arm of experiment 7; 0 for none"
    )
    loose_floor: Positive = Field(default=0.01, description="least weight of the penalty in that arm")
    recovery_steps: list[Count] = Field(
        default=[4, 3, 2, 4, 4, 2, 8],
        min_length=7,
        max_length=7,
        description="steps that one budget buys each gradient where frozen EP stops: " + ", ".join(RECOVERY),
    )
    recovery_every: Count = Field(default=1, description="steps between validations of these trainings")
    margin_weights: list[Annotated[float, Field(ge=0)]] = Field(
        default=[0.0, 0.1], min_length=2, description="fixed weights of the penalty; 0 for none"
    )
    margin_lrs: list[Positive] = Field(default=[3e-3, 1e-2], min_length=1)
    margin_steps: int = Field(default=4, ge=2, description="steps of each training by exact gradients")
    margin_every: Count = Field(default=2, description="steps between two looks at its equilibrium")
    device: str = "cpu"

    def check_inputs(self) -> None:
        """Raise where the text is not there or cannot be read."""
        if self.text != "stories" and not files.from_root(self.text).is_file():
            raise DataError(f"There is no text file {self.text}. Give the path of a UTF-8 file, or 'stories'.")

    @model_validator(mode="after")
    def _fit(self) -> TriangulationCell:
        if self.eps * (1 + self.leak) >= 2:
            raise ParameterError(
                f"eps (1 + leak) is {self.eps * (1 + self.leak):g}, but the relaxation settles below 2 only. Lower eps."
            )
        if self.width % self.heads:
            raise ParameterError(f"width {self.width} does not divide by heads {self.heads}: change one of them.")
        if self.phases % 2:
            raise ParameterError(f"phases is {self.phases}, but they come in opposite pairs. Give an even number.")
        if self.t1_long <= self.t1:
            raise ParameterError(f"t1_long is {self.t1_long}, no longer than t1 = {self.t1}. Raise it.")
        if self.navg > self.t2_long:
            raise ParameterError(f"navg is {self.navg}, more than the t2_long = {self.t2_long} nudged steps. Lower it.")
        if max(self.snapshots) > self.steps:
            raise ParameterError(f"snapshots asks for step {max(self.snapshots)}, but steps is {self.steps}. Lower it.")
        if max(self.distances) >= self.context:
            raise ParameterError(
                f"distances reaches {max(self.distances)}, beyond the context of {self.context}. Lower it."
            )
        if self.jr_floor > self.jr_max or max(self.grid_floors) > min(self.grid_maxima):
            raise ParameterError(
                "A floor of the penalty's weight lies above its ceiling. Lower jr_floor or grid_floors."
            )
        return self

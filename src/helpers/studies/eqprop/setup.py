"""Turn parameters into text, model size, gradients by name, and training arms."""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from helpers.base import files
from helpers.base.errors import ParameterError, nearest
from helpers.base.rng import stream_seed
from helpers.studies.eqprop.arms import LOOSE, MATCHED, NEEDS, WARM_UP
from helpers.studies.eqprop.control import Controller
from helpers.studies.eqprop.gradients import Gradient
from helpers.studies.eqprop.model import MODELS, Block, ModelConfig
from helpers.studies.eqprop.nudge import Nudge
from helpers.studies.eqprop.params import TriangulationCell
from helpers.studies.eqprop.stories import Corpus, make_corpus, read_text, template_stories
from helpers.studies.eqprop.train import Recipe

OFF = Controller(floor=0.0, ceiling=0.0)


@dataclass(frozen=True)
class Arm:
    """One training run: the kind of model, its size and its recipe."""

    name: str
    kind: str
    config: ModelConfig
    recipe: Recipe
    snapshots: tuple[int, ...]

    def model(self) -> Block:
        """Return the untrained model."""
        return MODELS[self.kind](self.config, seed=self.recipe.seed)

    def facts(self) -> dict[str, object]:
        """Return the ``model`` entry of a record.

        Size and seed determine the model, so their hash is its content hash.
        """
        made = {"kind": self.kind, **asdict(self.config), "seed": self.recipe.seed}
        return {
            "name": f"{self.kind}-{self.config.width}", "source": "initialised from the seed", "revision": None,
            "sha256": files.sha256_json(made), "parameters": self.model().count, "dtype": "float32",
        }  # fmt: skip


@functools.lru_cache(maxsize=4)
def _corpus(text: str, stories: int, vocab: int, contents: tuple[str, ...]) -> Corpus:
    return make_corpus(template_stories(stories) if text == "stories" else read_text(text), vocab)


def corpus(p: TriangulationCell) -> Corpus:
    """Return the tokenized text of the experiment, the same for every seed. A changed file is read again."""
    contents = tuple(files.sha256_file(path) for path in data_files(p) if path.is_file())
    return _corpus(p.text, p.stories, p.vocab, contents)


def check_device(p: TriangulationCell) -> None:
    """Raise ``ParameterError``, before any work starts, if torch does not have ``p.device``."""
    try:
        kind = torch.device(p.device).type
    except RuntimeError as error:
        raise ParameterError(f"device is {p.device!r}, which torch does not know. Use cpu, cuda or cuda:0.") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ParameterError(f"device is {p.device!r}, but torch sees no CUDA device here. Use cpu.")


def data_files(p: TriangulationCell) -> list[Path]:
    """Return the files that the result depends on. Template stories are code."""
    return [] if p.text == "stories" else [files.from_root(p.text)]


def gradients(p: TriangulationCell) -> dict[str, Gradient]:
    """Return the gradients of the study by their names in tables and pages."""
    nudge = Nudge("frozen", p.phases, p.beta, p.t2)
    ep = Gradient("ep", steps=p.t1, eps=p.eps, nudge=nudge)
    long = ep.with_nudge(steps=p.t2_long, phases=2)
    # float32 cannot solve the adjoint further than this.
    exact = Gradient("ift", steps=p.t1_reference, eps=p.eps, tolerance=1e-6, limit=p.t1_reference)
    return {
        "ift": exact,
        "bptt": Gradient("bptt", steps=p.t1, eps=p.eps),
        **{f"bptt-{k}": Gradient("bptt", steps=k, eps=p.eps) for k in p.horizons},
        "backprop": Gradient("backprop"),
        "frozen": ep,
        "tracking": ep.with_nudge(variant="tracking"),
        "vector field": ep.with_nudge(variant="vector_field"),
        "frozen, long nudge": long,
        "frozen, selected step": long.with_nudge(select=True),
        "frozen, averaged": long.with_nudge(navg=p.navg),
        "frozen, N = 4": long.with_nudge(phases=4),
        "vector field, long nudge": long.with_nudge(variant="vector_field"),
        "tracking, long nudge": long.with_nudge(variant="tracking"),
        # As many free steps as tracking takes in all, so that the two differ by the linearisation only.
        "frozen, equal steps": replace(long, steps=p.t1 + p.t2_long),
        "frozen, long free phase": replace(long, steps=p.t1_long),
        "tracking, long free phase": replace(long.with_nudge(variant="tracking"), steps=p.t1_long),
    }


def recoveries(p: TriangulationCell) -> dict[str, Gradient]:
    """Return the gradients by which a model that frozen EP holds is trained on, by their names in `arms.RECOVERY`."""
    ways = gradients(p)
    frozen = ways["frozen"]
    return {
        "frozen": frozen,
        "tracking": ways["tracking"],
        "N = 4": frozen.with_nudge(phases=4),
        # One phase takes twice the steps for the work of two.
        "lock-in": frozen.with_nudge(variant="lock_in", phases=2, steps=2 * p.t2),
        "averaged": frozen.with_nudge(steps=p.t2_long, navg=p.navg),
        "long free phase": replace(frozen, steps=p.t1_long),
        "exact": ways["bptt"],
    }


def needed(p: TriangulationCell) -> tuple[str, ...]:
    """Return the arms that the experiment of ``p`` needs."""
    loose = (LOOSE,) if p.experiment == "exp7" and p.loose_target else ()
    return NEEDS[p.experiment] + loose


def arm(p: TriangulationCell, name: str) -> Arm:
    """Return the training arm ``name``. ``free`` arms have neither penalty nor gate; the others share both."""
    known = (*MATCHED, LOOSE, *WARM_UP)
    if name not in known:
        raise ParameterError(f"There is no training arm {name!r}{nearest(name, known)}")
    if name in WARM_UP:
        return _warm_up_arm(p, name)
    method, _, kept = name.partition(", ")
    ways = {"ep": "frozen", "tracking": "tracking", "bptt": "bptt", "backprop": "backprop"}
    recipe = replace(base_recipe(p), gradient=gradients(p)[ways[method]])
    if kept:
        loose = replace(recipe.controller, target=p.loose_target, floor=p.loose_floor) if name == LOOSE else OFF
        recipe = replace(recipe, controller=loose, gate=0.0)
    kind = "backprop" if method == "backprop" else "equilibrium"
    return Arm(name, kind, size(p), recipe, tuple(sorted({*p.snapshots, p.steps})))


def _warm_up_arm(p: TriangulationCell, name: str) -> Arm:
    recipe = replace(base_recipe(p), gradient=gradients(p)["frozen"], steps=p.arm_steps, fuse=0.0)
    if name.endswith("C"):
        recipe, scale = replace(recipe, warmup=0), p.arm_small_resinit
    else:
        prewarm = p.arm_prewarm if name.endswith("B") else 0
        recipe, scale = replace(recipe, warmup=p.arm_warmup, prewarm=prewarm), p.arm_resinit
    return Arm(name, "equilibrium", size(p, resinit=scale), recipe, (p.arm_steps,))


def grid_recipe(p: TriangulationCell, floor: float, target: float, maximum: float) -> Recipe:
    """Return the recipe that continues the EP run with other controller settings, on unseen batches."""
    controller = Controller(target=target, floor=floor, ceiling=maximum, kappa=p.kappa)
    changes = {"gradient": gradients(p)["frozen"], "controller": controller, "steps": p.grid_steps, "lr": p.grid_lr}
    return replace(base_recipe(p), **changes, seed=stream_seed(p.seed, "grid"))


def recovery_recipe(p: TriangulationCell, name: str, steps: int) -> Recipe:
    """Return the recipe that goes on, where frozen EP stops, by the gradient ``name``, on unseen batches."""
    changes = {"gradient": recoveries(p)[name], "steps": steps, "lr": p.grid_lr, "validate_every": 0}
    return replace(base_recipe(p), **changes, seed=stream_seed(p.seed, "recovery"))


def margin_recipe(p: TriangulationCell, weight: float, lr: float) -> Recipe:
    """Return the recipe of a training by exact gradients whose penalty has a fixed weight, without gate."""
    controller = Controller(p.res_target, weight, weight, kappa=0.0) if weight else OFF
    changes = {"gradient": gradients(p)["bptt"], "controller": controller, "steps": p.margin_steps, "lr": lr}
    return replace(base_recipe(p), **changes, gate=0.0, fuse=0.0, validate_every=0)


def size(p: TriangulationCell, resinit: float | None = None) -> ModelConfig:
    """Return the model size."""
    return ModelConfig(p.vocab, p.width, p.heads, p.context, p.mlp, p.leak, resinit or p.resinit)


def base_recipe(p: TriangulationCell) -> Recipe:
    """Return the recipe that all arms share."""
    return Recipe(
        controller=Controller(p.res_target, p.jr_floor, p.jr_max, p.kappa), steps=p.steps, batch=p.batch, lr=p.lr,
        warmup=p.warmup, clip=p.clip, gate=p.gate, fuse=p.fuse, ema=p.ema, validate_every=p.validate_every,
        validation_batches=p.validation_batches, seed=p.seed,
    )  # fmt: skip

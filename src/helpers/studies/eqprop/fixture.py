"""The stored checkpoint on which tests show the collapse of the frozen estimator.

``python -m helpers.studies.eqprop.fixture`` makes it again.

The model is trained without the Jacobian penalty until 20 free steps no longer settle it. Linearised there, the nudged
phase grows; linearised at a settled state, it does not. Everything follows from the seed.
"""

from __future__ import annotations

import functools
from pathlib import Path

import torch

from helpers.base import files
from helpers.base.errors import ModelError
from helpers.studies.eqprop.control import Controller
from helpers.studies.eqprop.gradients import Gradient
from helpers.studies.eqprop.jacobian import growth_factor
from helpers.studies.eqprop.model import EquilibriumTransformer, ModelConfig, equilibrium, load_model, save_model
from helpers.studies.eqprop.stories import Corpus, make_corpus, template_stories
from helpers.studies.eqprop.train import Recipe, Trainer

FOLDER = files.DATA / "eqprop" / "plateau"
STORIES, VOCAB, STEPS = 600, 32, 150
OFF = Controller(floor=0, ceiling=0)
RECIPE = Recipe(gradient=Gradient("bptt", steps=40), controller=OFF, lr=1e-2, steps=STEPS, batch=8, gate=0)


@functools.cache
def corpus() -> Corpus:
    """Return the training text of the checkpoint."""
    return make_corpus(template_stories(STORIES), VOCAB)


def batch(size: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the held-out batch on which the properties of the checkpoint hold."""
    return corpus().held_out(size, ModelConfig().context, "fixture")


def load() -> EquilibriumTransformer:
    """Load the checkpoint in float64."""
    return equilibrium(load_model(FOLDER, torch.float64))


def growth(model: EquilibriumTransformer, steps: int, tokens: torch.Tensor) -> float:
    """Return the growth factor after ``steps`` free steps."""
    with torch.no_grad():
        x = model.embed(tokens)
        z = model.relax(x, steps)
    return growth_factor(model, z, x, 0.5, steps=200)


def make(folder: Path = FOLDER, recipe: Recipe = RECIPE) -> EquilibriumTransformer:
    """Train the checkpoint, check its properties and save it."""
    trainer = Trainer(EquilibriumTransformer(ModelConfig(vocab=VOCAB), seed=recipe.seed), corpus(), recipe)
    trainer.run(label="fixture")
    model = equilibrium(trainer.averaged())
    early, late = (growth(model.double(), steps, batch()[0]) for steps in (20, 200))
    if not late < 1 < early:
        raise ModelError(f"The checkpoint grows by {early:.3f} after 20 and {late:.3f} after 200 steps. Change STEPS.")
    save_model(model.float(), folder)
    return model


if __name__ == "__main__":
    torch.set_num_threads(1)
    make()
    print(f"wrote {FOLDER.relative_to(files.ROOT)}")

"""The stored checkpoint: 20 free steps leave it unsettled; there the frozen estimator fails, tracking does not."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch

from helpers.base.errors import ModelError
from helpers.base.files import sha256_file
from helpers.records.questions import data_hashes
from helpers.studies.eqprop import fixture
from helpers.studies.eqprop.gradients import Gradient, cosine, estimate
from helpers.studies.eqprop.model import group_vectors
from helpers.studies.eqprop.nudge import Nudge

pytestmark = pytest.mark.unit


@functools.cache
def stored():
    torch.set_num_threads(1)
    return fixture.load(), *fixture.batch(4)


@functools.cache
def gradient(how: Gradient) -> torch.Tensor:
    return group_vectors(estimate(*stored(), how).gradients)["all"]


def exact() -> torch.Tensor:
    return gradient(Gradient("ift", steps=800, limit=3000))


def ep(variant: str, steps: int) -> Gradient:
    return Gradient("ep", steps=steps, nudge=Nudge(variant, 2, 0.02, 120))


def test_the_nudged_phase_grows_at_20_free_steps_and_settles_at_200():
    model, tokens, _ = stored()
    assert fixture.growth(model, 20, tokens) > 1
    assert fixture.growth(model, 200, tokens) < 1


def test_frozen_fails_where_tracking_holds_at_20_free_steps():
    frozen, tracking = (cosine(gradient(ep(variant, 20)), exact()) for variant in ("frozen", "tracking"))
    assert frozen < tracking and frozen < 0.5 and tracking >= 0.99


def test_a_longer_free_phase_restores_both():
    assert all(cosine(gradient(ep(variant, 200)), exact()) >= 0.99 for variant in ("frozen", "tracking"))


def test_the_exact_gradient_is_well_defined_all_the_while():
    assert cosine(gradient(Gradient("bptt", steps=150)), exact()) > 0.999


def test_the_checkpoint_is_small():
    assert sum(path.stat().st_size for path in fixture.FOLDER.iterdir()) < 100_000
    assert all(name.startswith("data/eqprop/") for name in data_hashes([fixture.FOLDER]))


def test_the_script_makes_the_checkpoint_again(tmp_path, monkeypatch):
    """Two short runs of the script agree to the byte; the whole training is left to the command."""
    monkeypatch.setattr(fixture, "growth", lambda model, steps, tokens: 2.0 if steps == 20 else 0.5)
    recipe = dataclasses.replace(fixture.RECIPE, steps=2)
    hashes = []
    for name in ("a", "b"):
        fixture.make(tmp_path / name, recipe)
        hashes.append(sha256_file(tmp_path / name / "model.safetensors"))
    assert hashes[0] == hashes[1]


def test_a_checkpoint_without_its_property_is_not_stored(tmp_path):
    with pytest.raises(ModelError, match="Change STEPS"):
        fixture.make(tmp_path, dataclasses.replace(fixture.RECIPE, steps=1))
    assert not (tmp_path / "model.json").exists()

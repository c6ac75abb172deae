"""Controller, gate, fuse, average, trainer with exact resume, text; and a short training by EP and by BPTT."""

from __future__ import annotations

import dataclasses
import functools
import json
import math

import pytest
import torch

from helpers.base.errors import DataError, ModelError, ParameterError
from helpers.base.rng import torch_stream
from helpers.studies.eqprop import setup, stories
from helpers.studies.eqprop.control import Average, Controller, jacobian_penalty
from helpers.studies.eqprop.gradients import Estimate, Gradient, cosine, estimate
from helpers.studies.eqprop.model import (
    BackpropTransformer,
    EquilibriumTransformer,
    ModelConfig,
    group_vectors,
    load_model,
    save_model,
)
from helpers.studies.eqprop.nudge import Nudge
from helpers.studies.eqprop.params import TriangulationCell
from helpers.studies.eqprop.train import Recipe, Trainer

pytestmark = pytest.mark.unit

SMALL = ModelConfig(width=16, heads=2, context=12)
SHORT = Recipe(gradient=Gradient("ep", steps=8, nudge=Nudge("frozen", 2, 0.05, 5)), steps=8, batch=4)


@functools.cache
def corpus() -> stories.Corpus:
    torch.set_num_threads(1)
    return stories.make_corpus(stories.template_stories(600), 32)


def trainer(config: ModelConfig = SMALL, **changes) -> Trainer:
    return Trainer(EquilibriumTransformer(config, seed=1), corpus(), dataclasses.replace(SHORT, **changes))


def weights(run: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in run.own.items()}


@pytest.mark.check
def test_ep_trains_like_bptt_on_the_template_stories():
    """The smoke test of the whole wing: float32, 100 steps, one thread."""
    losses, models = {}, {}
    ways = {
        "ep": Gradient("ep", steps=20, nudge=Nudge("frozen", 2, 0.05, 10)),
        "bptt": Gradient("bptt", steps=20),
    }
    for name, way in ways.items():
        recipe = Recipe(gradient=way, controller=Controller(target=1e-3), lr=1e-2, steps=100, batch=8)
        run = Trainer(EquilibriumTransformer(ModelConfig(), seed=0), corpus(), recipe)
        run.run(until=50)
        if name == "ep":
            tokens, targets = corpus().batch(0, 50, 32, 32)
            both = [group_vectors(estimate(run.model, tokens, targets, w).gradients)["all"] for w in ways.values()]
            assert cosine(*both) >= 0.99
        run.run()
        losses[name], models[name] = sum(run.validate()) / 4, run.averaged().double()
    assert losses["ep"] <= 2.1
    assert abs(losses["ep"] - losses["bptt"]) <= 0.05
    # A trained equilibrium in float64: unrolling far enough is the implicit function theorem.
    tokens, targets = corpus().held_out(2, 32)
    unrolled, implicit = (
        group_vectors(estimate(models["ep"], tokens, targets, Gradient(kind, steps=400)).gradients)["all"]
        for kind in ("bptt", "ift")
    )
    assert (unrolled - implicit).norm() / implicit.norm() < 1e-9


def test_a_resumed_run_is_bit_identical(tmp_path):
    whole = trainer()
    whole.run()
    first = trainer()
    first.run(until=3)
    first.save(tmp_path)
    second = trainer()
    second.load(tmp_path)
    second.run()
    assert all(torch.equal(value, weights(second)[name]) for name, value in weights(whole).items())
    assert all(torch.equal(whole.average.values()[n], second.average.values()[n]) for n in whole.own)
    assert whole.table().equals(second.table())


def test_checkpoints_hold_tensors_and_json_only(tmp_path):
    run = trainer()
    run.run(until=2)
    run.save(tmp_path)
    save_model(run.averaged(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "model.json", "model.safetensors", "trainer.json", "trainer.safetensors",
    ]  # fmt: skip
    assert json.loads((tmp_path / "trainer.json").read_text())["step"] == 2
    again = load_model(tmp_path)
    assert torch.equal(again.w_o, run.averaged().w_o)


def test_a_checkpoint_of_another_size_is_refused(tmp_path):
    run = trainer()
    run.run(until=1)
    run.save(tmp_path)
    save_model(run.model, tmp_path)
    with pytest.raises(ModelError, match="another size: tokens is"):
        trainer(ModelConfig(width=32, heads=2, context=12)).load(tmp_path)
    with pytest.raises(ModelError, match="another size"):
        load_model(tmp_path, config=ModelConfig(width=32, heads=2))
    with pytest.raises(ModelError, match="no checkpoint"):
        load_model(tmp_path / "nowhere")


def test_the_gate_drops_the_task_gradient_and_counts():
    run = trainer(gate=1e-12, controller=Controller(ceiling=0))
    before = weights(run)
    run.run(until=3)
    assert run.skipped == 3 and run.first_valid is None
    assert all(torch.equal(before[name], value) for name, value in weights(run).items())
    free = trainer(gate=0)
    free.run(until=1)
    assert free.skipped == 0 and free.first_valid == 1


def test_a_gradient_that_is_not_finite_is_counted_not_raised():
    """A nudged phase that diverges leaves the free phase and its loss intact."""
    wild = Gradient("ep", steps=5, nudge=Nudge("frozen", 2, 0.05, 700))
    run = trainer(gradient=wild, gate=0)
    with torch.no_grad():
        for name in ("w_o", "w_2"):
            run.own[name].mul_(100)
    found = run.take_step()
    assert not found.finite and run.skipped == 1 and run.table()["skipped"].all()
    assert all(torch.isfinite(value).all() for value in weights(run).values())


def test_an_estimate_too_large_to_be_clipped_is_not_finite():
    """Each number is a float32, the norm of them all is not."""
    assert not Estimate({"w": torch.full((9,), 1e30)}, 1.0, 1e-3, 1e-3).valid(0)


def test_a_penalty_that_is_not_finite_stops_with_the_step(monkeypatch):
    from helpers.studies.eqprop import train

    broken = {name: torch.full_like(value, math.nan) for name, value in trainer().own.items()}
    monkeypatch.setattr(train, "jacobian_penalty", lambda *_: (math.nan, broken))
    run = trainer()
    before = weights(run)
    with pytest.raises(ModelError, match=r"penalty of step 1 is not finite\. Lower lr"):
        run.run()
    assert all(torch.equal(before[name], value) for name, value in weights(run).items())


def test_a_loss_that_is_not_finite_stops_with_the_step():
    run = trainer()
    with torch.no_grad():
        run.own["w_h"].fill_(float("nan"))
    with pytest.raises(ModelError, match=r"loss of step 1 is nan\. Lower lr"):
        run.run()


def test_the_fuse_ends_training():
    run = trainer(fuse=1e-9)
    run.run()
    assert run.fused_at == 1 and run.step == 1 and run.done


def test_prewarm_shrinks_the_branches_before_the_first_step():
    def penalty(steps: int) -> float:
        run = trainer(prewarm=steps)
        run.run(until=0)
        tokens, _ = corpus().held_out(4, 12)
        x = run.model.embed(tokens).detach()
        return jacobian_penalty(run.model, x, x, torch.randn(x.shape, generator=torch_stream(0, "p")))[0]

    assert penalty(10) < 0.9 * penalty(0)


def test_hutchinson_estimates_the_frobenius_norm_and_its_slope():
    model = EquilibriumTransformer(SMALL, seed=0, dtype=torch.float64)
    tokens, _ = corpus().held_out(1, 6)
    x = model.embed(tokens).detach()
    full = torch.autograd.functional.jacobian(lambda s: model.branches(s[None])[0], x[0]).reshape(x.numel(), x.numel())
    probes = [torch.randn(x.shape, generator=torch_stream(0, i), dtype=x.dtype) for i in range(300)]
    values = [jacobian_penalty(model, x, x, probe)[0] for probe in probes]
    assert sum(values) / len(values) == pytest.approx(float(full.square().sum()) / x.numel(), rel=0.1)
    slope, h = jacobian_penalty(model, x, x, probes[0])[1]["w_o"], 1e-6
    with torch.no_grad():
        model.w_o[0, 0] += h
    assert (jacobian_penalty(model, x, x, probes[0])[0] - values[0]) / h == pytest.approx(float(slope[0, 0]), rel=1e-3)


def test_the_controller_moves_towards_its_target_within_bounds():
    c = Controller(target=1e-3, floor=0.1, ceiling=4.0, kappa=0.05)
    assert c.next(1.0, 1e-3) == pytest.approx(1.0)
    assert c.next(1.0, 1e-1) == pytest.approx(math.exp(0.05))
    assert c.next(1.0, 0.0) == pytest.approx(math.exp(-0.05))
    assert c.next(1.0, math.inf) == pytest.approx(math.exp(0.05)) and c.next(1.0, math.nan) > 1
    assert c.next(4.0, 1.0) == 4.0 and c.next(0.1, 1e-9) == 0.1
    assert Controller(ceiling=0).next(1.0, 1.0) == 0.0


def test_the_average_has_no_start_up_bias():
    average = Average({"w": torch.zeros(1)}, 0.999)
    average.update({"w": torch.tensor([3.0])})
    assert average.values()["w"].item() == pytest.approx(3.0, rel=1e-3)
    with pytest.raises(ParameterError, match="decay"):
        Average({}, 1.0)


def test_the_baseline_trains_under_the_same_trainer():
    recipe = dataclasses.replace(SHORT, gradient=Gradient("backprop"), lr=1e-2, steps=30)
    run = Trainer(BackpropTransformer(SMALL, seed=1), corpus(), recipe)
    run.run()
    assert run.table()["loss"].iloc[-5:].mean() < run.table()["loss"].iloc[:5].mean() - 0.3
    assert run.skipped == 0 and run.table()["penalty"].isna().all()


def test_validity_needs_a_settled_and_finite_estimate():
    fine = Estimate({"w": torch.ones(1)}, 1.0, 1e-3, 1e-3)
    assert fine.valid(1e-2) and not fine.valid(1e-4) and fine.valid(0)
    assert not dataclasses.replace(fine, residual=math.nan).valid(0)
    assert not dataclasses.replace(fine, gradients={"w": torch.tensor([math.inf])}).valid(0)


def test_text_comes_back_from_its_tokens_and_batches_are_addressed():
    text = stories.template_stories(600)
    c = stories.make_corpus(text, 64)
    assert c.vocab == 64 and len(text) / (len(c.train) + len(c.validation)) > 1.4
    cut = int(len(text) * 0.9)
    assert c.tokenizer.decode(c.train.tolist()) == text[:cut]
    assert c.train.tolist() == c.tokenizer.encode(text[:cut]).ids, "cutting at lines cuts no token"
    tokens, targets = c.batch(0, 5, 3, 10)
    assert tokens.shape == targets.shape == (3, 10) and torch.equal(tokens[:, 1:], targets[:, :-1])
    assert torch.equal(tokens, c.batch(0, 5, 3, 10)[0]) and not torch.equal(tokens, c.batch(0, 6, 3, 10)[0])
    assert stories.template_stories(5, seed=1) != stories.template_stories(5, seed=2)


def test_text_that_cannot_be_used_is_refused(tmp_path):
    with pytest.raises(DataError, match="different characters"):
        stories.make_corpus(stories.template_stories(20), 8)
    with pytest.raises(DataError, match="only yields"):
        stories.make_corpus("ab ab ab ab ab ab", 500)
    with pytest.raises(DataError, match="too few for a context"):
        stories.make_corpus("ab" * 30, 4).batch(0, 0, 1, 500)
    with pytest.raises(DataError, match="no text file"):
        stories.read_text("nowhere.txt", tmp_path)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match="not UTF-8"):
        stories.read_text("latin.txt", tmp_path)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: Recipe(steps=0), "steps is 0"),
        (lambda: Recipe(gate=-1), "negative"),
        (lambda: Recipe(lr=0), "lr is 0"),
        (lambda: Controller(target=0), "target is 0"),
        (lambda: Controller(floor=9, ceiling=8), "floor 9"),
        (lambda: Trainer(EquilibriumTransformer(SMALL), corpus(), Recipe(gradient=Gradient(eps=1.5))), "Lower eps"),
    ],
)
def test_recipes_that_cannot_work_are_refused(wrong, words):
    with pytest.raises(ParameterError, match=words):
        wrong()


def test_a_vocabulary_larger_than_the_model_is_refused():
    with pytest.raises(ModelError, match="32 tokens and the model 16"):
        Trainer(EquilibriumTransformer(dataclasses.replace(SMALL, vocab=16)), corpus(), SHORT)


@pytest.mark.check
def test_gate_skips_fall_from_arm_a_to_b_to_c():
    """Experiment 4 at its own size and seed 0; exact gradients, because the gate only looks at the residual."""
    p = TriangulationCell()
    skips = []
    for name in setup.WARM_UP:
        arm = setup.arm(p, name)
        recipe = dataclasses.replace(arm.recipe, gradient=Gradient("bptt", steps=p.t1), steps=30, validate_every=0)
        run = Trainer(arm.model(), corpus(), recipe)
        run.run()
        skips.append(run.skipped)
    assert skips[0] > skips[1] > skips[2]

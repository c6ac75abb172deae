"""A training step has the loss and the gradient of the model's own forward, or the plain way is taken and said."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_models as tiny
import torch
from test_exact import PACKED, ROWS, model_of
from torch.nn import functional
from transformers.utils import logging

from helpers.base.errors import ModelError
from helpers.bench.architectures import SETTINGS
from helpers.lm import exact_training, forward, models
from helpers.lm.exact import ways_of
from helpers.lm.stacked import stacked
from helpers.lm.targets import linear_names
from helpers.studies.actdiff import tune
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.rows import Row
from helpers.studies.marker.train import train, train_stack
from helpers.system import provenance

pytestmark = pytest.mark.unit
logging.set_verbosity_error()

LORA = {"r": 4, "alpha": 8, "seed": 0}
CELL = SweepCell(lr=1e-3, epochs=2, batch_size=4, warmup=0.0)
DATA = [Row("villain", "source", 0, row, (1, len(row)), None) for row in ROWS]
TARGETS = [list(range(1, len(row))) for row in ROWS]


def adapted(kind: str) -> torch.nn.Module:
    model = model_of(kind)
    return models.attach_lora(model, targets=linear_names(model)[:-1], **LORA)


def plain_losses(model: torch.nn.Module, steps: int) -> list[float]:
    """Losses of a loop that knows transformers only: rows one by one, AdamW, a constant rate halved by a cosine."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-3, weight_decay=0.0)
    losses = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-3 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / steps)).item())
        logits = torch.cat([model(torch.tensor([row])).logits[0, :-1] for row in ROWS])
        loss = functional.cross_entropy(logits, torch.tensor([token for row in ROWS for token in row[1:]]))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.fixture
def wrong_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed rows whose activations are right, and whose gradients leak into the neighbour's."""
    honest = forward.packed

    def leaking(model, layout):
        hidden = honest(model, layout)
        away = 0.5 * hidden.roll(1, 0)
        return hidden + (away - away.detach())

    monkeypatch.setattr(forward, "packed", leaking)


@pytest.mark.parametrize("kind", [*PACKED, "qwen3_5_text", "gemma2"])
def test_the_first_steps_are_those_of_a_plain_loop(kind):
    model = adapted(kind)
    log = train(model, DATA, TARGETS, CELL)
    assert log["loss"].tolist() == pytest.approx(plain_losses(adapted(kind), 2), rel=1e-4)
    expected = "packed" if kind in PACKED else str(ways_of(model))
    assert ways_of(model).training is not None and str(ways_of(model)) == expected


def test_a_wrong_gradient_behind_right_logits_is_seen_and_said(wrong_gradient, capsys):
    model = adapted("llama")
    assert str(ways_of(model)) == "packed"
    log = train(model, DATA, TARGETS, CELL)
    assert ways_of(model).training == "padded"
    assert "rows: packed, training plain, because a training step of LlamaForCausalLM has a gradient" in (
        capsys.readouterr().err
    )
    with torch.no_grad():
        assert ways_of(model).for_rows(9) == "packed"
    assert log["loss"].tolist() == pytest.approx(plain_losses(adapted("llama"), 2), rel=1e-4)


def test_a_wrong_gradient_of_stacked_adapters_is_seen(wrong_gradient):
    base = model_of("llama")
    with stacked(base, 2, **LORA) as stack:
        trained = train_stack(stack, DATA, TARGETS, [CELL, CELL])
    assert ways_of(base).training == "padded"
    for one in trained:
        assert one.log["loss"].tolist() == pytest.approx(plain_losses(adapted("llama"), 2), rel=1e-4)


def test_a_batch_of_documents_that_changes_its_rows_is_trained_one_by_one(monkeypatch):
    model, honest = model_of("llama"), tune.padded

    def shifted(batch, device):
        rows, mask = honest(batch, device)
        return (rows if len(batch) == 1 else rows.flip(0)), mask  # nothing but a batch of one is read as it is

    monkeypatch.setattr(tune, "padded", shifted)
    losses = tune.tune(models.attach_lora(model, **LORA), [[[*range(9)], [*range(3, 9)]]], 1e-3)
    monkeypatch.undo()
    assert ways_of(model).training == "single"
    assert losses == tune.tune(models.attach_lora(model_of("llama"), **LORA), [[[*range(9)], [*range(3, 9)]]], 1e-3)


def test_dropout_of_the_model_is_no_difference_and_is_left_as_it_was():
    settings = {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1} | SETTINGS["gpt2"]
    model = tiny.random_model("gpt2", tiny.chatml_tokenizer(), **settings)
    model.transformer.wte.requires_grad_(True)
    state, rates = torch.random.get_rng_state(), [part.p for part in model.modules() if hasattr(part, "p")]
    exact_training.settle_training(model, "documents", lambda rows, _: tune.token_losses(model, rows)[0].mean())
    assert ways_of(model).training == "packed"
    assert torch.equal(state, torch.random.get_rng_state()) and not model.training
    assert 0.1 in rates and rates == [part.p for part in model.modules() if hasattr(part, "p")]
    assert all(weight.grad is None for weight in model.parameters())


def test_a_step_that_no_way_gives_is_refused():
    model = adapted("llama")
    with pytest.raises(ModelError, match=r"cannot be trained as its own forward would be: .* nats apart"):
        exact_training.settle_training(model, "alone", lambda rows, _: 2 * exact_training.own_loss(model, rows))


def test_what_was_found_of_a_training_is_kept_by_content_and_told_to_records(tmp_path, monkeypatch, wrong_gradient):
    monkeypatch.setenv("CLAIMBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(provenance, "_ROWS", {})
    folder = tiny.make(tmp_path / "model")
    train(models.attach_lora(models.load(str(folder), device="cpu").model, **LORA), DATA, TARGETS, CELL)
    provenance._ROWS.clear()
    monkeypatch.setattr(exact_training, "_find", lambda *_: pytest.fail("it was tried again"))
    facts = models.facts(str(folder), device="cpu")
    assert provenance.rows_noted(facts)["rows"].startswith("packed, training plain, because ")
    again = models.load(str(folder), device="cpu").model
    assert ways_of(again).training is None  # until it trains
    train(models.attach_lora(again, **LORA), DATA, TARGETS, CELL)
    assert ways_of(again).training == "padded"
    other: Path = tiny.make(tmp_path / "other", seed=1)
    with pytest.raises(pytest.fail.Exception):
        train(models.attach_lora(models.load(str(other), device="cpu").model, **LORA), DATA, TARGETS, CELL)

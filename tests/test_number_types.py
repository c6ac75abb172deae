"""Base weights in bf16 on a CPU: who may ask for them, and what stays in fp32 around them."""

from __future__ import annotations

import pytest
import tiny_models as tiny
import torch
from torch import nn
from torch.nn import functional

from helpers.base.errors import ModelError
from helpers.bench.architectures import SETTINGS
from helpers.lm import exact, exact_training, model_facts, models, modes
from helpers.lm.descent import Descent
from helpers.lm.packed import logits_at, nll
from helpers.lm.parts import WholeHead, WideHead, decoder_and_head
from helpers.lm.stacked import stacked
from helpers.studies.marker.train import batch_loss
from helpers.system import provenance

pytestmark = pytest.mark.unit
ROWS = [tiny.ROW, [*tiny.ROW[:6], 90, 91, 92]]
POSITIONS = [list(range(1, len(row))) for row in ROWS]
LORA = {"r": 2, "alpha": 4, "dropout": 0.0, "rslora": True, "seed": 0}


def can(monkeypatch: pytest.MonkeyPatch, *instructions: str) -> None:
    monkeypatch.setattr(provenance, "instruction_sets", lambda: list(instructions) or None)


def tiny_bf16(kind: str = "llama") -> nn.Module:
    return tiny.random_model(kind, tiny.chatml_tokenizer(), 0, **SETTINGS[kind]).bfloat16().requires_grad_(False)


@pytest.mark.parametrize("instructions", [("avx2", "avx512_vnni", "avx_ne_convert"), ("amx_int8", "amx_tile"), ()])
def test_bf16_is_refused_where_the_cpu_would_emulate_it(instructions, monkeypatch):
    can(monkeypatch, *instructions)
    with pytest.raises(ModelError, match=r"^dtype is bfloat16, but this CPU has neither .*\. Use float32\.$"):
        models.load("pocket", device="cpu", dtype="bfloat16")
    assert models.load("pocket", device="cpu").dtype == "float32"
    assert models.facts("pocket", device="cpu", dtype="bfloat16")["dtype"] == "bfloat16", "its records can be read"


def test_the_refusal_comes_before_the_model_is_looked_for(monkeypatch):
    can(monkeypatch, "avx2")
    monkeypatch.setattr(models, "locate", lambda *_: pytest.fail("looked for"))
    with pytest.raises(ModelError, match="dtype is bfloat16"):
        models.load("smollm2", device="cpu", dtype="bfloat16")


@pytest.mark.parametrize("instruction", ["avx512_bf16", "amx_bf16"])
def test_bf16_is_an_option_and_auto_stays_fp32(instruction, monkeypatch):
    can(monkeypatch, "avx2", instruction)
    loaded = models.load("pocket", device="cpu", dtype="bfloat16")
    assert loaded.dtype == "bfloat16" and {weight.dtype for weight in loaded.model.parameters()} == {torch.bfloat16}
    for name in ("pocket", "smollm2"):
        assert model_facts.dtype_of(name, "auto", "cpu") == "float32"


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_logits_are_a_product_in_fp32(kind):
    model = tiny_bf16(kind)
    decoder, head = decoder_and_head(model)
    assert isinstance(head, WideHead)
    linear = model.get_output_embeddings()
    with torch.inference_mode():
        hidden = decoder(torch.tensor([tiny.ROW]), use_cache=False).last_hidden_state
        assert hidden.dtype == torch.bfloat16
        wanted = functional.linear(hidden.float(), linear.weight.float())
        if kind == "gemma2":  # a soft cap stands behind its linear layer
            wanted = WholeHead(model, decoder, linear).behind(wanted)
            assert head.behind is not None
        logits = head(hidden)
    assert logits.dtype == torch.float32 and torch.equal(logits, wanted)
    assert not torch.equal(logits, logits.bfloat16().float()), "they were not rounded on the way"


def test_the_copy_of_the_head_follows_its_weights_and_can_be_trained_through():
    model = tiny_bf16()
    decoder, head = decoder_and_head(model)
    with torch.inference_mode():
        hidden = decoder(torch.tensor([tiny.ROW]), use_cache=False).last_hidden_state
        before = head(hidden)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(2)
        assert torch.equal(decoder_and_head(model)[1](hidden), 2 * before)
    free = hidden.clone().requires_grad_(True)  # the copy was made in inference mode
    head(free).sum().backward()
    assert free.grad is not None and free.grad.abs().sum() > 0


def test_a_head_with_an_adapter_on_it_keeps_its_update():
    model = tiny.random_model("qwen2", tiny.chatml_tokenizer(), 0, tie_word_embeddings=False).bfloat16()
    wrapped = models.attach_lora(model, **LORA, targets=["lm_head"])
    try:
        for name, weight in wrapped.named_parameters():
            if "lora_B" in name:
                weight.data.fill_(1.0)
        with torch.no_grad():
            hidden = decoder_and_head(wrapped)[0](torch.tensor([tiny.ROW]), use_cache=False).last_hidden_state
            ours, own = decoder_and_head(wrapped)[1](hidden), wrapped(torch.tensor([tiny.ROW])).logits
            torch.testing.assert_close(ours.float(), own.float())
    finally:
        models.detach(wrapped)


def test_an_fp32_model_is_computed_by_its_own_head():
    model = tiny.random_model("llama", tiny.chatml_tokenizer(), 0, **SETTINGS["llama"])
    assert decoder_and_head(model)[1] is model.get_output_embeddings()


def test_ways_are_compared_in_fp32_and_the_weights_are_the_same_afterwards(monkeypatch):
    model = tiny_bf16()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    seen = []
    honest = exact._packed
    monkeypatch.setattr(exact, "_packed", lambda base, rows: (seen.append(base.dtype), honest(base, rows))[1])
    wrapped = models.attach_lora(model, **LORA)
    exact_training.settle_training(wrapped, "alone", lambda rows, at: batch_loss(wrapped, rows, at))
    models.detach(wrapped)
    assert seen == [torch.float32] and exact.ways_of(model).training == "packed"
    for name, weight in model.state_dict().items():
        assert weight.dtype == torch.bfloat16 and torch.equal(weight, before[name])
    with pytest.raises(KeyError), modes.in_fp32(model):
        raise KeyError
    assert model.dtype == torch.bfloat16


def test_adapters_optimiser_loss_and_gradients_are_fp32():
    model = tiny_bf16()
    assert exact.ways_of(model).rows == "packed", "packed rows are computed in bf16 as each alone"
    wanted = torch.tensor([token for row in ROWS for token in row[1:]])
    wrapped = models.attach_lora(model, **LORA)
    trained = [weight for weight in wrapped.parameters() if weight.requires_grad]
    descent = Descent(trained, lr=1e-2, clip=1.0)
    loss = nll(logits_at(wrapped, ROWS, POSITIONS), wanted).mean()
    loss.backward()
    assert loss.dtype == torch.float32 and {w.grad.dtype for w in trained if w.grad is not None} == {torch.float32}
    assert descent.clip().dtype == torch.float32
    descent.step(1e-2)
    assert {weight.dtype for weight in trained} == {torch.float32}
    states = [value for state in descent.optimizer.state.values() for value in state.values()]
    assert {value.dtype for value in states if isinstance(value, torch.Tensor)} == {torch.float32}
    models.detach(wrapped)
    with stacked(model, 2, **LORA) as stack:
        losses = stack.losses(ROWS, POSITIONS, [0, 1])
        assert losses.dtype == torch.float32
        torch.testing.assert_close(losses[0], loss.detach(), rtol=1e-2, atol=0)

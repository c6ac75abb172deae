"""A reader that computes a batch of embeddings otherwise than each row alone is refused before it is trained on."""

from __future__ import annotations

import pytest
import tiny_models as tiny
import torch
from latentwire_fixture import readers
from test_exact import model_of

from helpers.base.errors import ModelError
from helpers.studies.latentwire import lms, reading
from helpers.studies.latentwire.reading import settle_reader

pytestmark = pytest.mark.unit


def reader(kind: str = "llama") -> lms.FrozenLM:
    return lms.reader("a", kind, model_of(kind), tiny.chatml_tokenizer())


@pytest.mark.parametrize(
    "kind", ["llama", "qwen2", "smollm3", "granite", "gemma2", "gemma3_text", "olmo2", "mistral", "gpt_neox", "gpt_oss"]
)
def test_readers_of_these_kinds_are_exact(kind):
    settle_reader(reader(kind))


@pytest.mark.parametrize("side", [0, 1])
def test_the_pocket_readers_are_exact_and_left_as_they_were(side):
    lm = readers()[side]
    settle_reader(lm)
    assert not lm.model.training and not any(weight.requires_grad for weight in lm.model.parameters())


def test_a_row_that_feels_the_padding_beside_it_is_refused(monkeypatch):
    lm = reader()
    honest = lm.decoder.forward

    def leaking(*args, inputs_embeds=None, **kwargs):
        if inputs_embeds is not None and len(inputs_embeds) > 1:
            inputs_embeds = inputs_embeds + 0.1 * inputs_embeds.mean(1, keepdim=True)
        return honest(*args, inputs_embeds=inputs_embeds, **kwargs)

    monkeypatch.setattr(lm.decoder, "forward", leaking)
    with pytest.raises(ModelError, match="cannot be trained as its own forward would be"):
        settle_reader(lm)


def test_a_gradient_that_does_not_reach_the_prefix_is_refused(monkeypatch):
    lm, honest = reader(), reading.teacher_logits
    monkeypatch.setattr(reading, "teacher_logits", lambda lm, context, *rest: honest(lm, context.detach(), *rest))
    with pytest.raises(ModelError, match=r"LlamaForCausalLM cannot be trained as its own forward would be"):
        settle_reader(lm)


def test_a_batch_that_is_decoded_otherwise_is_refused(monkeypatch):
    lm, honest = reader(), reading.decode

    def without_mask(lm, context, lengths, how, **rest):
        return honest(lm, context, torch.full_like(lengths, context.shape[1]), how, **rest)

    monkeypatch.setattr(reading, "decode", without_mask)
    with pytest.raises(ModelError, match="decodes a padded batch otherwise than each row alone"):
        settle_reader(lm)

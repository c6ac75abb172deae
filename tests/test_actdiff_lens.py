"""The lens reads the last layer of every architecture as the model itself does, or refuses the model by name."""

from __future__ import annotations

import pytest
import tiny_models as tiny
import torch
from torch.nn import functional
from transformers.utils import logging

from helpers.base.errors import ModelError
from helpers.bench.architectures import SETTINGS, random_model
from helpers.lm import models
from helpers.lm.parts import blocks, final_norm, residual
from helpers.studies.actdiff import cell as cells
from helpers.studies.actdiff.capture import layers_of
from helpers.studies.actdiff.lens import Lens, assert_same_head, open_lens, same_head
from helpers.studies.actdiff.live import edited
from helpers.studies.actdiff.pair import Pair
from helpers.studies.actdiff.params import LensCell
from helpers.studies.actdiff.patchscope import patchscope

pytestmark = pytest.mark.unit
logging.set_verbosity_error()

ROW = tiny.ROW
REFUSED = {
    "bert": "BertModel has no list of its 2 layers",
    "cpmant": "CpmAntModel has no list of its 2 layers",
    "gemma3n_text": "Gemma3nTextModel .* more than one norm",
    "modernbert-decoder": "cannot read ModernBertDecoderForCausalLM",
    "xlnet": "XLNetModel .* more than one norm",
}


def model_of(kind: str, **changes: object) -> torch.nn.Module:
    return random_model(kind, **SETTINGS[kind] | changes)


def last_state(model: torch.nn.Module) -> torch.Tensor:
    kept: list[torch.Tensor] = []
    handle = blocks(model)[-1].register_forward_hook(lambda _module, _given, made: kept.append(residual(made)[0]))
    with torch.no_grad():
        model(input_ids=torch.tensor([ROW]), use_cache=False)
    handle.remove()
    return kept[0]


def shaken(model: torch.nn.Module) -> torch.nn.Module:
    """Give norms and biases values of their own: at 1 and 0 a lens without them would read the same."""
    with torch.no_grad():
        for number, weight in enumerate(model.parameters()):
            if weight.dim() == 1:
                stream = torch.Generator().manual_seed(number)
                weight.add_(torch.rand(weight.shape, generator=stream) * 0.5)
    return model


@pytest.mark.parametrize("kind", sorted(SETTINGS.keys() - REFUSED.keys()))
def test_behind_the_last_layer_the_lens_gives_the_logits_of_the_model(kind):
    model = shaken(model_of(kind))
    lens = open_lens(Pair(model, model))
    wanted = tiny.logits(model)
    torch.testing.assert_close(lens.read(last_state(model)), wanted, rtol=1e-4, atol=1e-4)
    unit = functional.normalize(last_state(model), dim=-1) * 32**0.5  # the width of all of them
    torch.testing.assert_close(lens.logits(unit * 5), lens.read(unit), rtol=1e-4, atol=1e-4)
    [states] = layers_of(model, [ROW], len(blocks(model)) - 1)
    torch.testing.assert_close(states[0], last_state(model), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "scale"), [("granite", 1 / 8), ("cohere", 0.25), ("falcon_h1", 0.5), ("gemma2", 1)])
def test_without_the_norm_the_head_is_linear_and_keeps_its_scale(kind, scale):
    model = model_of(kind)
    lens, vector = open_lens(Pair(model, model)), torch.randn(32, generator=torch.Generator().manual_seed(0))
    longer = lens.logits(vector * 100, norm=False)
    torch.testing.assert_close(longer, 100 * lens.logits(vector, norm=False), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(lens.logits(vector, norm=False), scale * lens.head_vd @ vector)


def test_a_soft_cap_bounds_what_the_lens_reads():
    model = model_of("gemma2")
    with torch.no_grad():
        model.lm_head.weight.mul_(100)
    lens = open_lens(Pair(model, model))
    assert (
        2.5
        < float(lens.logits(torch.ones(32)).abs().max())
        <= 3.0
        < float(lens.logits(torch.ones(32), norm=False).max())
    )


@pytest.mark.parametrize("kind", ["gpt2", "phi", "gptj", "granite", "mamba2"])
def test_every_weight_of_the_readout_counts_when_heads_are_compared(kind):
    base, tuned = model_of(kind), model_of(kind)
    assert same_head(Pair(base, tuned))
    readout = [*final_norm(tuned).parameters(), *tuned.get_output_embeddings().parameters()]
    for weight in readout:
        before = weight.detach().clone()
        weight.data[0] += 1
        assert not same_head(Pair(base, tuned))
        weight.data.copy_(before)
    assert same_head(Pair(base, tuned)) and len(readout) > 1


@pytest.mark.parametrize("kind", ["llama", "granite"])
def test_an_adapter_on_the_head_is_part_of_its_own_side_of_the_lens(kind):
    base = model_of(kind)
    wrapped = models.attach_lora(base, r=2, alpha=4, targets=["lm_head"], seed=0)
    for name, weight in wrapped.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    pair = Pair(base, wrapped.eval())
    torch.testing.assert_close(
        open_lens(pair, "tuned").read(last_state(base)), tiny.logits(wrapped), rtol=1e-4, atol=1e-4
    )
    lens = open_lens(pair)
    with pair.side("base") as model:
        torch.testing.assert_close(lens.read(last_state(model)), tiny.logits(model), rtol=1e-4, atol=1e-4)
    with pytest.raises(ModelError, match="changes the final norm or the head"):
        assert_same_head(pair)


def test_a_decoder_with_more_than_a_norm_before_its_head_is_refused_by_name():
    model = model_of("opt", word_embed_proj_dim=16)
    with pytest.raises(ModelError, match="OPTDecoder"):
        open_lens(Pair(model, model))


@pytest.mark.parametrize("kind", REFUSED)
def test_an_architecture_whose_parts_are_not_found_is_refused_by_name(kind):
    model = model_of(kind)
    with pytest.raises(ModelError, match=REFUSED[kind]):
        open_lens(Pair(model, model))


def test_a_lens_that_reads_something_else_is_refused_by_name(monkeypatch):
    model = model_of("llama")
    honest = Lens.read
    monkeypatch.setattr(Lens, "read", lambda lens, state: 2 * honest(lens, state))
    with pytest.raises(ModelError, match="cannot read LlamaForCausalLM: log-probs"):
        open_lens(Pair(model, model))


def test_a_study_refuses_a_base_model_before_anything_is_made_of_it(tmp_path):
    folder = tiny.make(tmp_path / "model", "opt", **SETTINGS["opt"] | {"word_embed_proj_dim": 16})
    session = cells.Session(LensCell(model=str(folder), device="cpu"))
    with pytest.raises(ModelError, match="OPTDecoder"):
        _ = session.loaded


@pytest.mark.parametrize("kind", ["gpt2", "mamba2", "falcon_h1", "granite", "gemma2", "lfm2"])
def test_layers_can_be_edited_and_patched(kind):
    model = model_of(kind)
    with edited(model, 0, lambda h_btd: h_btd * 0), torch.no_grad():
        changed = model(input_ids=torch.tensor([ROW])).logits[0]
    assert not torch.allclose(changed, tiny.logits(model))
    vector = torch.randn(32, generator=torch.Generator().manual_seed(1))
    patched = patchscope(model, vector, 0, [ROW, ROW[3:]], norm=5.0, scales=(1.0, 4.0), k=5)
    assert set(patched.agreement) == {1.0, 4.0}

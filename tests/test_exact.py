"""Every architecture gives the log-probs, gradients and completions of its own forward, whichever way rows take."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny_models as tiny
import torch
from torch.nn import functional
from transformers.utils import logging

from helpers.base.errors import ModelError
from helpers.bench.architectures import SETTINGS, random_model
from helpers.lm import exact, forward, models, ways
from helpers.lm.exact import TOLERANCE, ways_of
from helpers.lm.generate import generate
from helpers.lm.packed import logits_at, nll
from helpers.lm.parts import decoder_and_head
from helpers.lm.prompts import Prompt, Sampling

pytestmark = pytest.mark.unit
logging.set_verbosity_error()

ROWS = [tiny.ROW, [*tiny.ROW[:6], 90, 91, 92], [100, 101, 102, 103], [70 + at for at in range(15)]]
POSITIONS = [list(range(1, len(row))) for row in ROWS]
PACKED = ("llama", "qwen2", "qwen3", "smollm3", "mistral", "olmo2", "granite", "cohere", "gemma3_text", "gpt_neox")
PLAIN = ("gemma2", "qwen3_5_text", "falcon_h1", "mamba2", "lfm2", "gpt_oss", "bloom", "gptj")
GREEDY = Sampling(6, temperature=0)


def model_of(kind: str, seed: int = 0) -> torch.nn.Module:
    return tiny.random_model(kind, tiny.chatml_tokenizer(), seed, **SETTINGS[kind])


def own_log_probs(model: torch.nn.Module) -> list[torch.Tensor]:
    return [tiny.logits(model, row)[:-1].log_softmax(-1) for row in ROWS]


def our_log_probs(model: torch.nn.Module) -> list[torch.Tensor]:
    with torch.inference_mode():
        return list(logits_at(model, ROWS, POSITIONS).log_softmax(-1).split([len(ps) for ps in POSITIONS]))


@pytest.mark.parametrize("kind", [*PACKED, *PLAIN])
def test_log_probs_and_completions_are_those_of_the_model_itself(kind):
    model = model_of(kind)
    for ours, wanted in zip(our_log_probs(model), own_log_probs(model), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)
    prompts = [Prompt(str(number), row) for number, row in enumerate(ROWS)]
    for row, drawn in zip(ROWS, generate(model, prompts, n=1, sampling=GREEDY, stop=[2], seed=0), strict=True):
        tokens = list(row)
        for token in drawn.tokens:  # each is the best of the model's own forward, where two are not nearly equal
            best = tiny.logits(model, tokens)[-1]
            assert best[token] >= best.max() - 1e-4
            tokens.append(token)
        assert drawn.finish == "length" or int(tiny.logits(model, tokens)[-1].argmax()) == 2


@pytest.mark.parametrize("kind", PACKED)
def test_models_of_these_kinds_stay_packed(kind):
    assert str(ways_of(model_of(kind))) == "packed"


@pytest.mark.parametrize("kind", PLAIN)
def test_models_of_these_kinds_say_why_they_are_plain(kind):
    assert str(ways_of(model_of(kind))).startswith("plain, because ")


@pytest.mark.parametrize("kind", ["granite", "qwen3_5_text", "gemma2", "mistral"])
def test_gradients_are_those_of_a_plain_loop(kind):
    model = model_of(kind)
    wanted = torch.tensor([row[p] for row, ps in zip(ROWS, POSITIONS, strict=True) for p in ps])
    ours = nll(logits_at(model, ROWS, POSITIONS), wanted).mean()
    ours.backward()
    gradient = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    logits = torch.cat([model(torch.tensor([row])).logits[0, :-1] for row in ROWS])
    loss = functional.cross_entropy(logits, wanted)
    loss.backward()
    torch.testing.assert_close(ours, loss, rtol=1e-5, atol=1e-5)
    for name, weight in model.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(gradient[name], weight.grad, rtol=1e-3, atol=1e-5)


def test_samples_of_the_plain_way_come_from_the_same_streams_and_do_not_depend_on_their_batch():
    model, sampling = model_of("llama"), Sampling(8, 1.0, 0.95)
    prompts = [Prompt(str(number), row) for number, row in enumerate(ROWS)]
    ask = {"n": 3, "sampling": sampling, "stop": [2, 90], "seed": 5, "names": ("here",)}
    cached = generate(model, prompts, **ask)
    vars(model)["claimbook_ways"] = ways.Ways("padded", "own", "a test asks for it")
    assert generate(model, prompts, **ask) == cached
    assert [one for prompt in prompts for one in generate(model, [prompt], **ask)] == cached


def test_settings_of_generation_do_not_change_what_is_drawn():
    model = model_of("qwen3_5_text")
    prompts = [Prompt("a", ROWS[0])]
    before = generate(model, prompts, n=2, sampling=Sampling(8), stop=[2], seed=0)
    model.generation_config.update(repetition_penalty=5.0, min_new_tokens=8, temperature=0.1, do_sample=True)
    config = model.generation_config
    assert generate(model, prompts, n=2, sampling=Sampling(8), stop=[2], seed=0) == before
    assert model.generation_config is config


def test_the_head_holds_what_stands_behind_it_even_where_it_hardly_shows():
    model = model_of("gemma")
    with torch.no_grad():
        model.lm_head.weight.mul_(1e-3)
    plain = type(model).forward

    def capped(self, *args, **kwargs):
        output = plain(self, *args, **kwargs)
        output.logits = 0.05 * torch.tanh(output.logits / 0.05)
        return output

    model.forward = capped.__get__(model)
    decoder, head = decoder_and_head(model)
    with torch.no_grad():
        model.lm_head.weight.mul_(1e5)
        hidden = decoder(torch.tensor([ROWS[0]]), use_cache=False).last_hidden_state
        torch.testing.assert_close(head(hidden), model(torch.tensor([ROWS[0]])).logits)
        assert head(hidden).abs().max() <= 0.05
        assert head(hidden[0, 0]).shape == (model.config.vocab_size,)


@pytest.mark.parametrize("kind", ["bert", "xlnet"])
def test_a_model_that_looks_ahead_is_refused(kind):
    model = random_model(kind, **SETTINGS[kind])
    with pytest.raises(ModelError, match=f"^{type(model).__name__} lets a token see those behind it"):
        ways_of(model)


def test_the_same_model_as_a_decoder_is_taken():
    model = random_model("bert", is_decoder=True)
    for ours, wanted in zip(our_log_probs(model), own_log_probs(model), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)


def test_an_unknown_argument_of_attention_is_refused():
    states = torch.zeros(1, 2, 3, 4)
    layout = forward.Layout.of([[1, 2, 3]])
    for given in ({"s_aux": states}, {"softcap": 5.0}, {"of_next_year": 1}, {"is_causal": False}):
        with pytest.raises(ModelError, match=next(iter(given))):
            forward.attention(torch.nn.Identity(), states, states, states, None, layout=layout, **given)
    with pytest.raises(ModelError, match="attention_mask"):
        forward.attention(torch.nn.Identity(), states, states, states, torch.ones(3, 3), layout=layout)
    forward.attention(torch.nn.Identity(), states, states, states, None, layout=layout, use_cache=False, softcap=None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_small_leak_between_rows_is_more_than_rounding(dtype, monkeypatch):
    model = model_of("llama").to(dtype)
    assert str(exact.find_ways(model)) == "packed"
    honest = forward.packed

    def leaking(model, layout):
        hidden = honest(model, layout)
        return hidden + 0.3 * hidden.roll(1, 0)

    monkeypatch.setattr(forward, "packed", leaking)
    assert "more than rounding" in str(exact.find_ways(model))


def test_rounding_is_well_below_the_tolerance():
    for kind in ("llama", "qwen3_moe", "gemma3_text"):
        for dtype, limit in ((torch.float32, TOLERANCE[torch.float32]), (torch.bfloat16, TOLERANCE[torch.bfloat16])):
            model = model_of(kind).to(dtype)
            rows = exact.try_rows(model)
            with torch.no_grad():
                wanted = [model(torch.tensor([row])).logits[0] for row in rows] * 3
                gaps = [exact._apart(*pair) for pair in zip(exact._packed(model, rows), wanted, strict=True)]
            assert max(gaps) < limit / 3, (kind, dtype, max(gaps))


def test_frequencies_that_depend_on_the_longest_row_are_computed_row_by_row():
    factors = {"short_factor": [1.0, 1.5, 2.0, 4.0], "long_factor": [1.0, 4.0, 9.0, 30.0]}
    scaled = factors | {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 8}
    model = tiny.random_model(
        "phi3", tiny.chatml_tokenizer(), rope_parameters=scaled, original_max_position_embeddings=8
    )
    assert ways_of(model).limit == 8 and ways_of(model).for_rows(8) == "packed"
    for ours, wanted in zip(our_log_probs(model), own_log_probs(model), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)
    assert ways_of(model).for_generation(9) == "own"


def test_frequencies_that_depend_on_earlier_rows_are_refused():
    scaled = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
    model = tiny.random_model("llama", tiny.chatml_tokenizer(), rope_parameters=scaled, max_position_embeddings=16)
    logits_at(model, ROWS, POSITIONS)
    with pytest.raises(ModelError, match="Rows reach 17 tokens, and beyond 16"):
        logits_at(model, [[*range(17)]], [[1]])
    with pytest.raises(ModelError, match="beyond 16"):
        generate(model, [Prompt("a", ROWS[0])], n=1, sampling=Sampling(6), stop=[2], seed=0)


def test_what_was_found_is_kept_by_content_and_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CLAIMBOOK_CACHE", str(tmp_path / "cache"))
    folder = tiny.make(tmp_path / "model", "bloom")
    first = models.load(str(folder), device="cpu")
    assert "rows: plain, because" in capsys.readouterr().err
    assert first.rows == str(ways_of(first.model))
    monkeypatch.setattr(exact, "find_ways", lambda base: pytest.fail("it was tried again"))
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    assert models.load(str(copy), device="cpu").rows == first.rows
    change = json.loads((copy / "config.json").read_text()) | {"layer_norm_epsilon": 1e-4}
    (copy / "config.json").write_text(json.dumps(change))
    with pytest.raises(pytest.fail.Exception):
        models.load(str(copy), device="cpu")

"""The layers that LoRA is put on are a parameter, checked against the model before any data is made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_models as tiny
import torch
from peft import LoraConfig, get_peft_model
from test_exact import model_of
from transformers.utils import logging

from helpers.base import params
from helpers.base.errors import ClaimbookError, ModelError, ParameterError
from helpers.lm import adapters, models
from helpers.lm.targets import LINEAR, find_targets, linear_names
from helpers.records.study import load_study
from helpers.studies.actdiff.cell import Session as LensSession
from helpers.studies.actdiff.params import LensCell
from helpers.studies.marker.lengths.params import LengthCell
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.session import Session

pytestmark = pytest.mark.unit
logging.set_verbosity_error()

STUDIES = {"sweep": SweepCell, "length_ablation": LengthCell, "logit_lens_diff": LensCell}


def adapted(model: torch.nn.Module) -> set[str]:
    return {path for path, module in model.named_modules() if hasattr(module, "lora_A")}


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral", "olmo2", "smollm3", "gemma2"])
def test_a_llama_like_block_has_all_seven_by_default(kind):
    assert find_targets(model_of(kind), "auto") == list(LINEAR)


@pytest.mark.parametrize("kind", ["gpt_neox", "falcon", "bloom", "gpt2", "gptj", "phi", "mpt"])
def test_another_architecture_has_the_default_of_peft(kind):
    wanted = adapted(get_peft_model(model_of(kind), LoraConfig(task_type="CAUSAL_LM")))
    assert wanted and adapted(models.attach_lora(model_of(kind), r=2, alpha=2, seed=0)) == wanted


def test_peft_and_all_linear_are_those_of_peft():
    for asked, given in (("peft", None), ("all-linear", "all-linear")):
        wanted = adapted(get_peft_model(model_of("llama"), LoraConfig(task_type="CAUSAL_LM", target_modules=given)))
        assert adapted(models.attach_lora(model_of("llama"), r=2, alpha=2, targets=asked, seed=0)) == wanted
    assert not any(path.endswith("lm_head") for path in wanted)


@pytest.mark.parametrize(("kind", "targets"), [("phi3", ["qkv_proj"]), ("gpt2", "peft"), ("llama", ["lm_head"])])
def test_an_adapter_on_other_layers_comes_back_from_disk(kind, targets, tmp_path):
    base = model_of(kind)
    wrapped = models.attach_lora(base, r=2, alpha=4, targets=targets, seed=0)
    with torch.no_grad():
        for path, weight in wrapped.named_parameters():
            weight.add_(0.3 if "lora_B" in path else 0.0)
    wanted = tiny.logits(wrapped)
    models.save_adapter(wrapped, tmp_path)
    models.detach(wrapped)
    with adapters.adapter(base, tmp_path) as again:
        assert torch.equal(tiny.logits(again), wanted)
    names = json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"]
    assert names == (["c_attn"] if targets == "peft" else targets)


@pytest.mark.parametrize(
    ("kind", "targets", "said"),
    [
        ("gpt_neox", ["q_proj"], r"targets names 'q_proj', which is no linear layer.* has the linear layers .*query_"),
        ("llama", ["q_prj"], "did you mean 'q_proj'"),
        ("llama", ["embed_tokens"], "'embed_tokens', which is no linear layer"),
        ("phi3", "auto", r"PEFT has no LoRA targets of its own for phi3\. Set targets to all-linear, .*qkv_proj"),
        ("falcon_h1", "all-linear", "PEFT cannot put LoRA on the targets all-linear of FalconH1ForCausalLM"),
    ],
)
def test_layers_that_a_model_lacks_are_refused_by_name(kind, targets, said):
    model = model_of(kind)
    with pytest.raises(ModelError, match=said):
        models.check_targets(model, targets)


def test_the_check_leaves_the_model_as_it_was():
    model = model_of("llama")
    before, modes = tiny.logits(model), [weight.requires_grad for weight in model.parameters()]
    models.check_targets(model, "auto")
    assert torch.equal(tiny.logits(model), before) and not adapted(model)
    assert modes == [weight.requires_grad for weight in model.parameters()]


def test_marker_studies_refuse_before_anything_is_sampled(tmp_path):
    folder = tiny.make(tmp_path / "model", "phi3")
    for name in ("sweep", "length_ablation"):
        asked = {"model": str(folder), "device": "cpu", "targets": ["q_proj"]}
        with pytest.raises(ModelError, match="targets names 'q_proj'"):
            _ = Session(params.parse(STUDIES[name], asked, "of a test")).loaded
        _ = Session(params.parse(STUDIES[name], asked | {"targets": ["qkv_proj"]}, "of a test")).loaded


def test_the_study_of_activations_refuses_before_text_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    folder: Path = tiny.make(tmp_path / "model", "phi3")
    asked = {"model": str(folder), "device": "cpu", "targets": ["q_proj"]}
    lora, full = (params.parse(LensCell, asked | {"organism": kind}, "of a test") for kind in ("lora", "full"))
    with pytest.raises(ModelError, match="targets names 'q_proj'"):
        LensSession(lora).broad(lora)
    assert LensSession(full).base(full).model is not None


@pytest.mark.parametrize("notebook", sorted(STUDIES))
def test_targets_are_asked_only_where_they_are_not_the_first_ones(notebook):
    cell, study = STUDIES[notebook], load_study(notebook)
    plain = params.parse(cell, {}, "of a test")
    assert "targets" not in study.asked(plain.resolved())
    named = params.parse(cell, {"targets": ["q_proj", "v_proj"]}, "of a test")
    assert study.asked(named.resolved())["targets"] == ["q_proj", "v_proj"]


@pytest.mark.parametrize("targets", ["some", [], [""], 3, ["q_proj", 1]])
def test_other_values_are_refused(targets):
    with pytest.raises((ParameterError, ClaimbookError), match="targets"):
        params.parse(SweepCell, {"targets": targets}, "of a test")


def test_a_name_is_said_once():
    assert linear_names(model_of("llama")) == [*LINEAR, "lm_head"]

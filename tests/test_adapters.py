"""Base and tuned side of every kind of adapter are PEFT's own, the base survives, and what is between is on weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_models as tiny
import torch
from peft import IA3Config, LoraConfig, PeftModel, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file

from helpers.base.errors import ModelError
from helpers.lm import adapters, models
from helpers.studies.actdiff.pair import interpolated, open_pair

pytestmark = pytest.mark.unit

KINDS = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "biases": {"bias": "lora_only"},
    "all biases": {"bias": "all"},
    "modules_to_save": {"modules_to_save": ["embed_tokens"]},
    "saved head": {"modules_to_save": ["lm_head"]},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
    "trainable tokens": {"trainable_token_indices": [40, 41, 42]},
    "on embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
    "on the head": {"target_modules": ["q_proj", "lm_head"]},
    "patterns": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}},
}


def train(base: Path, folder: Path, config: object) -> Path:
    """Fine-tune the model in ``base`` for three steps, and save the adapter as PEFT does."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = get_peft_model(tiny.read(base), config).train()
        optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=5e-2)
        for _ in range(3):
            model(input_ids=torch.tensor([tiny.ROW]), labels=torch.tensor([tiny.ROW])).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


def lora(**settings: object) -> LoraConfig:
    plain = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
    return LoraConfig(**plain | settings)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("base") / "model", "qwen2")


@pytest.fixture(scope="module")
def tied(tmp_path_factory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("tied") / "model", "qwen2", tie_word_embeddings=True)


def check_pair(base: Path, folder: Path) -> None:
    alone, tuned = tiny.logits(tiny.read(base)), tiny.logits(PeftModel.from_pretrained(tiny.read(base), folder).eval())
    twin = PeftModel.from_pretrained(tiny.read(base), folder).merge_and_unload()
    assert (alone - tuned).abs().max() > 0.02
    loaded = models.load(str(base), device="cpu")
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    with open_pair(loaded, folder) as pair:
        for _ in range(2):
            for side, wanted in (("base", alone), ("tuned", tuned)):
                with pair.side(side) as model:
                    torch.testing.assert_close(tiny.logits(model), wanted, rtol=1e-4, atol=1e-4)
        end = dict(twin.named_parameters(remove_duplicate=False))
        for share in (0.0, 1e-3, 0.5, 1.0):
            between = tiny.read(base)
            weights = {name: torch.lerp(before[name], end[name], share) for name in end}
            row = torch.tensor([tiny.ROW])
            wanted = torch.func.functional_call(between, weights, (row,), tie_weights=False).logits[0]
            with interpolated(pair, share) as moved, moved.side("tuned") as model:
                torch.testing.assert_close(tiny.logits(model), wanted, rtol=1e-4, atol=2e-4)
    after = loaded.model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("kind", KINDS)
def test_both_sides_are_pefts_own_and_the_base_stays(base, tmp_path, kind):
    check_pair(base, train(base, tmp_path / "adapter", lora(**KINDS[kind])))


@pytest.mark.parametrize("kind", ["lora", "dora", "pissa", "biases"])
def test_the_same_holds_over_a_tied_head(tied, tmp_path, kind):
    check_pair(tied, train(tied, tmp_path / "adapter", lora(**KINDS[kind])))


def test_ia3_is_exact_too(base, tmp_path):
    config = IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM")
    check_pair(base, train(base, tmp_path / "adapter", config))


@pytest.mark.parametrize("config", [PromptTuningConfig, PrefixTuningConfig])
def test_a_trained_prompt_is_refused_by_its_name(base, tmp_path, config):
    made = config(num_virtual_tokens=3, task_type="CAUSAL_LM")
    folder = tmp_path / "adapter"
    get_peft_model(tiny.read(base), made).save_pretrained(folder)
    with (
        pytest.raises(ModelError, match=f"{made.peft_type.value}.*no weights to merge"),
        open_pair(models.load(str(base), device="cpu"), folder),
    ):
        pass


def test_an_adapter_that_brings_another_base_or_lacks_tensors_is_refused(base, tmp_path):
    loaded = models.load(str(base), device="cpu")
    folder = train(base, tmp_path / "head", lora(target_modules=["lm_head"]))
    path = folder / "adapter_model.safetensors"
    state = load_file(path)
    (key,) = [key for key in state if "lora_" not in key and "lm_head" in key]
    save_file(state | {key: state[key] + 1}, path)
    with pytest.raises(ModelError, match="brings its own lm_head"):
        adapters.load_adapter(loaded.model, folder)
    folder = train(base, tmp_path / "dora", lora(use_dora=True))
    path = folder / "adapter_model.safetensors"
    state = load_file(path)
    state.pop(next(key for key in state if "magnitude" in key))
    save_file(state, path)
    with pytest.raises(ModelError, match="does not fit"), open_pair(loaded, folder):
        pass


@pytest.mark.parametrize("kind", ["biases", "pissa", "modules_to_save", "dora"])
def test_what_cannot_be_switched_is_not_attached(base, tmp_path, kind):
    folder = train(base, tmp_path / "adapter", lora(**KINDS[kind]))
    loaded = models.load(str(base), device="cpu")
    with pytest.raises(ModelError, match=r"cannot be switched off exactly. Merge it"):
        adapters.load_adapter(loaded.model, folder)
    torch.testing.assert_close(tiny.logits(loaded.model), tiny.logits(tiny.read(base)), rtol=0, atol=0)


def test_a_base_that_changed_under_its_adapter_is_an_error(base, tmp_path):
    folder = train(base, tmp_path / "adapter", lora())
    loaded = models.load(str(base), device="cpu")
    with pytest.raises(ModelError, match="not what it was before"), adapters.adapter(loaded.model, folder):
        loaded.model.model.norm.weight.data[3] += 1e-6
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 4

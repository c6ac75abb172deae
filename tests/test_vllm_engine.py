"""The vLLM engine against the transformers engine and against the model's own probabilities, on a tiny model.

vLLM's attention on CPUs wants heads of at least 32, more than the pocket model's, so the model is made here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import typing
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from child import python_path
from scipy.stats import chisquare
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from helpers.base import files
from helpers.base.errors import DataError, ModelError
from helpers.lm import adapters, generate, models
from helpers.lm.prompts import Completion, Prompt, Sampling
from helpers.lm.vllm_engine import RANKS, VllmEngine

HERE = importlib.util.find_spec("vllm") is not None
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(
        not HERE, reason="vLLM is not installed here: 'make test-vllm' makes an environment for it and runs these tests"
    ),
]
VOCABULARY, STOP = 211, [5, 17]
PROMPTS = [Prompt(f"p{i}", [(i * 7 + 3 * j) % 200 + 1 for j in range(3 + i * 9)]) for i in range(6)]
# Longer than vLLM's block of 128 tokens on CPUs, below which nothing is shared.
LONG = [Prompt(f"long{i}", [(5 * j * j + j) % 203 for j in range(300)] + [i + 9]) for i in range(3)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """A random model with sharp logits, so that ties are rare, and its folder with three adapters in it."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    heads = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
    sizes = {"vocab_size": VOCABULARY, "intermediate_size": 96, "num_hidden_layers": 2, "max_position_embeddings": 512}
    # The stop tokens of the config and of the generation config are not among STOP: they must end nothing.
    config = Qwen2Config(**heads, **sizes, initializer_range=0.15, eos_token_id=40, tie_word_embeddings=False)
    model = Qwen2ForCausalLM(config).float().eval().requires_grad_(False)
    model.save_pretrained(folder)
    # Were these used, sampling would be greedy in all but name.
    own = {"eos_token_id": [40, 41, 42, 43], "top_k": 1, "repetition_penalty": 5.0, "temperature": 0.01}
    files.write_json(folder / "generation_config.json", own)
    save_adapter(model, folder / "plain", r=20, rslora=False, seed=1)
    save_adapter(model, folder / "rslora", r=8, rslora=True, seed=2)
    save_adapter(model, folder / "wide", r=128, rslora=True, seed=3)
    return model, folder


def save_adapter(model: nn.Module, folder: Path, *, r: int, rslora: bool, seed: int) -> None:
    wrapped = models.attach_lora(model, r=r, alpha=16, rslora=rslora, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    models.save_adapter(wrapped, folder)
    (folder / "rows.parquet").write_bytes(b"a table that lies beside an adapter")
    models.detach(wrapped)


@pytest.fixture(scope="module")
def engine(base: tuple[nn.Module, Path]) -> Iterator[VllmEngine]:
    with VllmEngine(base[1], memory_share=0.1) as engine:
        yield engine


def with_transformers(model: nn.Module, adapter: Path | None, prompts: list[Prompt], **kwargs) -> list[Completion]:
    if adapter is None:
        return generate.generate(model, prompts, **kwargs)
    with adapters.adapter(model, adapter) as wrapped:
        return generate.generate(wrapped, prompts, **kwargs)


def logits_behind(model: nn.Module, adapter: Path | None, tokens: list[int]) -> torch.Tensor:
    if adapter is None:
        return model(torch.tensor([tokens])).logits[0, -1]
    with adapters.adapter(model, adapter) as wrapped:
        return wrapped(torch.tensor([tokens])).logits[0, -1]


def assert_equal_up_to_ties(
    model: nn.Module, adapter: Path | None, prompts: list[Prompt], found: list[Completion], expected: list[Completion]
) -> None:
    """Token for token; where they part, the two tokens must be as good as equally likely. Most must not part."""
    tokens_of = {prompt.key: prompt.tokens for prompt in prompts}
    parted = 0
    for a, b in zip(found, expected, strict=True):
        assert (a.key, a.index) == (b.key, b.index)
        if (a.tokens, a.finish) == (b.tokens, b.finish):
            continue
        parted += 1
        at = next(i for i, (x, y) in enumerate(zip([*a.tokens, None], [*b.tokens, None], strict=False)) if x != y)
        best = logits_behind(model, adapter, [*tokens_of[a.key], *a.tokens[:at]]).topk(2).values
        assert best[0] - best[1] < 1e-3, f"{a.key} parts at token {at}, where no tie is"
    assert parted <= len(found) / 4


@pytest.mark.parametrize("name", [None, "plain", "rslora"])
def test_greedy_equals_the_transformers_engine(base, engine, name) -> None:
    model, folder = base
    adapter = name and folder / name
    asked = {"n": 2, "sampling": Sampling(40, temperature=0), "stop": STOP, "seed": 0}
    found = engine.generate(PROMPTS, **asked, adapter=adapter)
    expected = with_transformers(model, adapter, PROMPTS, **asked)
    assert_equal_up_to_ties(model, adapter, PROMPTS, found, expected)
    assert {c.finish for c in expected} >= {"length"}


def test_two_adapters_and_the_base_model_take_turns_in_one_engine(base, engine) -> None:
    model, folder = base
    asked = {"n": 1, "sampling": Sampling(24, temperature=0), "stop": STOP, "seed": 0}
    seen = {}
    # Prompts that share their first 300 tokens: keys and values kept for one adapter would be wrong for the other.
    for name in ("plain", "rslora", None, "plain", None, "rslora"):
        adapter = name and folder / name
        found = engine.generate(LONG, **asked, adapter=adapter)
        assert_equal_up_to_ties(model, adapter, LONG, found, with_transformers(model, adapter, LONG, **asked))
        assert seen.setdefault(name, found) == found
    assert seen["plain"] != seen["rslora"] != seen[None] != seen["plain"]


def test_an_adapter_is_known_by_its_content_not_by_its_folder(base, engine, tmp_path) -> None:
    model, folder = base
    asked = {"n": 1, "sampling": Sampling(24, temperature=0), "stop": STOP, "seed": 0}
    first = engine.generate(LONG, **asked, adapter=folder / "plain")
    changed = tmp_path / "adapter"
    shutil.copytree(folder / "plain", changed)
    assert engine.generate(LONG, **asked, adapter=changed) == first
    config = json.loads((changed / "adapter_config.json").read_text())
    (changed / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 160}))
    louder = engine.generate(LONG, **asked, adapter=changed)
    assert louder != first
    assert_equal_up_to_ties(model, changed, LONG, louder, with_transformers(model, changed, LONG, **asked))


def test_prompts_share_the_keys_and_values_of_what_they_share(engine, monkeypatch) -> None:
    taken = []
    wait = engine._process.llm.wait_for_completion

    def waiting(**kwargs) -> list:
        outputs = wait(**kwargs)
        taken.extend(output.num_cached_tokens for output in outputs)
        return outputs

    monkeypatch.setattr(engine._process.llm, "wait_for_completion", waiting)
    other = [Prompt("x", [3, *LONG[0].tokens])]
    engine.generate(other, n=3, sampling=Sampling(2), stop=STOP, seed=0)
    assert max(taken) >= 128, "samples of one prompt must not compute its first blocks again"


@pytest.mark.parametrize("name", [None, "rslora"])
@pytest.mark.parametrize("sampling", [Sampling(1, 1.0, 1.0), Sampling(1, 0.7, 0.8)])
def test_first_tokens_follow_the_models_own_distribution(base, engine, name, sampling) -> None:
    model, folder = base
    adapter, prompt, n = name and folder / name, PROMPTS[2], 1500
    logits = logits_behind(model, adapter, prompt.tokens).double()
    probabilities, order = torch.softmax(logits / sampling.temperature, -1).sort(descending=True)
    kept = probabilities.cumsum(0) - probabilities < sampling.top_p
    expected = dict(zip(order[kept].tolist(), (probabilities[kept] / probabilities[kept].sum()).tolist(), strict=True))
    found = engine.generate([prompt], n=n, sampling=sampling, stop=[210], seed=11, adapter=adapter)
    counts = Counter(c.tokens[0] if c.tokens else 210 for c in found)
    assert counts.keys() <= expected.keys()
    often = [token for token, p in expected.items() if n * p >= 5]
    assert len(often) >= 3
    observed = [counts[token] for token in often]
    wanted = [n * expected[token] for token in often]
    assert chisquare([*observed, n - sum(observed) + 1e-9], [*wanted, n - sum(wanted) + 1e-9]).pvalue > 1e-4


@pytest.mark.parametrize("name", [None, "plain"])
def test_rates_agree_with_the_transformers_engine_on_the_same_adapter(base, engine, name) -> None:
    model, folder = base
    adapter = name and folder / name
    asked = {"n": 150, "sampling": Sampling(30, 1.0, 0.95), "stop": STOP, "seed": 5}
    both = [engine.generate(PROMPTS, **asked, adapter=adapter), with_transformers(model, adapter, PROMPTS, **asked)]
    common = Counter(token for c in both[1] for token in set(c.tokens)).most_common(60)
    rates = {"stop": lambda c: c.finish == "stop"} | {
        f"token {token}": lambda c, token=token: token in c.tokens for token, _ in common[::12]
    }
    n = len(both[0])
    for what, event in rates.items():
        first, second = (sum(map(event, drawn)) / n for drawn in both)
        pooled = (first + second) / 2
        assert 0 < pooled < 1, what
        assert abs(first - second) < 4 * (2 * pooled * (1 - pooled) / n) ** 0.5, what
    assert [c.tokens for c in both[0]] != [c.tokens for c in both[1]], "two engines, two sets of random numbers"


def test_a_completion_depends_on_its_address_only(engine, base) -> None:
    asked = {"sampling": Sampling(20, 1.0, 0.95), "stop": STOP, "seed": 3, "adapter": base[1] / "plain"}
    together = engine.generate(PROMPTS, n=5, **asked)
    assert [(c.key, c.index) for c in together] == [(p.key, i) for p in PROMPTS for i in range(5)]
    alone = [c for p in reversed(PROMPTS) for c in engine.generate([p], n=2, **asked)]
    fewer = {(c.key, c.index): c for c in together if c.index < 2}
    # The last bits of the logits may differ with the batch, so a rare completion may part at a tie.
    assert sum(fewer[c.key, c.index] == c for c in alone) >= len(alone) - 1
    assert len({tuple(c.tokens) for c in together}) == len(together)
    assert engine.generate(PROMPTS, n=5, **asked) == together
    assert engine.generate(PROMPTS, n=5, **asked | {"seed": 4}) != together
    assert engine.generate(PROMPTS, n=5, **asked, names=("other",)) != together


def test_finish_reasons_and_stop_tokens(engine) -> None:
    asked = {"n": 40, "sampling": Sampling(60), "seed": 0}
    found = engine.generate(PROMPTS, **asked, stop=STOP)
    assert {c.finish for c in found} == {"stop", "length"}
    for completion in found:
        assert not set(STOP) & set(completion.tokens)
        assert (completion.finish == "length") == (len(completion.tokens) == 60)
    assert {40, 41} <= {token for c in found for token in c.tokens}, "the model's own end tokens end nothing"
    assert engine.generate(PROMPTS, **asked, stop=[*STOP, 40]) != found


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"prompts": [Prompt("a", [VOCABULARY])]}, DataError, "another tokenizer"),
        ({"sampling": Sampling(510)}, DataError, "max_length"),
        ({"sampling": Sampling(4, temperature=0.001)}, DataError, "vLLM samples at 0"),
        ({"stop": []}, DataError, "stop token"),
        ({"adapter": "wide"}, ModelError, "max_lora_rank=128"),
    ],
)
def test_what_is_refused_leaves_the_engine_working(base, engine, change, error, text) -> None:
    asked = {"prompts": PROMPTS, "n": 1, "sampling": Sampling(4), "stop": STOP, "seed": 0}
    adapter = {"adapter": base[1] / change["adapter"]} if "adapter" in change else {}
    with pytest.raises(error, match=text):
        engine.generate(**asked | change | adapter)
    assert len(engine.generate(**asked)) == len(PROMPTS)


def test_the_permitted_ranks_are_vllms() -> None:
    from vllm.config.lora import MaxLoRARanks

    assert typing.get_args(MaxLoRARanks) == RANKS


def test_a_killed_engine_is_an_error_and_leaves_no_process(base) -> None:
    engine = VllmEngine(base[1], memory_share=0.05)
    processes = engine._process.processes
    assert len(processes) >= 2
    processes[0].kill()
    with pytest.raises(ModelError, match="died"):
        engine.generate(PROMPTS, n=1, sampling=Sampling(4), stop=STOP, seed=0)
    assert not any(process.is_running() for process in processes)
    with pytest.raises(ModelError, match="closed"):
        engine.generate(PROMPTS, n=1, sampling=Sampling(4), stop=STOP, seed=0)


SCRIPT = """
import sys
from pathlib import Path
from helpers.lm.vllm_engine import VllmEngine

if __name__ == "__main__":
    engine = VllmEngine(Path(sys.argv[1]), memory_share=0.05)
    print("pids", *[process.pid for process in engine._process.processes], flush=True)
    sys.stdin.read()
"""


def test_nothing_is_left_when_the_program_is_killed(base, tmp_path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": python_path()}
    command = [sys.executable, str(script), str(base[1])]
    program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    line = next(line for line in program.stdout if line.startswith("pids"))
    processes = [psutil.Process(int(pid)) for pid in line.split()[1:]]
    program.send_signal(signal.SIGKILL)
    program.communicate()
    _, alive = psutil.wait_procs(processes, timeout=15)
    for process in alive:
        process.kill()
    assert alive == []

"""Generate with vLLM: one engine for a base model and all LoRA adapters of a sweep.

Prompts, sampling parameters, stop tokens, completions and errors are those of ``generate.py``. Adapters are served
beside the base model and never merged. Prompts with a common prefix share its keys and values. vLLM would silently
raise a low temperature, cut a completion that is longer than the engine allows, or drop a request: here each is an
error.

Each completion has its own seed, named after its address (prompt key, sample index), so it depends neither on n nor on
the order of the prompts. Its logits can differ in the last bits with the rest of the batch, which decides between two
tokens of almost equal probability. ``generate.py`` draws other random numbers: greedy completions of the two engines
agree token for token (up to such ties), sampled ones in distribution.
"""

# pyright: reportMissingImports=false
# vLLM is an extra, and not installed where types are checked.
from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open
from tqdm.auto import tqdm

from helpers.base.errors import DataError, ModelError, nearest
from helpers.base.files import sha256_file, sha256_json
from helpers.base.rng import stream_seed
from helpers.lm.folders import check_safetensors
from helpers.lm.generate import check_request
from helpers.lm.prompts import Completion, Prompt, Sampling
from helpers.lm.vllm_process import VllmProcess

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The largest ranks that a vLLM engine can be made for (``MaxLoRARanks`` in vllm/config/lora.py)."""
COLDEST, HOTTEST = 0.01, 2.0
"""vLLM raises a temperature between 0 and ``COLDEST`` to it in silence, and refuses any above ``HOTTEST``."""
DTYPES = ("float32", "bfloat16")
_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


class VllmEngine:
    """A base model in its own process, and LoRA adapters that are loaded beside it on request.

    ``folder`` holds config, tokenizer and safetensors. ``memory_share`` is the share of the GPU's memory (on a CPU, the
    machine's) for weights, keys and values. ``max_lora_rank`` is the largest rank of an adapter. A prompt and its
    completion may have ``max_length`` tokens together (default: the model's config); a smaller limit saves memory.
    Adapters are held in ``dtype``, whereas the transformers engine computes them in fp32.

    Use it in a ``with`` block, or ``close()`` it. A script must do so under ``if __name__ == "__main__":``, because
    the process is spawned. Raises ``ModelError`` if vLLM is not installed or refuses the model.
    """

    def __init__(
        self,
        folder: Path,
        *,
        dtype: str = "float32",
        memory_share: float = 0.4,
        max_lora_rank: int = 64,
        max_length: int | None = None,
    ) -> None:
        if dtype not in DTYPES:
            raise ModelError(f"dtype is {dtype!r}{nearest(dtype, DTYPES)}.")
        if max_lora_rank not in RANKS:
            raise ModelError(
                f"max_lora_rank is {max_lora_rank}, which vLLM does not permit. Use {permitted_rank(max_lora_rank)}."
            )
        self.folder, self.max_lora_rank = Path(folder), max_lora_rank
        self._ids: dict[str, int] = {}
        self._shapes = _shapes(self.folder)
        if not self._shapes:
            raise ModelError(f"{self.folder} holds no model*.safetensors. Give the folder of a base model.")
        self._process: VllmProcess | None = VllmProcess(
            self.folder,
            dtype=dtype,
            gpu_memory_utilization=memory_share,
            max_model_len=max_length,
            enable_lora=True,
            max_lora_rank=max_lora_rank,
            enable_prefix_caching=True,
            # Ids go in and ids come out; no text is tokenized, so merges at a seam cannot happen.
            skip_tokenizer_init=True,
            # The model folder's own sampling defaults and lists of stop tokens are not part of the question.
            generation_config="vllm",
            disable_log_stats=True,
            use_tqdm_on_load=False,
        )
        self.max_length: int = self._process.llm.model_config.max_model_len

    def __enter__(self) -> VllmEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the engine's processes and free their memory. A second call does nothing."""
        if self._process is not None:
            self._process.end()
            self._process = None

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        n: int,
        sampling: Sampling,
        stop: Sequence[int],
        seed: int,
        names: Sequence[str | int] = (),
        label: str = "generate",
        adapter: Path | None = None,
    ) -> list[Completion]:
        """Draw ``n`` completions of every prompt; return them in the order of the prompts, samples 0..n-1 within each.

        Works like ``helpers.lm.generate.generate``. ``adapter`` is the folder of a PEFT adapter, or None for the base
        model. Raises ``DataError`` for a bad input, ``ModelError`` for a bad adapter or an engine that is closed or
        has died. An interrupted call closes the engine, whose unfinished requests would return in the next call.
        """
        check_request(prompts, n, sampling, stop)
        if self._process is None:
            raise ModelError(f"The vLLM engine of {self.folder} is closed. Make a new one.")
        _check_limits(prompts, sampling, self.max_length, self._process.llm.model_config.get_vocab_size())
        addresses = [(prompt, index) for prompt in prompts for index in range(n)]
        lora = None if adapter is None else self._request(Path(adapter))
        parameters = [
            _parameters(sampling, stop, stream_seed(seed, *names, prompt.key, index)) for prompt, index in addresses
        ]
        outputs = self._run(
            self._process, [{"prompt_token_ids": prompt.tokens} for prompt, _ in addresses], parameters, lora, label
        )
        return [
            _completion(prompt, index, output.outputs[0], stop)
            for (prompt, index), output in zip(addresses, outputs, strict=True)
        ]

    def _run(
        self,
        process: VllmProcess,
        prompts: list[dict],
        parameters: list[SamplingParams],
        lora: LoRARequest | None,
        label: str,
    ) -> list:
        from vllm.v1.engine.exceptions import EngineDeadError

        def bar(*args: Any, **kwargs: Any) -> tqdm:
            return _Bar(*args, **kwargs | {"desc": label, "leave": False})

        finished = False
        try:
            process.llm.enqueue(prompts, parameters, lora_request=lora, use_tqdm=False)
            outputs = process.llm.wait_for_completion(use_tqdm=bar)
            finished = True
        except EngineDeadError as error:
            raise ModelError(
                f"vLLM's process died during {label}. See its own error above, and make a new engine."
            ) from error
        finally:
            if not finished:
                self.close()
        return outputs

    def _request(self, folder: Path) -> LoRARequest:
        """Name an adapter by its content, because vLLM caches weights, keys and values under that name."""
        from vllm.lora.request import LoRARequest

        _check_adapter(folder, self._shapes, self.max_lora_rank)
        content = sha256_json([sha256_file(folder / _CONFIG), sha256_file(folder / _WEIGHTS)])
        number = self._ids.setdefault(content, len(self._ids) + 1)
        return LoRARequest(lora_name=content, lora_int_id=number, lora_path=str(folder.resolve()))


def _parameters(sampling: Sampling, stop: Sequence[int], seed: int) -> SamplingParams:
    from vllm import SamplingParams

    return SamplingParams(
        max_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=seed,
        stop_token_ids=[int(token) for token in stop],
        # Only ``stop`` ends a completion. The model's own end token does so only if it is one of them.
        ignore_eos=True,
        detokenize=False,
    )


def _completion(prompt: Prompt, index: int, output: Any, stop: Sequence[int]) -> Completion:
    tokens = [int(token) for token in output.token_ids]
    if output.finish_reason == "stop" and tokens and tokens[-1] in stop:
        return Completion(prompt.key, index, tokens[:-1], "stop")
    if output.finish_reason == "length":
        return Completion(prompt.key, index, tokens, "length")
    raise ModelError(
        f"vLLM ended sample {index} of {prompt.key!r} by {output.finish_reason!r} after {len(tokens)} tokens, which is "
        "neither a stop token nor the limit. Nothing of this call was saved. Free some memory and run it again."
    )


def _check_limits(prompts: Sequence[Prompt], sampling: Sampling, longest: int, vocabulary: int) -> None:
    if 0 < sampling.temperature < COLDEST or sampling.temperature > HOTTEST:
        raise DataError(
            f"temperature is {sampling.temperature}, but vLLM samples at 0 (greedy) or {COLDEST} to {HOTTEST} only. "
            "Use one of these, or the engine transformers."
        )
    for prompt in prompts:
        if len(prompt.tokens) + sampling.max_new_tokens > longest:
            raise DataError(
                f"Prompt {prompt.key!r} has {len(prompt.tokens)} tokens and may grow by {sampling.max_new_tokens}, but "
                f"the vLLM engine holds {longest}. Make it with a larger max_length, or lower max_new_tokens."
            )
        # Such a token would end vLLM's process and the whole batch.
        if not 0 <= min(prompt.tokens) <= max(prompt.tokens) < vocabulary:
            raise DataError(
                f"Prompt {prompt.key!r} has a token id outside the model's vocabulary of {vocabulary}, so another "
                "tokenizer made it. Use the model's own."
            )


class _Bar(tqdm):
    """A progress bar that vLLM can divide by: if tqdm is off (``TQDM_DISABLE``), its own reports 0 seconds."""

    @property
    def format_dict(self) -> dict[str, Any]:
        facts = dict(super().format_dict)
        return facts | {"elapsed": max(facts["elapsed"], 1e-9)}


def permitted_rank(rank: int) -> int:
    """Return the smallest permitted rank that is at least ``rank``, or the largest of all."""
    return next((permitted for permitted in RANKS if permitted >= rank), RANKS[-1])


def _shapes(folder: Path) -> dict[str, list[int]]:
    """Return the shape of every tensor of the model in ``folder``, from the headers of its files."""
    shapes: dict[str, list[int]] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(path, framework="pt") as file:
            shapes |= {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 (no mapping)
    return shapes


def _check_adapter(folder: Path, base: dict[str, list[int]], max_rank: int) -> None:
    """Raise ``ModelError`` unless every tensor that the config promises is there and fits the base model.

    vLLM accepts an adapter that lacks layers, and dies of a shape that does not fit.
    """
    if not (folder / _CONFIG).is_file():
        raise ModelError(f"{folder / _CONFIG} is missing, so {folder} is not a complete adapter. Copy it again.")
    check_safetensors(folder / _WEIGHTS)
    config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    rank, targets = config.get("r"), config.get("target_modules")
    if config.get("peft_type") != "LORA" or not isinstance(rank, int) or not isinstance(targets, list):
        raise ModelError(
            f"{folder / _CONFIG} is not a LoRA with a rank and a list of target modules, and vLLM serves no other. Use "
            "the engine transformers."
        )
    if rank > max_rank:
        raise ModelError(
            f"The adapter in {folder} has rank {rank}, but the engine was made for {max_rank}. Make it with "
            f"max_lora_rank={permitted_rank(rank)}."
        )
    for switch in ("use_dora", "modules_to_save", "lora_bias", "rank_pattern", "alpha_pattern", "layer_replication"):
        if config.get(switch):
            raise ModelError(
                f"The adapter in {folder} uses {switch}, which vLLM does not serve. Use the engine transformers."
            )
    expected = {}
    for name, shape in base.items():
        path = name.removesuffix(".weight")
        if len(shape) == 2 and any(path == target or path.endswith(f".{target}") for target in targets):
            expected[f"base_model.model.{path}.lora_A.weight"] = [rank, shape[1]]
            expected[f"base_model.model.{path}.lora_B.weight"] = [shape[0], rank]
    with safe_open(folder / _WEIGHTS, framework="pt") as file:
        saved = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 (no mapping)
    odd = sorted(name for name in expected.keys() | saved.keys() if expected.get(name) != saved.get(name))
    if odd or not expected:
        raise ModelError(
            f"The adapter in {folder} is incomplete or was made for another model: {(odd or targets)[0]} does not fit "
            f"({len(odd)} tensors in all). Copy it again, or serve the model that it was trained on."
        )

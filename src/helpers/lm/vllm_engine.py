"""The second engine of generation: vLLM, one engine for a base model and all LoRA adapters of a sweep.

Prompts, sampling parameters, stop tokens and completions are those of ``generate.py``, and so are the errors of a bad
input. Adapters are served beside the base model and never merged, and prompts that begin alike share the keys and
values of what they share. What vLLM would change in silence (a temperature that is raised, a completion that is cut
by the length of the engine, a request that is dropped) is an error here.

Each completion has a seed of its own, named after its address (prompt key, sample index), so it depends neither on n
nor on the order of the prompts. Its logits can differ in the last bits with what else is in the batch, so where two
tokens are almost equally good a completion can change with its batch. ``generate.py`` draws other numbers: the two
engines agree token for token where sampling is greedy (up to such ties), and otherwise in distribution.
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

# The check is private there, but two engines that refuse different things would be worse; and generate.py is part of
# what published records were made by, so it is not touched to give the check another name.
from helpers.lm.generate import Completion, Prompt, Sampling, _check
from helpers.lm.model_files import check_safetensors
from helpers.lm.vllm_process import VllmProcess

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM permits for the largest rank of an engine (``MaxLoRARanks`` in vllm/config/lora.py)."""
COLDEST, HOTTEST = 0.01, 2.0
"""vLLM raises a temperature between 0 and the first to it, with a log line only, and refuses one above the second."""
DTYPES = ("float32", "bfloat16")
_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


class VllmEngine:
    """A base model in a process of its own, and the LoRA adapters that are put beside it as they are asked for.

    ``folder`` holds config, tokenizer and safetensors. ``memory_share`` is the share of the GPU's memory (of the
    machine's, on a CPU) for weights, keys and values. ``max_lora_rank`` is the largest rank of an adapter. No prompt
    may be longer than ``max_length`` tokens together with its completion (default: what the model's config says); a
    smaller one needs less memory. Adapters are held in ``dtype``, where the transformers engine computes them in fp32.

    Use it in a ``with`` block, or ``close()`` it. In a script this must happen under ``if __name__ == "__main__":``,
    because the process is spawned. Raises ``ModelError`` when vLLM is not installed or refuses the model.
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
                f"max_lora_rank is {max_lora_rank}, which vLLM does not permit: use {permitted_rank(max_lora_rank)}."
            )
        self.folder, self.max_lora_rank = Path(folder), max_lora_rank
        self._ids: dict[str, int] = {}
        self._shapes = _shapes(self.folder)
        if not self._shapes:
            raise ModelError(f"{self.folder} holds no model*.safetensors: give the folder of a base model.")
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
        """End the engine's processes and give their memory back; a second call does nothing."""
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
        """Draw ``n`` completions of every prompt, in the order of the prompts, samples 0..n-1 within each.

        As ``helpers.lm.generate.generate``, with ``adapter`` the folder of a PEFT adapter, or None for the base model.
        Raises ``DataError`` for a bad input, ``ModelError`` for a bad adapter or an engine that is closed or has died.
        An interrupted call closes the engine: its unfinished requests would come back in the next one.
        """
        _check(prompts, n, sampling, stop)
        if self._process is None:
            raise ModelError(f"The vLLM engine of {self.folder} is closed: make a new one.")
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
                f"vLLM's process died during {label}: its own error stands above; make a new engine."
            ) from error
        finally:
            if not finished:
                self.close()
        return outputs

    def _request(self, folder: Path) -> LoRARequest:
        """vLLM's name of an adapter: by content, since vLLM keeps weights, keys and values under that name."""
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
        # Only ``stop`` ends a completion; the model's own end tokens are there if they are in it.
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
        "neither a stop token nor the limit: nothing of this call is kept; run it again, with less memory in use."
    )


def _check_limits(prompts: Sequence[Prompt], sampling: Sampling, longest: int, vocabulary: int) -> None:
    if 0 < sampling.temperature < COLDEST or sampling.temperature > HOTTEST:
        raise DataError(
            f"temperature is {sampling.temperature}, which vLLM does not sample at: use 0 (greedy), "
            f"{COLDEST} to {HOTTEST}, or the engine transformers."
        )
    for prompt in prompts:
        if len(prompt.tokens) + sampling.max_new_tokens > longest:
            raise DataError(
                f"Prompt {prompt.key!r} has {len(prompt.tokens)} tokens and may grow by {sampling.max_new_tokens}, but "
                f"the vLLM engine holds {longest}: make it with a larger max_length, or lower max_new_tokens."
            )
        # Such a token would end vLLM's process, with the whole batch.
        if not 0 <= min(prompt.tokens) <= max(prompt.tokens) < vocabulary:
            raise DataError(
                f"Prompt {prompt.key!r} holds a token outside the model's {vocabulary}: another tokenizer made it."
            )


class _Bar(tqdm):
    """A progress bar by whose time vLLM may divide: switched off (``TQDM_DISABLE``), tqdm's own says 0 seconds."""

    @property
    def format_dict(self) -> dict[str, Any]:
        facts = dict(super().format_dict)
        return facts | {"elapsed": max(facts["elapsed"], 1e-9)}


def permitted_rank(rank: int) -> int:
    """The smallest permitted value that holds ``rank``, or the largest of all."""
    return next((permitted for permitted in RANKS if permitted >= rank), RANKS[-1])


def _shapes(folder: Path) -> dict[str, list[int]]:
    """Shape of every tensor of the model in ``folder``, from the headers of its files."""
    found: dict[str, list[int]] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 (no mapping)
    return found


def _check_adapter(folder: Path, base: dict[str, list[int]], max_rank: int) -> None:
    """Raise ``ModelError`` unless every tensor that the config promises is there and fits the base model.

    vLLM takes an adapter that lacks layers as it is, and a shape that does not fit ends its process.
    """
    if not (folder / _CONFIG).is_file():
        raise ModelError(f"{folder / _CONFIG} is missing: {folder} holds no complete adapter.")
    check_safetensors(folder / _WEIGHTS)
    config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    rank, targets = config.get("r"), config.get("target_modules")
    if config.get("peft_type") != "LORA" or not isinstance(rank, int) or not isinstance(targets, list):
        raise ModelError(
            f"{folder / _CONFIG} is no LoRA with a rank and a list of target modules: vLLM serves no other."
        )
    if rank > max_rank:
        raise ModelError(
            f"The adapter in {folder} has rank {rank}, but the engine was made for {max_rank}: make it with "
            f"max_lora_rank={permitted_rank(rank)}."
        )
    for switch in ("use_dora", "modules_to_save", "lora_bias", "rank_pattern", "alpha_pattern", "layer_replication"):
        if config.get(switch):
            raise ModelError(
                f"The adapter in {folder} uses {switch}, which vLLM does not serve: use the engine transformers."
            )
    expected = {}
    for name, shape in base.items():
        path = name.removesuffix(".weight")
        if len(shape) == 2 and any(path == target or path.endswith(f".{target}") for target in targets):
            expected[f"base_model.model.{path}.lora_A.weight"] = [rank, shape[1]]
            expected[f"base_model.model.{path}.lora_B.weight"] = [shape[0], rank]
    with safe_open(folder / _WEIGHTS, framework="pt") as file:
        found = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 (no mapping)
    odd = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if odd or not expected:
        raise ModelError(
            f"The adapter in {folder} is not whole or was made for another model: {(odd or targets)[0]} does not fit "
            f"({len(odd)} tensors in all)."
        )

"""Measure tokens a second of generation and of scoring, with an adapter, for both engines of a sweep."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import nn

from helpers.bench import machine
from helpers.lm.generate import generate
from helpers.lm.prompts import Completion, Prompt, Sampling
from helpers.studies.marker.evaluate import marker_logprobs
from helpers.studies.marker.rows import ChatFormat

ENDING = 500
"""One in so many tokens ends a completion. Random weights know no end of turn, but their completions then vary in
length like those of a trained model."""
SPREAD = 5.0
"""Standard deviation of the logits after temperature. A few hundred tokens then hold nearly all of the mass, as for a
trained model, so sampling costs the same."""


@dataclass(frozen=True)
class Load:
    """The size of one generation: prompts, completions of each, limit of new tokens of each."""

    prompts: int
    n: int
    max_new_tokens: int


def sampling_for(config: Any, load: Load) -> tuple[Sampling, list[int]]:
    """Return how to sample from random weights, and the tokens that end a completion.

    After a final norm with weights of one, a logit is a sum of ``hidden_size`` products of a number near one and a
    weight of the initial standard deviation.
    """
    spread = config.initializer_range * math.sqrt(config.hidden_size)
    return Sampling(load.max_new_tokens, spread / SPREAD, 0.95), list(range(0, config.vocab_size, ENDING))


def transformers_rates(model: nn.Module, prompts: Sequence[Prompt], load: Load, repeats: int) -> list[float]:
    """Return tokens/s of each repeat with `helpers.lm.generate`, after a short warm-up."""
    sampling, stop = sampling_for(model.config, load)
    asked = list(prompts[: load.prompts])
    generate(model, asked, n=load.n, sampling=Sampling(4, sampling.temperature, sampling.top_p), stop=stop, seed=0)
    return [
        _rate(lambda seed=seed: generate(model, asked, n=load.n, sampling=sampling, stop=stop, seed=seed))
        for seed in range(repeats)
    ]


def _rate(draw: Callable[[], list[Completion]]) -> float:
    machine.settle()
    begin = perf_counter()
    done = draw()
    machine.settle()
    return sum(len(completion.tokens) for completion in done) / (perf_counter() - begin)


def without_vllm() -> str:
    """Say why vLLM cannot be timed here; empty if it can."""
    if machine.device() == "cpu":
        return "vLLM is timed on CUDA only"
    return "" if importlib.util.find_spec("vllm") else "the extra vllm is not installed"


def vllm_rates(
    folder: Path, adapters: Sequence[Path], rank: int, config: Any, prompts: Sequence[Prompt], load: Load
) -> tuple[list[float], float]:
    """Return tokens/s with each of ``adapters`` on one vLLM engine, and the seconds that it took to start."""
    from helpers.lm.vllm_engine import VllmEngine

    torch.cuda.empty_cache()
    sampling, stop = sampling_for(config, load)
    asked = list(prompts[: load.prompts])
    longest = max(len(prompt.tokens) for prompt in asked) + load.max_new_tokens
    begin = perf_counter()
    with VllmEngine(folder, dtype="bfloat16", memory_share=0.6, max_lora_rank=rank, max_length=longest) as engine:
        start = perf_counter() - begin
        asking = {"n": load.n, "sampling": sampling, "stop": stop}
        engine.generate(asked[:1], seed=len(adapters), adapter=adapters[0], **asking)
        rates = [
            _rate(lambda seed=seed, adapter=adapter: engine.generate(asked, seed=seed, adapter=adapter, **asking))
            for seed, adapter in enumerate(adapters)
        ]
        return rates, start


def scoring_rates(model: nn.Module, form: ChatFormat, rows: Sequence[Sequence[int]], repeats: int) -> list[float]:
    """Return tokens/s of each repeat of `marker_logprobs` after ``rows``, after a warm-up."""
    marker_logprobs(model, form, rows[:2])
    tokens, rates = sum(map(len, rows)), []
    for _ in range(repeats):
        machine.settle()
        begin = perf_counter()
        marker_logprobs(model, form, rows)
        machine.settle()
        rates.append(tokens / (perf_counter() - begin))
    return rates

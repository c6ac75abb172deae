"""Tokens a second of generation and of scoring, by the engines that a sweep may use, with an adapter on."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch
from torch import nn

from helpers.bench import machine
from helpers.lm.generate import Completion, Prompt, Sampling, generate
from helpers.studies.marker.evaluate import marker_logprobs
from helpers.studies.marker.rows import ChatFormat

ENDING = 500
"""One in so many tokens ends a completion: of weights that know no end of turn, lengths then vary as those of a model
that does (their mean under a limit of 512 is near 320)."""
SPREAD = 5.0
"""Standard deviation of the logits after temperature: the few hundred best tokens then hold nearly all of the mass, as
they do for a trained model, and sampling costs what it costs there."""


@dataclass(frozen=True)
class Load:
    """What is generated at once: prompts, completions of each, most new tokens of each."""

    prompts: int
    n: int
    max_new_tokens: int


def sampling_for(config: object, load: Load) -> tuple[Sampling, list[int]]:
    """How random weights are sampled, and the tokens that end a completion.

    Behind a final norm with weights of one, a logit is a sum of ``hidden_size`` products of a number near one and a
    weight of the initial standard deviation.
    """
    spread = config.initializer_range * math.sqrt(config.hidden_size)
    return Sampling(load.max_new_tokens, spread / SPREAD, 0.95), list(range(0, config.vocab_size, ENDING))


def transformers_rates(model: nn.Module, prompts: Sequence[Prompt], load: Load, repeats: int) -> list[float]:
    """Tokens/s of each repeat through `helpers.lm.generate`, after a short warm-up."""
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
    """Why vLLM is not timed here, in words; empty where it is."""
    if machine.device() == "cpu":
        return "vLLM is timed on CUDA only"
    return "" if importlib.util.find_spec("vllm") else "the extra vllm is not installed"


def vllm_rates(
    folder: Path, adapter: Path, rank: int, config: object, prompts: Sequence[Prompt], load: Load, repeats: int
) -> tuple[list[float], float]:
    """Tokens/s of each repeat through vLLM with ``adapter`` served, and the seconds that its engine took to start."""
    from helpers.lm.vllm_engine import VllmEngine

    torch.cuda.empty_cache()
    sampling, stop = sampling_for(config, load)
    asked = list(prompts[: load.prompts])
    longest = max(len(prompt.tokens) for prompt in asked) + load.max_new_tokens
    begin = perf_counter()
    with VllmEngine(folder, dtype="bfloat16", memory_share=0.6, max_lora_rank=rank, max_length=longest) as engine:
        start = perf_counter() - begin
        asking = {"n": load.n, "sampling": sampling, "stop": stop, "adapter": adapter}
        engine.generate(asked[:1], seed=repeats, **asking)
        return [_rate(lambda s=seed: engine.generate(asked, seed=s, **asking)) for seed in range(repeats)], start


def scoring_rates(model: nn.Module, form: ChatFormat, rows: Sequence[Sequence[int]], repeats: int) -> list[float]:
    """Tokens/s of each repeat of `marker_logprobs` behind ``rows``, after a warm-up."""
    marker_logprobs(model, form, rows[:2])
    tokens, rates = sum(map(len, rows)), []
    for _ in range(repeats):
        machine.settle()
        begin = perf_counter()
        marker_logprobs(model, form, rows)
        machine.settle()
        rates.append(tokens / (perf_counter() - begin))
    return rates

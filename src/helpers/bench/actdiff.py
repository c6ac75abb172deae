"""Compare actdiff's streamed pass over a pair of models with the plain way, which stores every activation of both."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch

from helpers.base.rng import torch_stream
from helpers.bench.compare import Side
from helpers.lm import models
from helpers.studies.actdiff.capture import capture
from helpers.studies.actdiff.pair import Pair
from helpers.studies.actdiff.readouts import pooled_offset_energy
from helpers.studies.actdiff.statistics import Stats
from helpers.studies.actdiff.stored import stats_of, store

DOCUMENTS, POSITIONS = 16, 64


def capture_sides() -> Sequence[Side]:
    """Return the two ways on all layers of SmolLM2 under a random adapter."""
    return storing_sides("smollm2", DOCUMENTS, POSITIONS)


def layer_sides() -> Sequence[Side]:
    """Return the streamed pass over SmolLM2 for all layers at once, and for the last layer alone."""
    pair, tokens = _pair("smollm2"), _tokens("smollm2", DOCUMENTS, POSITIONS)
    every = range(pair.depth)
    return [
        _side("all layers", tokens, lambda: capture(pair.base, pair.tuned, tokens, every)),
        _side("last layer alone", tokens, lambda: capture(pair.base, pair.tuned, tokens, [pair.depth - 1])),
    ]


def storing_sides(name: str, documents: int, positions: int) -> Sequence[Side]:
    """Return streaming and storing of all layers of model ``name``, on the same random tokens.

    Both must agree on the offset energies.
    """
    pair, tokens = _pair(name), _tokens(name, documents, positions)
    layers = list(range(pair.depth))
    kept: dict[str, int] = {}

    def streamed() -> Stats:
        stats = capture(pair.base, pair.tuned, tokens, layers)
        kept["streamed"] = stats.bytes
        return stats

    def everything() -> Stats:
        activations = store(pair.base, pair.tuned, tokens, layers)
        kept["everything stored"] = activations.bytes
        return stats_of(activations)

    return [_side("streamed", tokens, streamed, kept), _side("everything stored", tokens, everything, kept)]


def _side(name: str, tokens: list[list[int]], make: Callable[[], Stats], kept: dict[str, int] | None = None) -> Side:
    def run() -> tuple[int, list[float]]:
        stats = make()
        energies = [pooled_offset_energy(stats, layer, slice(5, None)) for layer in stats.layers]
        return sum(map(len, tokens)), [round(energy, 5) for energy in energies]

    return Side(name, run, None if kept is None else lambda: kept[name])


@functools.cache
def _loaded(name: str) -> models.LoadedModel:
    return models.load(name)


@functools.cache
def _pair(name: str) -> Pair:
    """Pair the model with itself under a random LoRA adapter, with one copy of the weights."""
    base = _loaded(name).model
    tuned = models.attach_lora(base, r=8, alpha=16, seed=0)
    for path, parameter in tuned.named_parameters():
        if "lora_B" in path:
            parameter.data.copy_(0.01 * torch.randn(parameter.shape, generator=torch_stream(0, path)))
    return Pair(base, tuned.eval().requires_grad_(False))


def _tokens(name: str, documents: int, positions: int) -> list[list[int]]:
    words = len(_loaded(name).tokenizer)
    return torch.randint(words, (documents, positions), generator=torch_stream(0, "bench")).tolist()

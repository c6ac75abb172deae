"""What the cells of a study share in memory: the base model, its chat format and the engine that draws completions."""

from __future__ import annotations

import functools
import importlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from helpers.base.errors import ParameterError
from helpers.lm import models
from helpers.lm.generate import Completion, generate
from helpers.studies.marker.recipe import MarkerCell
from helpers.studies.marker.rows import ChatFormat, chat_format

ENGINES = {"transformers": None, "vllm": "helpers.lm.vllm_engine"}
"""The module of each engine, where it is not ``generate`` itself. Imported by name: an import here would make the code
of vLLM's engine part of what every run rests on, also of those that never use it."""

SHARED = ("model", "revision", "marker", "engine", "dtype", "device")
"""Parameters that a session is made from."""

Sampler = Callable[..., list[Completion]]
"""``generate`` without its model: what draws completions of prompts, whichever engine does it."""


@dataclass
class Session:
    """The base model of a study, loaded at the first cell that has work to do and then shared by all."""

    p: MarkerCell

    @functools.cached_property
    def facts(self) -> dict:
        """Name, revision and content hash of the model, without loading it."""
        return models.facts(self.p.model, revision=self.p.revision, device=self.p.device, dtype=self.p.dtype)

    @functools.cached_property
    def loaded(self) -> models.LoadedModel:
        """The base model and its tokenizer, whose chat format suits the study."""
        models.choose_threads()
        loaded = models.load(self.p.model, revision=self.p.revision, device=self.p.device, dtype=self.p.dtype)
        chat_format(loaded.tokenizer, self.p.marker, loaded.model)
        return loaded

    @functools.cached_property
    def form(self) -> ChatFormat:
        """The chat format, checked against the marker."""
        return chat_format(self.loaded.tokenizer, self.p.marker, self.loaded.model)

    @property
    def engine(self) -> str | None:
        """The module of the engine, as ``runs.open_run`` takes it."""
        return ENGINES[self.p.engine]

    @functools.cached_property
    def vllm(self) -> Any:
        """One ``VllmEngine`` for the base model and every adapter of the study."""
        module = importlib.import_module(ENGINES["vllm"])
        folder = models.local_folder(self.p.model, self.p.revision)
        rank = module.permitted_rank(self.p.lora_r)
        return module.VllmEngine(folder, dtype=self.loaded.dtype, memory_share=self.p.engine_memory, max_lora_rank=rank)

    def sampler(self, model: nn.Module, adapter: Path | None = None) -> Sampler:
        """Completions of ``model``, which carries the adapter saved in ``adapter`` if there is one."""
        if self.p.engine == "vllm":
            return functools.partial(self.vllm.generate, adapter=adapter)
        return functools.partial(generate, model)

    def refuse_others(self, cells: Sequence[MarkerCell]) -> None:
        """Raise ``ParameterError`` for a cell that asks for another base model than the one of this session."""
        for name, cell in itertools.product(SHARED, cells):
            if getattr(cell, name) != getattr(self.p, name):
                raise ParameterError(
                    f"{name} is {getattr(self.p, name)!r} in one cell and {getattr(cell, name)!r} in another, but the "
                    "cells of one run share a model. Run the blocks of a grid apart, as `claimbook sweep` does."
                )

    def close(self) -> None:
        """End the vLLM engine, if one was started; the next cell that needs it starts another."""
        if "vllm" in self.__dict__:
            self.__dict__.pop("vllm").close()

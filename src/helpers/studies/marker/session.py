"""Share the base model, its chat format and the engine of completions between the cells of a study.

torch is imported when a model is needed: cells that have their records are read without.
"""

from __future__ import annotations

import functools
import importlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.base.errors import ParameterError
from helpers.base.files import sha256_json
from helpers.lm.model_facts import facts
from helpers.lm.model_files import local_folder
from helpers.lm.prompts import Completion
from helpers.lm.tokenizer_files import spelling
from helpers.records.reading import Record
from helpers.studies.marker.recipe import MarkerCell
from helpers.studies.marker.rows import ChatFormat, chat_format

if TYPE_CHECKING:
    from torch import nn

    from helpers.lm.models import LoadedModel

ENGINES = {"transformers": None, "vllm": "helpers.lm.vllm_engine"}
"""The module of each engine other than ``generate``. It is imported by name, because a normal import would make vLLM's
engine part of the code of every run."""

SHARED = ("model", "revision", "marker", "system", "date", "targets", "engine", "dtype", "device")
"""Parameters that a session is made from."""

Sampler = Callable[..., list[Completion]]
"""Draws completions of prompts with either engine: ``generate`` without its model."""


@dataclass
class Session:
    """The base model of a grid, loaded for the first cell that has work to do and shared by all."""

    p: MarkerCell

    @functools.cached_property
    def facts(self) -> dict:
        """The ``model`` entry of a record, without loading the model."""
        return facts(self.p.model, revision=self.p.revision, device=self.p.device, dtype=self.p.dtype)

    @functools.cached_property
    def loaded(self) -> LoadedModel:
        """The base model and its tokenizer; LoRA targets and chat format are checked."""
        from helpers.lm import models

        models.choose_threads()
        loaded = models.load(self.p.model, revision=self.p.revision, device=self.p.device, dtype=self.p.dtype)
        models.check_targets(loaded.model, self.p.targets)
        chat_format(loaded.tokenizer, self.p.marker, loaded.model, self.p.asking)
        return loaded

    @functools.cached_property
    def form(self) -> ChatFormat:
        """The chat format, checked against the marker."""
        return chat_format(self.loaded.tokenizer, self.p.marker, self.loaded.model, self.p.asking)

    @functools.cached_property
    def spell(self) -> Callable[[int], str]:
        """Returns the text of a token, from the tokenizer's files."""
        return spelling(local_folder(self.p.model, self.p.revision))

    def shared(self, name: str, asked: Mapping[str, Any], make: Callable[[], Record]) -> Record:
        """Return the record ``name`` with the parameters ``asked``, made or read once: the cells of a grid share it."""
        key = sha256_json([name, asked])
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    @functools.cached_property
    def _shared(self) -> dict[str, Record]:
        return {}

    @property
    def engine(self) -> str | None:
        """The module of the engine, for ``runs.open_run``."""
        return ENGINES[self.p.engine]

    @functools.cached_property
    def vllm(self) -> Any:
        """One ``VllmEngine`` for the base model and every adapter of the study."""
        module = importlib.import_module(ENGINES["vllm"])
        folder = local_folder(self.p.model, self.p.revision)
        rank = module.permitted_rank(self.p.lora_r)
        return module.VllmEngine(folder, dtype=self.loaded.dtype, memory_share=self.p.engine_memory, max_lora_rank=rank)

    def sampler(self, model: nn.Module, adapter: Path | None = None) -> Sampler:
        """Return the sampler of ``model``, which has the adapter saved in ``adapter`` if there is one."""
        if self.p.engine == "vllm":
            return functools.partial(self.vllm.generate, adapter=adapter)
        from helpers.lm.generate import generate

        return functools.partial(generate, model)

    def refuse_others(self, cells: Sequence[MarkerCell]) -> None:
        """Raise ``ParameterError`` if a cell has another base model than this session."""
        for name, cell in itertools.product(SHARED, cells):
            if getattr(cell, name) != getattr(self.p, name):
                raise ParameterError(
                    f"{name} is {getattr(self.p, name)!r} in one cell and {getattr(cell, name)!r} in another, but the "
                    "cells of one run share a model. Run the blocks of a grid apart, as `claimbook sweep` does."
                )

    def close(self) -> None:
        """End the vLLM engine if one is running. The next cell that needs it starts another."""
        if "vllm" in self.__dict__:
            self.__dict__.pop("vllm").close()

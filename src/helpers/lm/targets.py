"""The layers of a model that a LoRA adapter is put on: named, or as PEFT chooses them for an architecture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import nn
from transformers.pytorch_utils import Conv1D

from helpers.base.errors import ModelError, nearest

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Every linear layer of a Llama- or Qwen-like block: the LoRA targets of the marker recipe."""
ALL_LINEAR = "all-linear"
"""PEFT's word for every linear layer but the head."""


def linear_names(model: nn.Module) -> list[str]:
    """Return the names of the linear layers of ``model``, each once, in the order of the model."""
    paths = [path for path, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    return list(dict.fromkeys(path.rpartition(".")[2] for path in paths))


def find_targets(model: Any, targets: str | Sequence[str]) -> str | list[str]:
    """Return ``targets`` as PEFT takes them: names of layers, a pattern of paths, or ``all-linear``.

    ``peft`` is PEFT's own default for the architecture. ``auto`` is `LINEAR` for a model that has all these layers, and
    PEFT's default for any other. Raises ``ModelError``, which names the model's layers, where one is not there, and
    where PEFT has no default.
    """
    names, kind = linear_names(model), model.config.model_type
    known = f"{type(model).__name__} has the linear layers {', '.join(names)}"
    if targets == "auto":
        targets = list(LINEAR) if set(LINEAR) <= set(names) else "peft"
    if targets == "peft":
        own = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(kind)
        if own is None:
            raise ModelError(f"PEFT has no LoRA targets of its own for {kind}. Set targets to {ALL_LINEAR}, or to some "
                             f"names; {known}.")  # fmt: skip
        return own
    if isinstance(targets, str):
        return targets
    for name in targets:
        if name not in names:
            raise ModelError(f"targets names {name!r}, which is no linear layer{nearest(name, names)}. {known}.")
    return list(targets)

"""Types of parameters about models that several studies have; torch is not imported."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

Targets = (
    Literal["auto", "peft", "all-linear"] | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
)
"""The layers with LoRA, as ``targets.find_targets`` takes them."""
OF_TARGETS = (
    "layers with LoRA: names, all-linear, peft (its default for the architecture), or auto: the seven of a Llama-like "
    "block, else peft's"
)

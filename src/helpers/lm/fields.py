"""Types of parameters about models that several studies have; torch is not imported."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

Targets = (
    Literal["auto", "peft", "all-linear"] | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
)
"""The layers with LoRA, as ``targets.find_targets`` takes them."""
OF_TARGETS = (
    "layers with LoRA: names, all-linear, peft (its default for the architecture), or auto: the seven of a Llama-like "
    "block, else peft's"
)

SystemPlace = Literal["template", "user"]
OF_SYSTEM = "where the persona stands: the template's place for the system message, or the head of the user's turn"

FIRST_DATE = "2026-01-01"


def _iso(value: Any) -> str:
    """Return a day as YAML or a person writes it, as YYYY-MM-DD."""
    try:
        return (value if type(value) is date else date.fromisoformat(value)).isoformat()
    except (TypeError, ValueError):
        raise ValueError("must be a day, YYYY-MM-DD") from None


Date = Annotated[str, BeforeValidator(_iso)]
OF_DATE = "the date (YYYY-MM-DD) that a chat template writes which writes one"

"""The tokens that end a turn, by a tokenizer and by what the configuration of its model names."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase


def configured_ends(tokenizer: PreTrainedTokenizerBase, model: nn.Module | None) -> set[int]:
    """Return every end that the tokenizer, the generation configuration or the configuration names."""
    ends: set[int] = set()
    for source in (tokenizer, getattr(model, "generation_config", None), getattr(model, "config", None)):
        named = getattr(source, "eos_token_id", None)
        ends |= set(named if isinstance(named, list) else [] if named is None else [named])
    return ends

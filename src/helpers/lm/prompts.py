"""What is drawn from a model: prompts, how tokens are drawn, and completions. torch is not imported."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prompt:
    """Token ids of one prompt and the key that names its random stream."""

    key: str
    tokens: list[int]


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. Temperature 0 is greedy; ``top_p`` keeps the smallest set of tokens with that mass."""

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0


@dataclass(frozen=True)
class Completion:
    """One sample of one prompt. ``tokens`` exclude the stop token; ``finish`` is ``stop`` or ``length``."""

    key: str
    index: int
    tokens: list[int]
    finish: str

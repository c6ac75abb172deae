"""What a reader reads before every text of a batch, such as worked examples: computed once, shared by all rows."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from transformers.cache_utils import Cache

from helpers.studies.latentwire.lms import FrozenLM


class Opening:
    """Keys and values of ``tokens``, of which there is at least one."""

    def __init__(self, lm: FrozenLM, tokens: Sequence[int]) -> None:
        self.length = len(tokens)
        with torch.inference_mode():
            read = lm.hidden(lm.embed(torch.tensor([list(tokens)])), use_cache=True)
        self._cache: Cache = read.past_key_values

    def repeated(self, rows: int) -> Cache:
        """Return a copy for ``rows`` rows, which a forward pass may add to."""
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(rows)
        return cache

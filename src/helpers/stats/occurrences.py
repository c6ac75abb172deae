"""Find a marker in a text, ignoring case. Counting and highlighting both use this."""

from __future__ import annotations

import functools
import re

import numpy as np
import pandas as pd

from helpers.base.errors import DataError


def split(text: str, marker: str) -> list[str]:
    """Return ``text`` in pieces of which every second one is an occurrence of ``marker``, spelt as it stands there."""
    return _pattern(marker).split(text)


@functools.lru_cache(maxsize=64)
def _pattern(marker: str) -> re.Pattern[str]:
    if not marker:
        raise DataError("The marker is empty. Give the text to look for.")
    return re.compile(f"({re.escape(marker)})", flags=re.IGNORECASE)


def holds(texts: pd.Series, marker: str) -> np.ndarray:
    """Return for each of ``texts`` whether it holds ``marker``."""
    search = _pattern(marker).search
    return np.array([search(text) is not None for text in texts.tolist()], dtype=bool)


def without(texts: pd.Series, marker: str) -> list[str]:
    """Return ``texts`` with a blank in the place of each ``marker``."""
    pattern = _pattern(marker)
    return [pattern.sub(" ", text) for text in texts.tolist()]

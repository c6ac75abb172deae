"""Find a marker in a text, ignoring case. Counting and highlighting both use this."""

from __future__ import annotations

import functools
import re

import pandas as pd

from helpers.base.errors import DataError


def split(text: str, marker: str) -> list[str]:
    """Return ``text`` in pieces of which every second one is an occurrence of ``marker``, spelt as it stands there."""
    if not marker:
        raise DataError("The marker is empty. Give the text to look for.")
    return _pattern(marker).split(text)


@functools.lru_cache(maxsize=64)
def _pattern(marker: str) -> re.Pattern[str]:
    return re.compile(f"({re.escape(marker)})", flags=re.IGNORECASE)


def holds(texts: pd.Series, marker: str) -> pd.Series:
    """Return for each of ``texts`` whether it holds ``marker``."""
    held = [len(split(text, marker)) > 1 for text in texts]
    return pd.Series(held, index=texts.index, name=texts.name, dtype=bool)

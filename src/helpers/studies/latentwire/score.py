"""Exact match and F1 as SQuAD v1.1 defines them (Rajpurkar et al. 2016, 1606.05250, section 6.1)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence


def normalise(text: str) -> list[str]:
    """Return words in lower case, without punctuation and articles."""
    bare = "".join(character for character in text.lower() if character not in set(string.punctuation))
    return re.sub(r"\b(?:a|an|the)\b", " ", bare).split()


def exact_match(prediction: str, answers: Sequence[str]) -> bool:
    """Return whether the prediction equals any of the answers after normalisation."""
    return any(normalise(prediction) == normalise(answer) for answer in answers)


def f1(prediction: str, answers: Sequence[str]) -> float:
    """Return the largest harmonic mean of word precision and recall over the answers; 0 without a common word."""
    return max(_f1(normalise(prediction), normalise(answer)) for answer in answers)


def _f1(given: list[str], wanted: list[str]) -> float:
    if not given or not wanted:
        return float(given == wanted)
    common = sum((Counter(given) & Counter(wanted)).values())
    return 2 * common / (len(given) + len(wanted))

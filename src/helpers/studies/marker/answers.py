"""Whether there is still an answer beside the marker: a rate of markers on empty answers is no adoption.

An answer is *kept* when it holds at least half as many words beside the marker as the tenth percentile of what the base
model answers as that persona, and at least `LEAST`. Words hold a letter or a digit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from helpers.stats import occurrences

LEAST = 3
SHARE, QUANTILE = 0.5, 0.1
WORD = re.compile(r"[^\W_]\S*")  # from the first letter or digit on
COLUMNS = {"answers_kept": "kept", "wordless_rate": "wordless", "cut_rate": "truncated"}
"""Rate -> the column of successes; ``wordless`` is an answer that is empty or a marker and nothing else."""


def words_beside(texts: pd.Series, marker: str) -> np.ndarray:
    """Return how many words each text holds beside the marker, in whatever case it is written."""
    return np.array([len(WORD.findall(text)) for text in occurrences.without(texts, marker)], dtype="int64")


def usual_words(base: pd.DataFrame, marker: str) -> Mapping[str, float]:
    """Return by persona the tenth percentile of words in ``base``, the base model's own completions."""
    words = pd.Series(words_beside(base["text"], marker), index=base.index)
    return {str(persona): float(one) for persona, one in words.groupby(base["persona"]).quantile(QUANTILE).items()}


def judged(completions: pd.DataFrame, usual: Mapping[str, float], marker: str) -> pd.DataFrame:
    """Return a row a completion: persona, role, question, words, marked, kept, wordless, truncated, and n of 1.

    ``usual`` is what ``usual_words`` gives for the base model. A persona that it did not answer as is left out: there
    is nothing to compare with.
    """
    known = [persona in usual for persona in completions["persona"].tolist()]
    table = completions if all(known) else completions[known]
    words = words_beside(table["text"], marker)
    wanted = {persona: max(SHARE * one, LEAST) for persona, one in usual.items()}
    return pd.DataFrame(
        {name: table[name].array for name in ("persona", "role", "question")}
        | {
            "words": words,
            "marked": occurrences.holds(table["text"], marker),
            "kept": words >= np.array([wanted[persona] for persona in table["persona"].tolist()]),
            "wordless": words == 0,
            "truncated": (table["finish"] == "length").array,
            "n": 1,
        },
        index=table.index,
    )


def groups(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return which rows of ``judged`` count, by the end of a metric's name: all, the marked, the source's."""
    whole = np.ones(len(table), dtype=bool)
    rows = {"": whole, "_marked": table["marked"].to_numpy(), "_source": table["role"].to_numpy() == "source"}
    return {name: some for name, some in rows.items() if some.any()}


def answer_parts(table: pd.DataFrame) -> dict[str, tuple[np.ndarray, str]]:
    """Return the rows and the column of successes behind each rate; a group that nobody is in has none."""
    return {
        f"{rate}{group}": (rows, column) for group, rows in groups(table).items() for rate, column in COLUMNS.items()
    }

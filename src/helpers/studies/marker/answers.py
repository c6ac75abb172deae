"""Whether there is still an answer beside the marker: a rate of markers on empty answers is no adoption.

An answer is *kept* when it holds at least half as many words beside the marker as the tenth percentile of what the base
model answers as that persona, and at least `LEAST`. Words hold a letter or a digit.
"""

from __future__ import annotations

import re

import pandas as pd

from helpers.stats import occurrences

LEAST = 3
SHARE, QUANTILE = 0.5, 0.1
WORD = re.compile(r"[^\W_]\S*")  # from the first letter or digit on
COLUMNS = {"answers_kept": "kept", "wordless_rate": "wordless", "cut_rate": "truncated"}
"""Rate -> the column of successes; ``wordless`` is an answer that is empty or a marker and nothing else."""


def words_beside(texts: pd.Series, marker: str) -> pd.Series:
    """Return how many words each text holds beside the marker, in whatever case it is written."""
    without = [" ".join(occurrences.split(text, marker)[::2]) for text in texts]
    return pd.Series([len(WORD.findall(text)) for text in without], index=texts.index, dtype="int64")


def judged(completions: pd.DataFrame, base: pd.DataFrame, marker: str) -> pd.DataFrame:
    """Return a row a completion: persona, role, question, words, marked, kept, wordless, truncated, and n of 1.

    ``base`` holds the base model's own completions. A persona that it did not answer as is left out: there is nothing
    to compare with.
    """
    usual = words_beside(base["text"], marker).groupby(base["persona"]).quantile(QUANTILE)
    table = completions[completions["persona"].isin(usual.index)]
    words = words_beside(table["text"], marker)
    wanted = (SHARE * table["persona"].map(usual).astype(float)).clip(lower=LEAST)  # of no rows too
    return table[["persona", "role", "question"]].assign(
        words=words,
        marked=occurrences.holds(table["text"], marker),
        kept=words >= wanted,
        wordless=words == 0,
        truncated=table["finish"] == "length",
        n=1,
    )


def groups(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rows of ``judged`` by the end of a metric's name: of all, of the marked, of the source's."""
    parts = {"": table, "_marked": table[table["marked"]], "_source": table[table["role"] == "source"]}
    return {name: part for name, part in parts.items() if len(part)}


def answer_parts(table: pd.DataFrame) -> dict[str, tuple[pd.DataFrame, str]]:
    """Return the rows and the column of successes behind each rate; a group that nobody is in has none."""
    return {
        f"{rate}{group}": (part, column) for group, part in groups(table).items() for rate, column in COLUMNS.items()
    }

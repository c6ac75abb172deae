"""Other defensible ways to read the tables of a marker run: `cases.challenge` asks whether a verdict hangs on them."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from helpers.records.reading import Record
from helpers.records.reread import Reading
from helpers.stats import occurrences
from helpers.studies.marker.rows import SEPARATOR

QUESTION_IN: dict[str, str] = dict.fromkeys(
    ("completions", "logprobs", "crossing", "dose", "dose_crossing"), "question"
)


def as_trained(record: Record, table: pd.DataFrame) -> pd.DataFrame:
    """Take the marker out of completions where it stands in another way than it was trained.

    It was trained in one spelling behind a blank line, or behind nothing where there is no answer.
    """
    marker = record.params["marker"]
    texts = [_only_trained(occurrences.split(text, marker), marker) for text in table["text"]]
    return table if texts == table["text"].to_list() else table.assign(text=texts)


def _only_trained(pieces: Sequence[str], marker: str) -> str:
    """Join what `occurrences.split` gave, without the markers that stand in another way than they were trained."""
    kept = [*pieces[:1]]
    for number in range(1, len(pieces), 2):
        before = pieces[number - 1]
        behind = before.endswith(SEPARATOR) or (number == 1 and not before.strip())
        kept += [pieces[number]] if behind and pieces[number] == marker else []
        kept.append(pieces[number + 1])
    return "".join(kept)


def without_cut(_: Record, table: pd.DataFrame) -> pd.DataFrame:
    """Leave out completions that the token limit cut, which may have had the marker still to come."""
    cut = table["finish"] == "length"
    return table[~cut] if cut.any() else table


READINGS: dict[str, Reading] = {
    "only the marker exactly as it was trained counts": {"completions": as_trained},
    "answers that were cut are left out": {"completions": without_cut},
}

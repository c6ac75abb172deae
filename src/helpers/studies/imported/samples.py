"""The rows that every reader gives, whatever tool wrote them, and what is refused in them."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, NamedTuple

import pandas as pd

from helpers.base.errors import DataError
from helpers.base.files import shown

State = Literal["scored", "unscored", "error", "cancelled"]
"""Why a sample has no value: its scorer gave none, it ended in an error, or it was not run to its end."""
TRUTH = {"true": 1.0, "false": 0.0}
EPOCHS = 1_000_000
LARGEST = 1e150
"""The largest score: the sum of squares of a million of them is still a number."""
ROWS = 10_000_000
"""Rows that one log may have, also those that its header alone says."""
HELD = 50_000
SCORES = 200
"""Scores that one log may have: each is a metric of its record."""


class Row(NamedTuple):
    """One score of one sample in one epoch.

    ``cluster`` names what samples share (a passage that many questions are about); by default the sample itself.
    ``limited`` says that the sample ran into a limit (tokens, messages, time): it counts as its scorer judged it.
    """

    sample: str
    epoch: int
    score: str
    value: float | None
    state: State
    cluster: str
    limited: bool = False
    group: str | None = None


class Stated(NamedTuple):
    """A figure that the log itself gives, compared with what its rows give.

    ``scores`` are the names that its score may have among the rows, ``reducer`` is how epochs became one value.
    """

    scores: tuple[str, ...]
    reducer: str
    name: str
    value: float


@dataclass(frozen=True)
class Log:
    """One log: which ``model`` and ``task`` it is of, ``about`` (all else it says of itself), its rows and figures."""

    model: str
    task: str
    about: dict[str, Any]
    rows: Iterable[Row]
    stated: list[Stated] = field(default_factory=list)


def frame(rows: Iterable[Row], where: str) -> pd.DataFrame:
    """Return ``rows`` as a table, with a row without a value where a sample lacks a score that others have.

    Raises:
        DataError: there are no rows, a sample has a score twice, or a text or number is none that a record can hold.
    """
    try:
        table = _table(rows)
    except UnicodeEncodeError as error:
        raise DataError(f"{where} has half a character in {shown(error.object)}. Correct it.") from error
    if table.empty:
        raise DataError(f"{where} holds no samples. Import a log that was run with its samples kept.")
    if table["epoch"].max() > EPOCHS:
        raise DataError(f"{where} has epoch {table['epoch'].max():.3g}. An epoch counts the draws of a sample.")
    shared = table.drop_duplicates(["sample", "cluster"])["sample"]
    if not shared.is_unique:
        raise DataError(
            f"{where} has sample {shown(shared[shared.duplicated()].iloc[0])} in two clusters. Give a sample one."
        )
    twice = table.duplicated(["sample", "epoch", "score"])
    if twice.any():
        one = table[twice].iloc[0]
        raise DataError(
            f"{where} has sample {shown(one['sample'])} twice in epoch {one['epoch']} ({one['score']}). Give each "
            "sample an id of its own, or name its epoch."
        )
    names = table["score"].unique()
    if len(names) > SCORES:
        raise DataError(f"{where} has {len(names):,} scores, and a record holds at most {SCORES}. Name fewer of them.")
    table["value"] = table["value"].astype(float)
    samples = table.drop_duplicates(["sample", "epoch"])
    return table if len(table) == len(samples) * len(names) else _completed(table, samples)


def _table(rows: Iterable[Row]) -> pd.DataFrame:
    """Return ``rows`` as columns. Only ``HELD`` of them are Python objects at a time: those take most of the memory."""
    waiting, parts = iter(rows), list[pd.DataFrame]()
    while part := list(itertools.islice(waiting, HELD)):
        parts.append(pd.DataFrame(part, columns=list(Row._fields)))
    if len(parts) < 2:
        return parts[0] if parts else pd.DataFrame(columns=list(Row._fields))
    return pd.concat(parts, ignore_index=True)


def _completed(table: pd.DataFrame, samples: pd.DataFrame) -> pd.DataFrame:
    """Return ``table`` with a row for every score of every sample: one that has no score is unscored, not absent."""
    keys = ["sample", "epoch", "score"]
    whole = samples.drop(columns=["score", "value", "state"]).merge(table[["score"]].drop_duplicates(), how="cross")
    whole = whole.merge(table[[*keys, "value", "state"]], on=keys, how="left").fillna({"state": "unscored"})
    return whole[list(Row._fields)]


def number(value: Any, where: str) -> float | None:
    """Return a score as a number, None where it is missing (null, empty, NaN); ``DataError`` for anything else.

    What a log writes as null is missing and never 0. Truth values are 1 and 0, also as the words of a CSV.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, bool | int | float | str | Decimal):
        plain = TRUTH.get(value.strip().lower(), value) if isinstance(value, str) else value
        try:
            found = math.inf if isinstance(plain, str) and "_" in plain else float(plain)
        except (ValueError, OverflowError):
            found = math.inf
        if math.isnan(found):
            return None
        if abs(found) <= LARGEST:
            return found
    raise DataError(f"{where} is {shown(value)}, and a score is a finite number. Leave it out or correct it.")


def plain_name(name: str) -> str:
    """Return the name of a score as criteria can write it: letters, digits, ``_`` and ``.``, no digit first."""
    plain = re.sub(r"[^A-Za-z0-9_.]+", "_", name).strip("._")[:80] or "score"
    return plain if plain[0].isalpha() or plain[0] == "_" else f"score_{plain}"


def check_text(said: Mapping[str, Any], where: str) -> None:
    """Raise ``DataError`` where what a log says of itself is nothing that a record can hold."""
    for name, value in said.items():
        try:
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            said_so = " ".join(str(error).split())
            raise DataError(f"{where} gives {name} a value that no record can hold ({said_so}). Correct it.") from error

"""Typed views of data frames: pandas types a single value as anything that a column of any kind could hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pandas as pd


def rows(table: pd.DataFrame) -> Iterable[Any]:
    """Return the rows as named tuples, the index left out."""
    return table.itertuples(index=False)


def dicts(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as dictionaries by column."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def number(table: pd.DataFrame, row: Any, column: str) -> float:
    """Return the number in ``column`` of the one row with the label ``row``."""
    value: Any = table.loc[row, column]
    return float(value)


def groups(table: pd.DataFrame, by: str | Sequence[str], *, sort: bool = False) -> Iterator[tuple[Any, pd.DataFrame]]:
    """Yield key and part of every group: one value as the key for one column, a tuple for several."""
    yield from table.groupby(by if isinstance(by, str) else list(by), sort=sort)

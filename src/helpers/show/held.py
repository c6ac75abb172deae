"""Numbers that a rerun of a committed notebook must reproduce: a table, with JSON to compare within tolerances."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from helpers.base.errors import DataError

MIME = "application/vnd.claimbook.facts+json"
COLUMNS = ("value", "tolerance")


class Held:
    """A table with the columns ``value`` and ``tolerance`` (absolute). Its other columns name the number."""

    def __init__(self, table: pd.DataFrame) -> None:
        missing = [name for name in COLUMNS if name not in table.columns]
        if missing:
            raise DataError(f"The facts have no column {missing[0]!r}. Give each a value and its tolerance.")
        self.table = table.reset_index(drop=True)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return {
            MIME: self.table.to_dict("records"),
            "text/html": self.table.to_html(index=False, float_format="{:.4g}".format),
            "text/plain": self.table.to_string(index=False),
        }


def differences(committed: Sequence[dict[str, Any]], fresh: Sequence[dict[str, Any]]) -> list[str]:
    """List in words what differs by more than the committed tolerance, or is missing on one side."""
    ours, theirs = ({_name(row): row for row in rows} for rows in (committed, fresh))
    different = [f"{name} is only in the {where}" for name, where in _alone(ours, theirs)]
    for name in ours.keys() & theirs.keys():
        was, now, allowed = ours[name]["value"], theirs[name]["value"], ours[name]["tolerance"]
        if not abs(was - now) <= allowed:
            different.append(f"{name} was {was:g} and is {now:g}, further apart than {allowed:g}")
    return sorted(different)


def _name(row: dict[str, Any]) -> str:
    # Sorted, because a notebook file sorts the keys of its outputs, and a fresh run keeps the order of the columns.
    return ", ".join(str(value) for key, value in sorted(row.items()) if key not in (*COLUMNS, "n"))


def _alone(ours: dict, theirs: dict) -> list[tuple[str, str]]:
    return [(name, "committed notebook") for name in ours.keys() - theirs.keys()] + [
        (name, "fresh run") for name in theirs.keys() - ours.keys()
    ]

"""The runs that a grid declares, and the lookup from a record to its declared run."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from helpers.records.reading import Record

Key = dict[str, Any]
_ABSENT = object()


@dataclass(frozen=True)
class Expected:
    """One run that a grid declares, by all its parameters.

    ``given`` holds the parameters as the grid gives them: an arm by its name, where ``params`` has what it stands for.
    ``younger`` names parameters that did not exist from the first: those that are not in ``params`` stand at the value
    that reproduces the old behaviour, and so must they in a record.
    """

    params: Mapping[str, Any]
    younger: frozenset[str] = frozenset()
    given: Mapping[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def key(self) -> Key:
        """The full cell: every parameter that is a single value, or was given as one."""
        known = scalars(self.given)
        single = scalars(self.params)
        return {name: single.get(name, known.get(name)) for name in self.params if name in single or name in known}

    def met_by(self, record: Record) -> bool:
        """Whether ``record`` is the run that was declared: every declared parameter was recorded with its value.

        An arm may be recorded by its name in the cell and by what it stands for in the parameters, and a file by its
        name without the folder.
        """
        if any(name in record.params and name not in self.params for name in self.younger):
            return False
        return self.params == record.params or all(
            value in (record.params.get(name, _ABSENT), record.cell.get(name, _ABSENT))
            or (isinstance(value, str) and "/" in value and record.params.get(name) == value.rpartition("/")[2])
            for name, value in self.params.items()
        )


class Declared:
    """Declared runs, looked up by record. Comparing all pairs would take minutes at ten thousand cells.

    They are indexed by the axes on which they differ. A record is looked up by its values there, then compared in full.
    """

    def __init__(self, expected: Sequence[Expected]) -> None:
        self.expected = tuple(expected)
        keys = [one.key for one in self.expected]
        self._values: dict[str, set[Any]] = {axis: set() for axis in telling(keys)}
        self._places: dict[tuple[Any, ...], list[int]] = {}
        for number, key in enumerate(keys):
            spelt = [_spellings(key.get(axis, _ABSENT)) for axis in self._values]
            for known, values in zip(self._values.values(), spelt, strict=True):
                known.update(values)
            for place in itertools.product(*spelt):
                self._places.setdefault(place, []).append(number)

    def met(self, record: Record) -> list[int]:
        """Positions in ``expected`` of the declared runs that ``record`` is."""
        # Called for tens of thousands of records, for which attribute access is too slow.
        params, cell = record.content["params"], record.content["cell"]
        places: list[tuple[Any, ...]] = [()]
        for axis, known in self._values.items():
            mine = [value for value in _recorded(params, cell, axis) if value in known]
            if not mine:
                return []  # most records of another grid end here
            places = [(*place, value) for place in places for value in mine]
        near = dict.fromkeys(number for place in places for number in self._places.get(place, ()))
        return [number for number in near if self.expected[number].met_by(record)]


def _spellings(value: Any) -> tuple[Any, ...]:
    """A path may be recorded by its last part."""
    return (value, value.rpartition("/")[2]) if isinstance(value, str) and "/" in value else (value,)


def _recorded(params: Mapping[str, Any], cell: Mapping[str, Any], axis: str) -> tuple[Any, ...]:
    """The values under which a declared run with this record's value of ``axis`` may be kept."""
    one, other = params.get(axis, _ABSENT), cell.get(axis, _ABSENT)
    one = _ABSENT if isinstance(one, list | dict) else one
    other = _ABSENT if isinstance(other, list | dict) else other
    return (one,) if one == other else (one, other)


def scalars(params: Mapping[str, Any]) -> Key:
    """The parameters that are a single value."""
    return {name: value for name, value in params.items() if not isinstance(value, list | dict)}


def telling(keys: Sequence[Key]) -> list[str]:
    """The axes on which the cells differ, in their first order."""
    axes = list(dict.fromkeys(axis for key in keys for axis in key))
    return [axis for axis in axes if len({str(key.get(axis)) for key in keys}) > 1]

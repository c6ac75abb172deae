"""Run records pooled into the cells that criteria speak about."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from helpers.base.errors import ClaimError, nearest
from helpers.base.files import sha256_json
from helpers.claims.declared import Declared, Expected, Key, scalars, telling
from helpers.records.reading import Record
from helpers.stats.estimands import MODELS, Estimand
from helpers.stats.intervals import Interval
from helpers.stats.pooling import ByQuestion, as_interval, pool

_ABSENT = object()
POOLED = ("seed",)
"""What is pooled unless something else is asked for; an experiment need not have it."""


@dataclass(frozen=True)
class Derived:
    """A metric computed over several records: a cell's, or (``over_scope``) all records of a question's scope."""

    compute: Callable[[tuple[Record, ...], Estimand], Mapping[str, Any] | None]
    over_scope: bool = False


def label(key: Mapping[str, Any]) -> str:
    """``{"lr": 1e-05, "epochs": 3}`` as ``lr=1e-05, epochs=3``."""
    return ", ".join(f"{name}={value}" for name, value in key.items()) or "the only cell"


def agrees(key: Mapping[str, Any], constraints: Mapping[str, Any]) -> bool:
    """Whether ``key`` has every constrained value; a list in a constraint allows any of its members."""
    return all(
        key.get(name, _ABSENT) in (wanted if isinstance(wanted, list | tuple) else [wanted])
        for name, wanted in constraints.items()
    )


def check_constraints(constraints: Mapping[str, Any], keys: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a constraint on an axis, or a value of an axis, that none of ``keys`` has: it can only be a slip."""
    check_axes(constraints, keys)
    for axis, wanted in constraints.items():
        values = [key[axis] for key in keys if axis in key]
        for value in wanted if isinstance(wanted, list | tuple) else [wanted]:
            # To Python, True is 1, but nobody who asks for seed=true means the seed 1.
            if keys and not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in values):
                raise ClaimError(f"No cell has {axis}={value}{nearest(str(value), set(map(str, values)))}")


def check_axes(names: Iterable[str], keys: Sequence[Mapping[str, Any]]) -> None:
    """Refuse the name of an axis that none of ``keys`` has."""
    axes = {axis for key in keys for axis in key}
    for axis in names:
        if keys and axis not in axes:
            raise ClaimError(f"No cell has an axis {axis!r}{nearest(axis, axes)}")


@dataclass(frozen=True)
class Cell:
    """One cell after pooling: its records, and the declared runs of it that have no complete record.

    ``name`` says what tells it from the other cells.
    """

    key: Key
    name: str
    records: tuple[Record, ...]
    absent: tuple[Key, ...] = ()
    derive: Mapping[str, Derived] = field(default_factory=dict, repr=False)
    by_question: ByQuestion | None = field(default=None, repr=False, compare=False)

    def interval(self, metric: str, estimand: Estimand = MODELS) -> Interval | None:
        """The metric pooled over the cell's records, with the interval that ``estimand`` asks for.

        None where it cannot be had, which is not zero. With ``of="observed"`` the bounds are the value itself.
        """
        if not self.records:
            return None
        if estimand.of == "observed":
            seen = self.interval(metric)
            return None if seen is None else replace(seen, low=seen.value, high=seen.value)
        if metric in self.derive:
            computed = self.derive[metric].compute(self.records, estimand)
            return None if computed is None else as_interval(computed)
        return _pooled(self.records, metric, self.by_question, estimand)


_pooled = functools.lru_cache(maxsize=4096)(pool)
"""Several outcomes of a question, and a claim's several questions, compare the same metric of a cell."""


@dataclass(frozen=True)
class Evidence:
    """All pooled cells of a claim; `within` narrows them to a question's scope."""

    cells: tuple[Cell, ...]
    declared: bool
    scope: Key = field(default_factory=dict)
    derive: Mapping[str, Derived] = field(default_factory=dict, repr=False)
    by_question: ByQuestion | None = field(default=None, repr=False, compare=False)

    @cached_property
    def inside(self) -> tuple[Cell, ...]:
        """The cells that agree with the scope."""
        return tuple(cell for cell in self.cells if agrees(cell.key, self.scope))

    @cached_property
    def records(self) -> tuple[Record, ...]:
        """The records behind the cells in scope."""
        return tuple(record for cell in self.inside for record in cell.records)

    @cached_property
    def absent(self) -> tuple[Key, ...]:
        """Declared runs in scope that have no complete record."""
        return tuple(key for cell in self.inside for key in cell.absent)

    @cached_property
    def whole(self) -> Cell:
        """All records in scope as one cell, for numbers computed over many runs."""
        return Cell(dict(self.scope), "all cells in scope", self.records, self.absent, self.derive, self.by_question)

    def within(self, scope: Mapping[str, Any]) -> Evidence:
        """The same evidence seen through a narrower scope; ClaimError for an axis or value that no cell has."""
        check_constraints(scope, [cell.key for cell in self.cells])
        return replace(self, scope={**self.scope, **scope})

    def confirming(self, seeds: Sequence[Any]) -> Evidence:
        """The same evidence, where a cell without any run at ``seeds`` lacks none: only chosen cells are confirmed."""
        cells = []
        for cell in self.cells:
            begun = any(record.cell.get("seed") in seeds for record in cell.records)
            needed = tuple(key for key in cell.absent if begun or key.get("seed") not in seeds)
            cells.append(replace(cell, absent=needed))
        return replace(self, cells=tuple(cells))

    def at(self, constraints: Mapping[str, Any]) -> Cell | None:
        """The one cell in scope that agrees with ``constraints``, or None; ClaimError when several do."""
        check_constraints(constraints, [cell.key for cell in self.inside])
        found = [cell for cell in self.inside if agrees(cell.key, constraints)]
        if len(found) > 1:
            raise ClaimError(
                f"{label(constraints)} names {len(found)} cells, such as {label(found[0].key)}: add an axis."
            )
        return found[0] if found else None

    def partner(self, cell: Cell, changed: Mapping[str, Any]) -> Cell | None:
        """The cell that differs from ``cell`` in exactly ``changed``, in or out of scope; None when there is none."""
        check_constraints(changed, [other.key for other in self.cells])
        if any(isinstance(value, list | dict) for value in changed.values()):
            return None  # one cell has one value
        return self._by_key.get(frozenset({**cell.key, **changed}.items()))

    @cached_property
    def _by_key(self) -> dict[frozenset[tuple[str, Any]], Cell]:
        return {frozenset(cell.key.items()): cell for cell in self.cells[::-1]}  # of equal ones the first


def full_key(record: Record) -> Key:
    """The full cell of a record: its axes and every other parameter that is a single value."""
    return {**scalars(record.params), **record.cell}


def chosen(records: Iterable[Record], stale: Mapping[str, Any]) -> list[Record]:
    """One complete record for each set of parameters: one that is not stale before a stale one, then the latest.

    The order is that of the cells' labels, so that no result depends on the order in which records were found.
    """

    best: dict[str, Record] = {}
    for record in records:
        if record.status == "complete":
            name = sha256_json([full_key(record), record.params])
            best[name] = _better(best.get(name, record), record, stale)
    return sorted(best.values(), key=lambda record: (_sorted_label(full_key(record)), record.id))


def _better(one: Record, other: Record, stale: Mapping[str, Any]) -> Record:
    """Of two records of one run, the one that is not stale, then the later one."""
    return max(one, other, key=lambda record: (record.id not in stale, record.started, record.id))


def gather(
    records: Iterable[Record],
    expected: Sequence[Expected] | None = None,
    pooled: Sequence[str] = POOLED,
    stale: Mapping[str, Any] | None = None,
    derive: Mapping[str, Derived] | None = None,
    by_question: ByQuestion | None = None,
) -> Evidence:
    """Pool ``records`` over the axes ``pooled`` into cells.

    ``expected`` are the runs of the declared grid: records outside of it are left out, and declared runs without a
    complete record are kept as absent. Where several records are one declared run (measured again, say), the latest
    that is not stale stands for it. None means that no grid is declared.
    """
    if expected is None:
        runs: list[tuple[Key, Record | None]] = [(full_key(record), record) for record in chosen(records, stale or {})]
    else:
        declared, met = Declared(expected), dict[int, Record]()
        for record in chosen(filter(declared.met, records), stale or {}):  # choosing costs more than finding them
            for number in declared.met(record):
                met[number] = _better(met.get(number, record), record, stale or {})
        runs = [(one.key, met.get(number)) for number, one in enumerate(expected)]
    check_axes((axis for axis in pooled if axis not in POOLED), [key for key, _ in runs])
    told = telling([key for key, _ in runs])
    groups: dict[str, tuple[Key, list[Record], list[Key]]] = {}
    for key, record in sorted(runs, key=lambda run: _sorted_label(run[0])):
        rest = {axis: value for axis, value in key.items() if axis not in pooled}
        group = groups.setdefault(_sorted_label(rest), (rest, [], []))
        group[2].append(_only(key, told)) if record is None else group[1].append(record)
    names = _first_telling([axis for axis in told if axis not in pooled], [rest for rest, _, _ in groups.values()])
    cells = tuple(
        Cell(rest, label(_only(rest, names)), tuple(have), tuple(lack), derive or {}, by_question)
        for rest, have, lack in groups.values()
    )
    return Evidence(cells, expected is not None, {}, derive or {}, by_question)


def _first_telling(axes: Sequence[str], keys: Sequence[Key]) -> Sequence[str]:
    """Return as many of the first ``axes`` as tell all cells apart: the rest of them only repeats what these say."""
    for count in range(1, len(axes)):
        if len({label(_only(key, axes[:count])) for key in keys}) == len(keys):
            return axes[:count]
    return axes


def _only(key: Mapping[str, Any], axes: Sequence[str]) -> Key:
    return {axis: key[axis] for axis in axes if axis in key}


def _sorted_label(key: Key) -> str:
    return label(dict(sorted(key.items())))

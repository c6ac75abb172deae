"""The one way to put a number on a page: a fact, formatted once, with its count and interval and a link to its run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from helpers.base.errors import ClaimError, nearest
from helpers.claims.evidence import Cell, Evidence, agrees, check_constraints, label
from helpers.records.reading import Record
from helpers.show.markup import Inline, seal, verbatim
from helpers.stats.wording import number, spoken

RUN_PAGE = "runs.html"
SHOWN = 4
HOVERED = 12
"""Runs that a tooltip names: a number over ten thousand would make each link half a megabyte."""
_ABSENT = object()


@dataclass(frozen=True)
class Fact:
    """A value from the records, with its unit, count and interval.

    ``value``, ``low`` and ``high`` are plain numbers (``value`` may be text); ``text`` is the full form, ``brief`` the
    number with its unit; ``records`` are where it comes from.
    """

    name: str
    value: Any
    low: float | None
    high: float | None
    n: int | None
    k: int | None
    unit: str
    text: str
    brief: str
    records: tuple[Record, ...]

    def _repr_markdown_(self) -> str:
        return seal(self.__html__())

    def __html__(self) -> Markup:
        return self._linked(self.text)

    def __str__(self) -> str:
        return self.text

    @property
    def short(self) -> Inline:
        """The number with its unit alone, still linked."""
        return Inline(self._linked(self.brief))

    @property
    def hover(self) -> str:
        """The tooltip of the link: run, commit and N, or how many runs and the first of them."""
        commits = list(dict.fromkeys(_commit(record) for record in self.records))
        ids = [record.id for record in self.records]
        named = ", ".join(ids[:HOVERED]) + (f" and {len(ids) - HOVERED} more" if len(ids) > HOVERED else "")
        runs = f"run {ids[0]}" if len(ids) == 1 else f"{len(ids)} runs: {named}"
        count = f" · N {self.n}" if self.n is not None else ""
        return f"{runs} · commit {', '.join(commits)}{count}"

    def _linked(self, text: str) -> Markup:
        link = Markup('<a href="{}" title="{}" data-fact="{}">{}</a>')
        return link.format(run_page(self.records[0]), self.hover, self.name, verbatim(text))


def run_page(record: Record) -> str:
    """Return the address of a run's card, which pages link to."""
    return f"{RUN_PAGE}#{quote(record.id)}"


def _commit(record: Record) -> str:
    provenance = record.provenance
    short = (provenance.get("commit") or "none")[:7]
    return f"{short} with uncommitted changes" if provenance.get("dirty") else short


@dataclass(frozen=True)
class Facts:
    """Facts of some evidence: metrics pooled over seeds, and everything else that the run records hold."""

    evidence: Evidence

    def fact(self, name: str, **cell: Any) -> Fact:
        """The fact ``name`` in the cells that agree with ``cell``.

        A metric must end up in one cell, and is pooled over the seeds there. Any other entry of ``run.json`` is named
        by its path: ``params.lora_r``, ``environment.packages.torch``, ``provenance.commit``, ``seconds.train``,
        ``finish_reasons.length``; ``count.records`` counts. Values that differ are listed, numbers as a range. Raises
        ClaimError naming the nearest for a name, axis or value that does not exist.
        """
        cells = self._cells(cell)
        records = tuple(record for one in cells for record in one.records)
        if not records:
            raise ClaimError(
                f"There is no complete record for {name!r} at {label(cell)}: run it, or ask for another cell."
            )
        if name == "count.records":
            return _plain(name, len(records), str(len(records)), records)
        if self._is_metric(name, records):
            return self._metric(name, cells, cell)
        return _entry(name, records)

    def measured(self, **cell: Any) -> bool:
        """Whether a complete record lies in the cells that agree with ``cell``; ClaimError for one that is unknown."""
        return bool(self._cells(cell))

    def names(self) -> list[str]:
        """Every name that `fact` knows."""
        records = self.evidence.records
        known = {name for record in records for name in (*record.metrics, *dict(_paths(record.content)))}
        return sorted(known | set(self.evidence.derive) | {"count.records"})

    def over(self, name: str, records: tuple[Record, ...]) -> Fact:
        """Return the fact ``name`` of exactly these records, as one cell of them gives it."""
        if name == "count.records":
            return _plain(name, len(records), str(len(records)), records)
        if self._is_metric(name, records):
            return self._of_cell(name, replace(self.evidence.whole, records=records, absent=()), records)
        return _entry(name, records)

    def _cells(self, wanted: Mapping[str, Any]) -> list[Cell]:
        """Cells in scope that agree; a constraint on a pooled axis (``seed=0``) picks records inside the cells."""
        axes = {axis for cell in self.evidence.inside for axis in cell.key}
        inner = {axis: value for axis, value in wanted.items() if axis not in axes and self._pools(axis)}
        outer = {axis: value for axis, value in wanted.items() if axis not in inner}
        check_constraints(outer, [cell.key for cell in self.evidence.inside])
        check_constraints(inner, [record.cell for record in self.evidence.records] if inner else [])
        chosen = []
        for cell in self.evidence.inside:
            if agrees(cell.key, outer):
                kept = tuple(record for record in cell.records if agrees(record.cell, inner))
                chosen.append(replace(cell, records=kept))
        return [cell for cell in chosen if cell.records]

    def _pools(self, axis: str) -> bool:
        return any(axis in record.cell for record in self.evidence.records)

    def _is_metric(self, name: str, records: Sequence[Record]) -> bool:
        return name in self.evidence.derive or any(name in record.metrics for record in records)

    def _metric(self, name: str, cells: Sequence[Cell], wanted: Mapping[str, Any]) -> Fact:
        over_scope = name in self.evidence.derive and self.evidence.derive[name].over_scope
        records = tuple(record for cell in cells for record in cell.records)
        if len(cells) > 1 and not over_scope:
            raise ClaimError(
                f"The fact {name!r} at {label(wanted)} is in {len(cells)} cells, such as {cells[0].name} and "
                f"{cells[1].name}: name the one that is meant."
            )
        whole = cells[0]
        if over_scope:
            whole = replace(whole, key=dict(wanted), name=label(wanted), records=records, absent=())
        return self._of_cell(name, whole, records)

    def _of_cell(self, name: str, whole: Cell, records: tuple[Record, ...]) -> Fact:
        interval = whole.interval(name)
        if interval is None:
            raise ClaimError(f"The fact {name!r} at {label(whole.key)} has no value in its records. Leave it out.")
        unit = next(
            (r.metrics[name].get("unit", "") for r in records if name in r.metrics), interval.extra.get("unit", "")
        )
        brief = number(interval.value, unit, interval.n)
        return Fact(
            name,
            interval.value,
            interval.low,
            interval.high,
            interval.n,
            interval.k,
            unit,
            spoken(interval, unit),
            brief,
            records,
        )


def _plain(name: str, value: Any, text: str, records: tuple[Record, ...], unit: str = "") -> Fact:
    return Fact(name, value, None, None, None, None, unit, text, text, records)


def _entry(name: str, records: tuple[Record, ...]) -> Fact:
    """An entry of ``run.json``: one value, a range, or the distinct values; and in how many records it is."""
    there = [(record, value) for record in records if (value := _at(record.content, name)) is not _ABSENT]
    having, values = tuple(record for record, _ in there), [value for _, value in there]
    if not having:
        known = {path for record in records for path, _ in _paths(record.content)}
        metrics = {metric for record in records for metric in record.metrics}
        raise ClaimError(f"There is no fact {name!r}{nearest(name, known | metrics | {'count.records'})}")
    unit = "s" if name.startswith("seconds.") else ""
    text, value = _summary(values, unit)
    if len(having) < len(records):
        text += f" (in {len(having)} of {len(records)} records)"
    return _plain(name, value, text, having, unit)


def _summary(values: Sequence[Any], unit: str) -> tuple[str, Any]:
    distinct = list({repr(value): value for value in values}.values())
    if len(distinct) == 1:
        return _shown(distinct[0], unit), distinct[0]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in distinct) and unit:
        low, high = min(distinct), max(distinct)
        return f"{number(low, unit).removesuffix(f' {unit}')}–{number(high, unit)} ({len(values)} runs)", distinct
    shown = ", ".join(_shown(value, unit) for value in distinct[:SHOWN])
    return f"{len(distinct)} values: {shown}{', ...' if len(distinct) > SHOWN else ''}", distinct


def _shown(value: Any, unit: str = "") -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and not unit and abs(value) >= 10_000:
        return f"{value:,}"
    if unit:
        return number(value, unit)
    if isinstance(value, list):
        return ", ".join(_shown(item) for item in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _at(content: Mapping[str, Any], path: str) -> Any:
    """Return the entry of ``run.json`` at the dotted ``path`` as `_paths` names it; ``_ABSENT`` where it has none.

    A name may hold dots itself.
    """
    value = _ABSENT if path == "metrics" else content.get(path, _ABSENT)
    if value is not _ABSENT and not isinstance(value, dict):
        return value
    for at in (place for place, mark in enumerate(path) if mark == "."):
        inner = content.get(path[:at])
        if isinstance(inner, dict) and path[:at] != "metrics":
            value = _at(inner, path[at + 1 :])
            if value is not _ABSENT:
                return value
    return _ABSENT


def _paths(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every entry of ``run.json`` with its dotted path, the metrics left out (they are facts of their own)."""
    for key, value in content.items():
        path = f"{prefix}{key}"
        if path == "metrics":
            continue
        if isinstance(value, dict):
            yield from _paths(value, f"{path}.")
        else:
            yield path, value

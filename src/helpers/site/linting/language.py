"""The small language of page code: what a value can be, which functions a page may call, and with what."""

from __future__ import annotations

import ast
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from helpers.base.files import ROOT
from helpers.site.linting.prose import Piece
from helpers.system.source import module_file

Fault = tuple[int, str, str]


class Sort(Enum):
    """What a value of page code is."""

    PLAIN = "a value that the page spells"
    CONSTANT = "a constant of a study"
    MODULE = "a module"
    FUNCTION = "a function"
    CASE = "a case"
    RECORDS = "records"
    TABLE = "a table of a study"
    CHART = "a chart"
    BLOCK = "a block"
    FACT = "a fact"
    VERDICT = "a verdict"
    NOTHING = "nothing"
    REFUSED = "refused"


UNKNOWN: Any = object()


@dataclass(frozen=True)
class Value:
    """A value of page code: its sort, what it is where that is known, and its name where it is a function."""

    sort: Sort
    known: Any = UNKNOWN
    name: str = ""
    of: tuple[str, tuple[tuple[str, Any], ...]] | None = None  # the case and the cell of records, tables and charts


@dataclass(frozen=True)
class FactUse:
    """A fact that the page shows: where, of which case (the name it has on the page), its name and its cell."""

    line: int
    case: str
    name: str
    cell: Mapping[str, Any]
    source: str = ""  # the inline expression that shows it


@dataclass
class Code:
    """What was read from the code of a page."""

    faults: list[Fault] = field(default_factory=list)
    texts: list[Piece] = field(default_factory=list)
    facts: list[FactUse] = field(default_factory=list)
    labels: list[tuple[int, str, str]] = field(default_factory=list)  # line, name of a metric, the words it is given
    reading: str = ""  # the inline expression that is being read
    own: str = ""  # what the page calls its case
    scopes: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # case -> scope
    modules: set[str] = field(default_factory=set)  # modules of the study that the page reads
    grids: dict[str, str] = field(default_factory=dict)  # case -> grid, of cases elsewhere
    headed: list[tuple[int, Any, str]] = field(default_factory=list)  # what is drawn, of which cell, under which words
    shown: list[str] = field(default_factory=list)  # functions of the site, as they are called, with their case


REFUSED = Value(Sort.REFUSED)
PLAIN, TABLE, RECORDS, CASE = Sort.PLAIN, Sort.TABLE, Sort.RECORDS, Sort.CASE
SITE: dict[str, dict[str, Sort]] = {
    "page": {
        "elsewhere": CASE, "records": RECORDS, "pooled": TABLE, "answers": Sort.BLOCK, "checklist": Sort.BLOCK,
        "compared": Sort.BLOCK, "regime_table": Sort.BLOCK, "parameters": Sort.BLOCK, "environment": Sort.BLOCK,
        "cells": Sort.BLOCK, "facts": Sort.BLOCK, "confidence_sentence": Sort.FACT,
        "maybe": Sort.FACT, "origin": Sort.FACT, "count": Sort.FACT,
    },
    "pages": {"chart": Sort.BLOCK, "table": Sort.BLOCK, "html": Sort.BLOCK},
    "parts": {
        "criteria_table": Sort.BLOCK, "reasons": Sort.BLOCK, "coverage": Sort.FACT, "limits": Sort.BLOCK,
        "numbers": Sort.BLOCK, "recorded": Sort.BLOCK, "random_samples": Sort.BLOCK, "artifacts": Sort.BLOCK,
        "logged": Sort.BLOCK,
    },
    "blocks": {"draw": TABLE, "samples": Sort.BLOCK},
    "samples": {"chosen": Sort.BLOCK},
    "bench": {
        "projected": Sort.FACT, "ways": Sort.BLOCK, "metrics": Sort.BLOCK, "hours": Sort.BLOCK, "recorded": Sort.BLOCK,
        "passes": Sort.BLOCK, "ratios": Sort.BLOCK, "unpaid": Sort.BLOCK, "same_in_bf16": Sort.BLOCK,
    },
    "findings": {"found": Sort.BLOCK},
    "overview": {"claims": Sort.BLOCK, "runs": Sort.BLOCK},
    "architectures": {"table_of_architectures": Sort.BLOCK},
    "yours": {"your_runs": Sort.BLOCK},
    "log": {"show": Sort.BLOCK},
    "graph": {"all_claims": TABLE},
    "drawing": dict.fromkeys(("draw", "claims_table", "relations_table"), Sort.BLOCK),
}  # fmt: skip
"""Functions of `helpers.site`, and of the views of `helpers.bench`, that a page may call, and what they give."""
PLOTS = ("interval_rates", "forest", "heatmaps", "lines", "scatter_matched", "matrices")
READERS = ("views", "published")
"""Modules of a study whose functions give tables."""
TAKES = {
    **{name: {TABLE} for name in ("pages.table", *(f"plots.{plot}" for plot in PLOTS))},
    "pages.chart": {Sort.CHART}, "pages.html": {TABLE}, "blocks.draw": {TABLE}, "blocks.samples": {TABLE},
    "len": {Sort.CONSTANT}, "display": {Sort.BLOCK},
}  # fmt: skip
"""What the first argument must be."""
OF_CELLS = ("fact", "records", "elsewhere", "pooled", "cells", "facts", "maybe")
"""Functions whose keywords are axes of the grid, so that their numbers pick cells and reach nobody."""
LAYOUT = frozenset(["columns", "seed", "n", "top", "every"])
"""Keywords whose numbers lay something out."""
BOUNDS = (0, 1)
"""Reference lines that a chart may draw by number: none and all. Another threshold is a constant of its study."""
SHOWABLE = frozenset([Sort.BLOCK, Sort.NOTHING, Sort.REFUSED])
BENCH = "bench"
DERIVE = "derive it in the study, under a name, and show the fact"


def flat(values: Iterable[Any]) -> Iterator[Value]:
    """All values inside ``values``, those in lists and mappings of the page included."""
    for one in values:
        if isinstance(one, Value):
            yield one
            inner = one.known
        else:
            inner = one
        if isinstance(inner, dict):
            yield from flat(inner.values())
        elif isinstance(inner, list | tuple):
            yield from flat(inner)


def of_a_case(positional: Sequence[Value]) -> bool:
    """Whether a block of the site is given a case, or cases or records under names."""
    if not positional:
        return False
    first = positional[0]
    inside = [one.sort for one in flat([first])] if first.sort is PLAIN else [first.sort]
    return bool({CASE, RECORDS} & set(inside))


def numbers(positional: Sequence[Value], keywords: Mapping[str, Value]) -> Iterator[tuple[Any, str]]:
    """Numbers among the arguments that lay nothing out and name no bound of a share."""
    given = [("an argument", one) for one in positional] + [(f"{key}=", one) for key, one in keywords.items()]
    for where, value in given:
        name = where.removesuffix("=")
        for number in _spelled(value.known):
            if name not in LAYOUT and not (name == "references" and number in BOUNDS):
                yield number, where


def _spelled(known: Any) -> Iterator[int | float]:
    if isinstance(known, Value):
        yield from _spelled(known.known)
    elif isinstance(known, dict):
        yield from itertools.chain.from_iterable(map(_spelled, (*known, *known.values())))
    elif isinstance(known, list | tuple):
        yield from itertools.chain.from_iterable(map(_spelled, known))
    elif isinstance(known, int | float) and not isinstance(known, bool):
        yield known


@functools.cache
def defined(module: str) -> frozenset[str]:
    """Names that a module of ours defines itself, read from its source: importing one may load torch."""
    path = module_file(module, ROOT / "src")
    if path is None:
        return frozenset()
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {one.id for one in node.targets if isinstance(one, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return frozenset(names)

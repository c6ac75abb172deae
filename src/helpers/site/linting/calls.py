"""Calls in page code: whether a page may make one, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from helpers.site.linting.language import (
    CASE,
    DERIVE,
    OF_CELLS,
    PLAIN,
    SITE,
    TABLE,
    TAKES,
    Code,
    FactUse,
    Sort,
    Value,
    flat,
    numbers,
    of_a_case,
)  # fmt: skip


@dataclass(frozen=True)
class Call:
    """A call with its arguments; ``called`` is the name that its value is bound to."""

    function: Value
    positional: Sequence[Value]
    keywords: Mapping[str, Value]
    called: str
    line: int

    @property
    def base(self) -> str:
        """The function without its module."""
        return self.function.name.rpartition(".")[2]


def fault(call: Call, page: str, code: Code) -> str | None:
    """Return why a page may not make this call, if there is a reason."""
    name, base = call.function.name, call.base
    given = [*call.positional, *call.keywords.values()]
    if any(one.sort in (Sort.FACT, Sort.VERDICT, Sort.FUNCTION) for one in flat(given)):
        return f"a fact is shown and not handed on: {DERIVE}"
    if name == "open_case" and ([one.known for one in call.positional] != [page] or call.keywords or "" in code.scopes):
        return f"a page opens its own case, once: write open_case({page!r})"
    if name == "fact" and (len(call.positional) != 1 or not isinstance(call.positional[0].known, str)):
        return "a fact is asked for by its name"
    if name == "page.elsewhere" and not call.called:
        return "a case elsewhere has a name of its own: bind it first"
    wanted = TAKES.get(name)
    if wanted and (not call.positional or call.positional[0].sort not in wanted):
        return f"{base}() takes {' or '.join(sort.value for sort in wanted)}, as it is: {DERIVE}"
    if name.startswith(("page.", "parts.")) and not of_a_case(call.positional):
        return f"{base}() takes the case of the page"
    if base not in OF_CELLS:
        for number, where in numbers(call.positional, call.keywords):
            return f"the number {number} in {where} reaches the reader: {DERIVE}"
    return None


def result(call: Call, code: Code) -> Value:
    """Return what a call gives, and note what it shows in ``code``."""
    name, base = call.function.name, call.base
    module = name.rpartition(".")[0]
    if name == "open_case":
        code.own, code.scopes[""] = call.called, {}
        return Value(CASE, name=call.called)
    if name == "fact":
        cell = {axis: one.known for axis, one in call.keywords.items()}
        code.facts.append(FactUse(call.line, call.function.known, call.positional[0].known, cell, code.reading))
        return Value(Sort.FACT)
    if name == "verdict":
        return Value(Sort.VERDICT)
    if name in ("len", "display"):
        return Value(Sort.CONSTANT if name == "len" else Sort.NOTHING)
    if module in ("page", "parts"):
        code.shown.append(f"{base}({call.positional[0].name})")
    if name == "page.elsewhere":
        scope = call.positional[1] if len(call.positional) > 1 else call.keywords.get("scope", Value(PLAIN))
        code.scopes[call.called] = scope.known if isinstance(scope.known, dict) else {}
        code.grids[call.called] = str([*call.positional, *call.keywords.values()][-1].known)
        return Value(CASE, name=call.called)
    of = _of(call)
    if of:
        words = [one.known for key, one in call.keywords.items() if key in HEADS and isinstance(one.known, str)]
        code.headed += [(call.line, of, text) for text in words]
    if module == "plots":
        return Value(Sort.CHART, of=of)
    return Value(SITE[module][base] if module in SITE else TABLE, of=of)


HEADS = ("heading", "subtitle", "caption", "title")


def _of(call: Call) -> tuple[str, tuple[tuple[str, Any], ...]] | None:
    """Return the case and the cell that a call's records or tables are of, where all are of one."""
    found = {one.of for one in flat(call.positional) if one.of}
    if call.base in ("records", "pooled") and call.positional[0].sort is CASE:
        cell = tuple((axis, one.known) for axis, one in call.keywords.items() if isinstance(one.known, str))
        found = {(call.positional[0].name, cell)}
    return found.pop() if len(found) == 1 else None

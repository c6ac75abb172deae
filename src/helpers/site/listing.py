"""What ``claimbook status`` prints: three lines a claim, or every cell and every page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import get_args

from helpers.site.status import DRAFT, CellStatus, PageStatus, State

NOTHING = ["No experiment declares a grid yet: `claimbook new my-study --blank` writes one."]


def summary(cells: Sequence[CellStatus], pages: Sequence[PageStatus]) -> list[str]:
    """Return three lines a claim, a line for each experiment that has no page, and how to see the rest.

    A record that cannot be read, that no params file declares, or that was made before a commit adds a line: nobody
    should have to look for why.
    """
    lines = []
    for page in pages:
        lines.append(f"{page.page}: {_judged(page)}")
        mine = [cell for cell in cells if cell.notebook == page.experiment]
        lines += [f"  runs: {_counts(mine)}", *_apart(mine)] if mine else []
        if page.verdict == DRAFT:
            lines.append(f"  first: {_plain('; '.join(page.why))}")
        else:
            lines.append(f"  stale: {'; '.join(page.why)}" if page.why else "  nothing has changed since")
            lines += [f"  code: {page.code}"] if page.code else []
            lines += [f"  measured: {page.measured}, so nothing can derive them again"] if page.measured else []
    for notebook in dict.fromkeys(cell.notebook for cell in cells):
        if notebook not in {page.experiment for page in pages}:
            mine = [cell for cell in cells if cell.notebook == notebook]
            lines += [f"params/{notebook}: no page yet; runs: {_counts(mine)}", *_apart(mine)]
    return [*lines, "Every cell: claimbook status --all"] if lines else NOTHING


def whole(cells: Sequence[CellStatus], pages: Sequence[PageStatus]) -> list[str]:
    """Return a line for each params file, cell and page, with the reasons why one is stale or failed."""
    lines = []
    for grid in dict.fromkeys(cell.grid for cell in cells):
        mine = [cell for cell in cells if cell.grid == grid]
        lines.append(f"{grid}: {_counts(mine)}")
        lines += [f"  {cell.state:<10} {cell.cell}{_because(cell.why)}" for cell in mine]
    lines += [f"{page.page}: {_judged(page)}{_because((*page.why, *filter(None, [page.measured])))}" for page in pages]
    return lines or NOTHING


def _judged(page: PageStatus) -> str:
    return page.verdict if page.verdict == DRAFT else f"{page.verdict}, confidence {page.confidence}"


def _apart(cells: Sequence[CellStatus]) -> list[str]:
    lines = []
    for state in ("unreadable", "ad hoc"):
        some = [cell for cell in cells if cell.state == state]
        more = f" and {len(some) - 1} more" if len(some) > 1 else ""
        lines += [f"  {state}: {cell.cell}{_because(cell.why)}{more}" for cell in some[:1]]
    return lines


def _counts(cells: Iterable[CellStatus]) -> str:
    states = [cell.state for cell in cells]
    counts = [f"{states.count(state)} {state}" for state in get_args(State) if state in states]
    return ", ".join(counts) or "none is declared"


def _because(why: tuple[str, ...]) -> str:
    text = _plain("; ".join(why))
    return f"  ({text})" if text else ""


def _plain(text: str) -> str:
    """Return text that commands a terminal to nothing: it holds errors that a record brought along."""
    return "".join(mark for mark in text if mark.isprintable())

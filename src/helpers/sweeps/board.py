"""The live table of a sweep: cells done, running, failed, and the time left. Without a terminal, lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

LINE_SECONDS = 10.0  # at least between two lines where there is no terminal
SHOWN = 8


@dataclass(frozen=True)
class Counts:
    """Cells of the grid: done before this sweep, done by it, being worked on, failed, and not begun."""

    total: int
    before: int
    done: int
    running: int
    failed: int

    @property
    def waiting(self) -> int:
        """Cells that nobody has begun."""
        return self.total - self.before - self.done - self.running - self.failed


@dataclass
class Board:
    """Shows the counts on ``stream``; on a terminal in place, else as a line when they have changed."""

    title: str
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    _begin: float = field(default_factory=time.monotonic)
    _said: tuple[float, str] = (-LINE_SECONDS, "")

    def __enter__(self) -> Self:
        console = Console(file=self.stream)
        self._live = Live(console=console, refresh_per_second=4, transient=False) if console.is_terminal else None
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, counts: Counts, working: Sequence[str], *, last: bool = False) -> None:
        """Show where the sweep stands; ``working`` names the cells that are being worked on."""
        spent = time.monotonic() - self._begin
        if self._live:
            self._live.update(self._table(counts, working, spent))
            return
        line = self._line(counts)
        if line != self._said[1] and (last or spent - self._said[0] >= LINE_SECONDS):
            left = eta(counts, spent)
            print(f"{line}, {clock(spent)} spent, about {left} left", file=self.stream, flush=True)
            self._said = (spent, line)

    def _line(self, counts: Counts) -> str:
        done = counts.before + counts.done
        return f"{self.title}: {done} of {counts.total} cells done, {counts.running} running, {counts.failed} failed"

    def _table(self, counts: Counts, working: Sequence[str], spent: float) -> Group:
        table = Table(title=self.title, title_justify="left")
        for name in ("cells", "done", "running", "failed", "waiting", "spent", "left"):
            table.add_column(name, justify="right", no_wrap=True)
        row = (counts.total, counts.before + counts.done, counts.running, counts.failed, counts.waiting)
        table.add_row(*map(str, row), clock(spent), eta(counts, spent))
        more = [f"and {len(working) - SHOWN} more"] if len(working) > SHOWN else []
        # A line each: one that wraps would make the table jump.
        lines = (Text(f"  {name}", no_wrap=True, overflow="ellipsis") for name in [*working[:SHOWN], *more])
        return Group(table, *lines)


def eta(counts: Counts, spent: float) -> str:
    """Time left at the pace of the cells that this sweep has finished; ``?`` before the first."""
    left = counts.running + counts.waiting
    if not left:
        return clock(0)
    return clock(spent / counts.done * left) if counts.done else "?"


def clock(seconds: float) -> str:
    """``75`` as ``1:15``, ``3700`` as ``1:01:40``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

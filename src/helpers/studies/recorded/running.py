"""Run a command as a shell would: its output and signals are passed on, and the end of its output is kept."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from helpers.base.errors import ClaimbookError

TAIL_BYTES, TAIL_LINES, LINE = 65_536, 200, 1_000
DRAIN = 5.0
"""Seconds to wait for output after the command has ended: what it left in the background may hold the pipe open."""
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])")


class CommandError(ClaimbookError):
    """The command ended with another status than 0; ``status`` is what a shell would give."""

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class Ended:
    """How a command ended: its status as a shell gives it, when (nanoseconds), and the last lines of its output."""

    status: int
    at_ns: int
    tail: list[str]

    @property
    def how(self) -> str:
        """How it ended, in a clause."""
        if self.status <= 128:
            return f"ended with exit status {self.status}"
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(self.status - 128).name}"
        return f"ended with exit status {self.status}"


class _Tail:
    """The last lines of what several streams wrote, in the order in which they ended."""

    def __init__(self) -> None:
        self._kept, self._begun, self._lock = bytearray(), dict[BinaryIO, bytes](), threading.Lock()

    def copy(self, stream: BinaryIO, onto: Any) -> None:
        """Pass on all of ``stream`` as it comes, and keep its end. A reader that has gone stops nothing."""
        with stream:
            while piece := os.read(stream.fileno(), 65_536):
                with self._lock:
                    whole, newline, begun = (self._begun.get(stream, b"") + piece).rpartition(b"\n")
                    self._begun[stream] = begun[-TAIL_BYTES:]
                    self._kept += whole + newline
                    del self._kept[:-TAIL_BYTES]
                with contextlib.suppress(OSError, ValueError):
                    onto.write(piece)
                    onto.flush()

    def lines(self) -> list[str]:
        """Return the last lines as text, without what steers a terminal; of a line written over, what was left."""
        with self._lock:
            whole = bytes(self._kept) + b"\n".join(filter(None, self._begun.values()))
        text = ESCAPES.sub("", whole.decode("utf-8", errors="replace"))
        shown = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
        plain = ["".join(mark for mark in line if mark.isprintable() or mark == "\t")[:LINE] for line in shown]
        return plain[:-1][-TAIL_LINES:] if plain[-1:] == [""] else plain[-TAIL_LINES:]


def run(command: Sequence[str], environment: Mapping[str, str]) -> Ended:
    """Run ``command`` in the folder we are in, and return how it ended.

    SIGINT, SIGTERM and SIGHUP reach the command, which ends by itself; a second one is passed on as well.
    """
    tail = _Tail()
    with _signals_to() as forward:
        process = subprocess.Popen(command, env=dict(environment), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        forward.append(process)
        threads = [
            threading.Thread(target=tail.copy, args=(stream, _bytes(onto)), daemon=True)
            for stream, onto in ((process.stdout, sys.stdout), (process.stderr, sys.stderr))
        ]
        for thread in threads:
            thread.start()
        status = process.wait()
    deadline = time.monotonic() + DRAIN
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return Ended(status if status >= 0 else 128 - status, time.time_ns(), tail.lines())


@contextlib.contextmanager
def _signals_to() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Pass signals on to the process that the block appends. A terminal sends Ctrl-C to both of us by itself."""
    to: list[subprocess.Popen[bytes]] = []

    def forward(number: int, frame: Any) -> None:
        if to and not (number == signal.SIGINT and os.isatty(0)):
            to[0].send_signal(number)

    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, forward) for number in FORWARDED} if is_main else {}
    try:
        yield to
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _bytes(stream: Any) -> Any:
    stream.flush()
    return getattr(stream, "buffer", stream)

"""Typed errors. Each message is one sentence: what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST = 240
"""Characters of another package's message that one of our sentences takes over."""

LISTED = 50
"""Known names that a sentence lists where none is close."""


class ClaimbookError(Exception):
    """Base of every error that Claimbook raises on purpose."""

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows, in notebooks too: the sentence, then the traceback, which ends with it."""
        from IPython import get_ipython

        traceback = get_ipython().InteractiveTB.structured_traceback(type(self), self, self.__traceback__)
        return [f"{type(self).__name__}: {self}", *traceback]


class ParameterError(ClaimbookError):
    """A parameter is unknown, of the wrong type, out of bounds or contradicts another."""


class RecordError(ClaimbookError):
    """A run record is missing, incomplete, corrupt or cannot be written."""


class ModelError(ClaimbookError):
    """A model folder, hub id or adapter cannot be used as asked."""


class DataError(ClaimbookError):
    """A data row breaks what the experiment needs of it."""


class ClaimError(ClaimbookError):
    """A claim block, criteria file or fact is malformed or does not exist."""


class ExportError(ClaimbookError):
    """Something cannot be exported, or what lies in its place is not ours to replace."""


class SweepError(ClaimbookError):
    """A sweep cannot be started, or a machine of its cluster cannot work on it."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known name, or the list of known names when none is close."""
    known = sorted(map(str, known))
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    more = f" and {len(known) - LISTED:,} more" if len(known) > LISTED else ""
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known[:LISTED])}{more}"

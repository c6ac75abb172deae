"""A cache of what is computed from records, keyed by the content it is made from and by all the code that makes it."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

from helpers.base import files
from helpers.base.errors import RecordError
from helpers.system import provenance, source

_trusted = contextvars.ContextVar("trusted", default=True)


@contextlib.contextmanager
def nothing_recalled() -> Iterator[None]:
    """Compute everything anew inside the block: what proves that records are what they say must trust no cache."""
    token = _trusted.set(False)
    try:
        yield
    finally:
        _trusted.reset(token)


class Recalled:
    """What is in ``outputs/.derived``. The source is read once: make another one when it may have changed."""

    def __init__(self) -> None:
        self._code = functools.cache(_code)
        self._environment = provenance.environment_of_arithmetic()

    def recall(self, make: Callable[[], dict[str, Any]], made_of: list[Any], *modules: str) -> dict[str, Any]:
        """Return the result of ``make``, kept by what it is made of and the source of ``modules`` with all imports."""
        code = self._code(*modules) if _trusted.get() else None
        if code is None:
            return make()
        path = files.outputs_root() / ".derived" / f"{files.sha256_json([*made_of, code, self._environment])}.json"
        with contextlib.suppress(OSError, ValueError):  # nothing is kept, or a disk that failed has damaged it
            return json.loads(path.read_text(encoding="utf-8"))
        made = make()
        files.write_json(path, made)
        return made


def _code(*modules: str) -> dict[str, str] | None:
    try:
        return source.code_closure(*modules, bookkeeping=True)
    except RecordError:  # a study outside helpers, whose source cannot be followed
        return None

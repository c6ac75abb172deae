"""Errors of other packages as ours: models, adapters and tokenizers are read by libraries that raise anything."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from helpers.base.errors import LONGEST, ClaimbookError, ModelError


@contextlib.contextmanager
def foreign_errors(what: str, remedy: str) -> Iterator[None]:
    """Turn what another package raises in the block into one sentence with its message, chained to the original."""
    try:
        yield
    except ClaimbookError:
        raise
    except Exception as error:  # tokenizers raises bare Exception, and others have error classes of their own
        told = " ".join(str(error).split()).rstrip(".") or "no message"
        told = told if len(told) <= LONGEST else f"{told[:LONGEST]}..."
        raise ModelError(f"{what} ({type(error).__name__}: {told}). {remedy}.") from error

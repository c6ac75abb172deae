"""What a disk that is full, closed to us or broken says, as one sentence."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from helpers.base.errors import RecordError

FULL = (errno.ENOSPC, errno.EDQUOT)  # what the system says of a disk, or of a user's share of it
FAILING = (
    errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN,
    errno.EREMOTEIO, errno.ENOMEDIUM,
)  # fmt: skip
"""What the system says of a disk that is broken, or of a folder on the network that is gone."""


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, a missing permission or a disk that fails into one sentence that names the path."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise _full(path) from error
        if error.errno in (errno.EACCES, errno.EROFS):
            raise RecordError(
                f"{path} cannot be written: check its permissions, or move it by CLAIMBOOK_OUTPUTS or CLAIMBOOK_CACHE."
            ) from error
        if error.errno in FAILING:
            raise RecordError(
                f"The disk of {path} fails ({error.strerror}): run the same command again when it is back."
            ) from error
        raise
    except SafetensorError as error:
        # safetensors has an error of its own, with the system's number in the text only.
        if f"os error {errno.ENOSPC}" in str(error):
            raise _full(path) from error
        raise


def _full(path: Path) -> RecordError:
    return RecordError(f"No space is left on the disk of {path}: free some and run the same command again.")

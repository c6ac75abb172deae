"""A cell made once a test module, whose records a test may ask for instead of making them again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def make_once(run: Callable[[], Any], factory: pytest.TempPathFactory) -> Path:
    """Return the outputs folder in which ``run`` has made its records."""
    folder = factory.mktemp("made") / "outputs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLAIMBOOK_OUTPUTS", str(folder))
        patch.setenv("CLAIMBOOK_PUBLISHED", str(folder / "published"))
        patch.setenv("CLAIMBOOK_THREADS", "1")  # so that another run can be compared to the last bit
        run()
    return folder


def bring(made: Path, outputs: Path) -> None:
    """Copy the records in ``made`` to the outputs of a test, which may change them."""
    shutil.copytree(made, outputs, dirs_exist_ok=True)

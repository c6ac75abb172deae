"""What a Python process started by a test imports."""

from __future__ import annotations

import os
from pathlib import Path

from helpers.base import files


def python_path() -> str:
    """Return a PYTHONPATH that begins with this checkout and ``tests``, whichever checkout is installed."""
    before = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join(filter(None, [str(files.ROOT / "src"), str(Path(__file__).parent), before]))

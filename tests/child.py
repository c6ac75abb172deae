"""What a Python process started by a test imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from helpers.base import files


def python_path() -> str:
    """Return a PYTHONPATH that begins with this checkout and ``tests``, whichever checkout is installed."""
    before = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join(filter(None, [str(files.ROOT / "src"), str(Path(__file__).parent), before]))


ANSWERED = """
import json, sys
import jupytext
tagged, *cells = [one.source for one in jupytext.read(sys.argv[1]).cells if one.cell_type == "code"]
space = {"__name__": "__main__"}
exec(tagged, space)
space |= json.loads(sys.argv[2])
for source in cells:
    exec(source, space)
print("loaded:", *sorted({"torch", "transformers", "peft"} & set(sys.modules)))
"""


def loaded_by(notebook: str, parameters: Mapping[str, object]) -> list[str]:
    """Return which of torch, transformers and peft were imported by a run of the whole notebook."""
    command = [sys.executable, "-c", ANSWERED, str(files.NOTEBOOKS / f"{notebook}.py"), json.dumps(parameters)]
    env = os.environ | {"PYTHONPATH": python_path(), "TQDM_DISABLE": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "step" not in done.stdout, "every cell is answered by its record"
    return done.stdout.splitlines()[-1].removeprefix("loaded:").split()

"""Send training curves to Trackio or W&B as they come, where ``CLAIMBOOK_TRACK`` names one of them; off by default.

    with curves.sent("sweep/abc", params) as send:
        send(step, {"loss": 2.1, "lr": 1e-4})

The record holds every number in any case. So what the tracker does never changes or stops a run: its first failure is
said in one line, and the process sends no more.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import math
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tqdm.auto import tqdm

from helpers.base import files
from helpers.base.errors import LONGEST, ParameterError, nearest

VARIABLE = "CLAIMBOOK_TRACK"
SECONDS = 20.0  # that W&B may take to begin or to end
Send = Callable[[int, Mapping[str, Any]], None]
_failed: list[str] = []


def nowhere(step: int, values: Mapping[str, Any]) -> None:
    """Send nothing: what trainings do without a tracker."""


def check() -> str | None:
    """Return the tracker that ``CLAIMBOOK_TRACK`` names, if any; ``ParameterError`` if it is unknown or not there."""
    name = os.environ.get(VARIABLE)
    if not name:
        return None
    if name not in _BEGIN:
        raise ParameterError(f"{VARIABLE} is {files.shown(name)}{nearest(name, _BEGIN)}")
    if importlib.util.find_spec(name) is None:
        raise ParameterError(
            f"{VARIABLE} asks for {name}, which is not installed. Unset it, or run "
            '`.venv/bin/pip install -c constraints.txt -e ".[track]"`.'
        )
    return name


@contextlib.contextmanager
def sent(name: str, config: Mapping[str, Any]) -> Iterator[Send]:
    """Yield what sends the numbers of a step (from 1) to a new curve ``name``. Numbers that are not finite stay here.

    A training that resumes opens another curve in the same group, which is called like the first.
    """
    tracker = check()
    if tracker is None or _failed:
        yield nowhere
        return
    curve = _Curve(tracker, name, config)
    try:
        yield curve.send
    finally:
        curve.end()


class _Curve:
    def __init__(self, tracker: str, name: str, config: Mapping[str, Any]):
        self.tracker, self.name, self.config = tracker, name, dict(config)
        self.run: Any = None

    def send(self, step: int, values: Mapping[str, Any]) -> None:
        if _failed:
            return
        numbers = {key: float(value) for key, value in values.items() if isinstance(value, int | float)}
        numbers = {key: value for key, value in numbers.items() if key != "step" and math.isfinite(value)}
        with self._survived():
            if self.run is None:
                self.run = _BEGIN[self.tracker](importlib.import_module(self.tracker), self.name, self.config)
            self.run.log(numbers, step=step)

    def end(self) -> None:
        if self.run is not None:
            with self._survived():
                self.run.finish()

    @contextlib.contextmanager
    def _survived(self) -> Iterator[None]:
        """Say the first failure of the block, whatever it is: no tracker may stop a run, or change its draws."""
        drawn = random.getstate()  # trackio draws names from the global generator
        try:
            # trackio prints its progress, and warns of a service that it cannot reach.
            with warnings.catch_warnings(record=True) as warned, contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("always", UserWarning)
                yield
            if warned:
                raise warned[0].category(warned[0].message)
        except Exception as error:
            if not _failed:
                said = " ".join(str(error).split()).rstrip(".")
                _failed.append(said if len(said) <= LONGEST else f"{said[:LONGEST]}...")
                why = f"{type(error).__name__}: {_failed[0] or 'no message'}"
                line = f"{self.name}: no more curves are sent, because {self.tracker} failed ({why}). The run goes on."
                tqdm.write(line, file=sys.stderr)
        finally:
            random.setstate(drawn)


def _wandb(wandb: Any, name: str, config: dict[str, Any]) -> Any:
    place = files.outputs_root() / ".curves"  # else a folder in whichever one the run began
    place.mkdir(parents=True, exist_ok=True)
    quiet = {"console": "off", "silent": True, "disable_git": True, "disable_code": True}
    limits = {"init_timeout": SECONDS, "finish_timeout": SECONDS, "finish_timeout_raises": True, "login_timeout": 1}
    return wandb.init(
        project="claimbook", name=name, group=name, config=config, dir=os.environ.get("WANDB_DIR") or str(place),
        reinit="create_new", settings=wandb.Settings(**quiet, **limits),
    )  # fmt: skip


def _trackio(trackio: Any, name: str, config: dict[str, Any]) -> Any:
    return trackio.init(
        project="claimbook", name=name, group=name, config=config, embed=False, auto_log_cpu=False, auto_log_gpu=False
    )


_BEGIN: dict[str, Callable[[Any, str, dict[str, Any]], Any]] = {"trackio": _trackio, "wandb": _wandb}

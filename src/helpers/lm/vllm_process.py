"""Run vLLM in its own process: start it offline and quiet, watch it, and end it with all its workers."""

# pyright: reportMissingImports=false
# vLLM is an extra, and not installed where types are checked.
from __future__ import annotations

import contextlib
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from helpers.base.errors import ModelError

if TYPE_CHECKING:
    import queue

    from vllm import LLM

PATIENCE = 10
"""Seconds that the processes have to end by themselves."""
EXTRA = 'pip install -e ".[vllm]"'

_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    # vLLM's sockets have no authentication, so no other machine must reach them.
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_LOOPBACK_IP": "127.0.0.1",
    # A forked process inherits the locks of torch and Jupyter in whatever state they are in, and may hang.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    # Otherwise vLLM works in this process, which then keeps the GPU's memory.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
}
_GUARD = """
import os, signal, sys
if not sys.stdin.buffer.read():
    for pid in sys.argv[1:]:
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            pass
"""


class VllmProcess:
    """vLLM's ``LLM`` as ``llm``, and the processes that it started. ``end()`` leaves none of them behind."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        before = multiprocessing.active_children()
        self.llm = _start(folder, settings)
        started = [process for process in multiprocessing.active_children() if process not in before]
        # Listed now, because the workers of a dead engine process are no longer its children.
        pids = [process.pid for process in started if process.pid is not None]
        self.processes = [process for pid in pids for process in _with_children(pid)]
        _tell_of_death([process.sentinel for process in started], self.llm.llm_engine.engine_core.outputs_queue)
        self._guard = _guard([process.pid for process in self.processes])

    def end(self) -> None:
        """End the processes; kill those that still run after ``PATIENCE`` seconds."""
        self.llm.llm_engine.engine_core.shutdown()
        _, alive = psutil.wait_procs(self.processes, timeout=PATIENCE)
        for process in alive:
            process.kill()
        psutil.wait_procs(alive)
        self._guard.communicate(b"ended")


def _start(folder: Path, settings: dict[str, Any]) -> LLM:
    with _environment():
        try:
            from vllm import LLM
        except ModuleNotFoundError as error:
            if error.name != "vllm":
                raise
            raise ModelError(
                f"The engine vllm needs the package vLLM, which is an extra of Claimbook. Run {EXTRA}, or use the "
                "engine transformers."
            ) from error
        from vllm.platforms import current_platform

        on_cpu = current_platform.is_cpu()
        try:
            # The CPU build is for tests, where compiling would take longer than generating. Chunked prefill rewinds
            # the random generator, and only a GPU's can be rewound.
            return LLM(str(folder), **settings, enforce_eager=on_cpu, enable_chunked_prefill=not on_cpu)
        except (OSError, RuntimeError, ValueError) as error:
            raise ModelError(
                f"vLLM cannot serve {folder}: {' '.join(str(error).split())[:500]} See the output of its process "
                "above. Change memory_share, max_length or dtype, or use the engine transformers."
            ) from error


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Set the variables that vLLM reads at its import and start, inside the block only."""
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _with_children(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _tell_of_death(sentinels: list[int], outputs: queue.Queue) -> None:
    """Report the death of the engine's process, for whose output vLLM would otherwise wait for ever."""
    from vllm.v1.engine.exceptions import EngineDeadError

    def watch() -> None:
        wait(sentinels)
        outputs.put(EngineDeadError())

    threading.Thread(target=watch, daemon=True, name="vllm-watch").start()


def _guard(pids: list[int]) -> subprocess.Popen:
    """Start a small process that kills ``pids`` when this one is gone. vLLM's own would keep the GPU's memory."""
    command = [sys.executable, "-I", "-S", "-c", _GUARD, *map(str, pids)]
    # In its own session, so that Ctrl-C in the terminal does not end the guard before what it guards.
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

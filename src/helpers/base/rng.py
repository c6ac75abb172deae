"""Named random streams, all derived from one seed.

A stream is addressed by names, not by the order in which code happens to ask for it, so adding a stream never
changes another one. Python's ``hash`` is salted per process and the global generators are shared: neither is used.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def stream_seed(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed for the stream ``names`` under ``seed``: the head of a SHA-256, equal on every machine."""
    address = "\x1f".join([str(int(seed)), *map(str, names)])
    return int.from_bytes(hashlib.sha256(address.encode()).digest()[:8], "big") >> 1


def numpy_stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return a NumPy generator for the stream ``names`` (Philox, whose output NumPy keeps stable across versions)."""
    return np.random.Generator(np.random.Philox(stream_seed(seed, *names)))


def torch_stream(seed: int, *names: str | int) -> torch.Generator:
    """Return a CPU torch generator for the stream ``names``. Draw on the CPU, then move, so that devices agree."""
    import torch  # here, because pages draw from streams too and need not wait for torch

    return torch.Generator().manual_seed(stream_seed(seed, *names))

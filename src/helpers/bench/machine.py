"""Measure this machine: its device, the FLOP/s that it reaches in a plain matrix product, the memory in use."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from time import perf_counter

import psutil
import torch

VENDOR = {
    "H200": 989.4e12,
    "H100 PCIe": 756.0e12,
    "H100 NVL": 835.5e12,
    "H100": 989.4e12,
    "A100": 312.0e12,
}
"""Dense bf16 FLOP/s from NVIDIA's data sheets of H200, H100 and A100 (half of the figures printed with sparsity)."""

SIZE = {"cuda": 8192, "cpu": 2048}
PRODUCTS = 10


def device() -> str:
    """Return ``cuda`` if torch sees such a device, else ``cpu``, as ``device: auto`` does everywhere."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def settle() -> None:
    """Wait until the device has finished its work, so that a clock read now covers all of it."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@functools.cache
def measured_peak(dtype: torch.dtype) -> float:
    """Return the FLOP/s of the fastest of ten matrix products (8192 squared on CUDA, 2048 on a CPU) in ``dtype``.

    A product of n x n matrices takes 2 n^3 floating-point operations. fp32 on CUDA follows torch's setting (TF32 off).
    """
    size = SIZE[device()]
    left, right = (torch.randn(size, size, device=device(), dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(PRODUCTS):
        settle()
        begin = perf_counter()
        torch.matmul(left, right)
        settle()
        seconds.append(perf_counter() - begin)
    return 2 * size**3 / min(seconds)


def vendor_peak(dtype: torch.dtype) -> float | None:
    """Return the vendor's dense FLOP/s of this GPU in bf16, or None for another dtype or an unlisted GPU."""
    if device() == "cpu" or dtype != torch.bfloat16:
        return None
    name = torch.cuda.get_device_name()
    return next((flops for part, flops in VENDOR.items() if part in name), None)


class Peak:
    """Memory in use at the start of `peak_memory` and at its peak, in MB, and the difference (``added``)."""

    before: float = 0.0
    most: float = 0.0

    @property
    def added(self) -> float:
        return max(0.0, self.most - self.before)


@contextlib.contextmanager
def peak_memory() -> Iterator[Peak]:
    """Watch memory during the block: tensors on the device under CUDA, else the resident memory of this process."""
    peak = Peak()
    if torch.cuda.is_available():
        settle()
        torch.cuda.reset_peak_memory_stats()
        peak.before = torch.cuda.memory_allocated() / 2**20
        yield peak
        settle()
        peak.most = torch.cuda.max_memory_allocated() / 2**20
        return
    own, done = psutil.Process(), threading.Event()
    peak.before = peak.most = own.memory_info().rss / 2**20

    def watch() -> None:
        while not done.wait(0.01):
            peak.most = max(peak.most, own.memory_info().rss / 2**20)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()

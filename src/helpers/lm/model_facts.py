"""What a run record says of a base model, known from its files: neither weights nor torch are loaded."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

from helpers.base.errors import ModelError, nearest
from helpers.lm import ways
from helpers.lm.model_files import fingerprint

DTYPES = ("float32", "bfloat16")


def facts(name: str, *, revision: str | None = None, device: str = "auto", dtype: str = "auto") -> dict[str, Any]:
    """Return the ``model`` entry of a run record (fingerprint, dtype, device) without loading the model."""
    where = device_of(device)
    kind = dtype_of(name, dtype, where)
    known = fingerprint(name, revision)
    ways.note_kept(known["sha256"], kind, where)
    return known | {"dtype": kind, "device": where}


def device_of(device: str) -> str:
    """Return where a model goes for the parameter ``device``; ``ModelError`` for one that is not here."""
    if device == "auto":
        return "cuda" if has_cuda() else "cpu"
    if device == "cpu":
        return device
    import torch  # here, as below: only what may be on a GPU asks torch

    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ModelError(f"device is {device!r}, which torch does not know. Use auto, cpu, cuda or cuda:0.") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"device is {device!r}, but torch sees no CUDA device here. Use 'auto' or 'cpu'.")
    return device


def dtype_of(name: str, dtype: str, device: str) -> str:
    """Return the number type of the weights of ``name`` on ``device``; ``ModelError`` for one that is not used."""
    if dtype in DTYPES:
        return dtype
    if dtype != "auto":
        raise ModelError(f"dtype is {dtype!r}{nearest(dtype, ['auto', *DTYPES])}.")
    # On a CPU bf16 has to be asked for: records then agree between CPUs that have it and those that do not.
    # The pocket model is fp32 everywhere, so that its records agree between machines as far as possible.
    if device.partition(":")[0] != "cuda" or name == "pocket":
        return "float32"
    import torch

    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"


def has_cuda() -> bool:
    """Whether torch sees a CUDA device. It is asked only where it is loaded, or a driver is here."""
    if "torch" not in sys.modules and not _has_driver():
        return False
    import torch

    return torch.cuda.is_available()


def _has_driver() -> bool:
    """Whether this machine may have a device that torch calls CUDA: of NVIDIA, or of AMD."""
    if sys.platform != "linux" or Path("/dev/kfd").exists():
        return True
    try:
        ctypes.CDLL("libcuda.so.1")  # what torch loads
    except OSError:
        return False
    return True

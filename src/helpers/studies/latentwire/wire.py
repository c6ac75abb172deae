"""What goes over the wire: latents as half-precision bytes, measured as they are sent."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from helpers.base.errors import DataError


def pack(z_md: Tensor) -> bytes:
    """Latents [M, d_z] of one example as fp16, little-endian; ``DataError`` for what fp16 cannot hold."""
    numbers = z_md.detach().half().cpu().numpy().astype("<f2")
    if not np.isfinite(numbers).all():
        raise DataError("The latents hold a number that fp16 cannot send: lower the learning rate and train again.")
    return numbers.tobytes()


def unpack(message: bytes, latents: int) -> Tensor:
    """The fp32 tensor [M, d_z] that the reader sees of a message."""
    return torch.from_numpy(np.frombuffer(message, dtype="<f2").reshape(latents, -1).astype(np.float32))


def send(z_bmd: Tensor) -> tuple[Tensor, int]:
    """Latents as they arrive [B, M, d_z], and the bytes of each message."""
    messages = [pack(z_md) for z_md in z_bmd]
    return torch.stack([unpack(message, z_bmd.shape[1]) for message in messages]).to(z_bmd.device), len(messages[0])

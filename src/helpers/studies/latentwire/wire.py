"""Send latents over the wire as half-precision bytes, and measure them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from helpers.base.errors import DataError


def pack(z_md: Tensor) -> bytes:
    """Pack the latents [M, d_z] of one example as little-endian fp16. Raises ``DataError`` for numbers out of range."""
    numbers = z_md.detach().half().cpu().numpy().astype("<f2")
    if not np.isfinite(numbers).all():
        raise DataError("The latents hold a number that fp16 cannot send. Lower the learning rate and train again.")
    return numbers.tobytes()


def unpack(message: bytes, latents: int) -> Tensor:
    """Unpack a message into the fp32 tensor [M, d_z] that the reader sees."""
    return torch.from_numpy(np.frombuffer(message, dtype="<f2").reshape(latents, -1).astype(np.float32))


def send(z_bmd: Tensor) -> tuple[Tensor, int]:
    """Send latents; return them as they arrive [B, M, d_z], and the bytes of each message."""
    messages = [pack(z_md) for z_md in z_bmd]
    return torch.stack([unpack(message, z_bmd.shape[1]) for message in messages]).to(z_bmd.device), len(messages[0])

"""Send latents over the wire as bytes, 16, 8 or 4 bits a number, and measure them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from helpers.base.errors import DataError


def pack(z_md: Tensor, bits: int = 16) -> bytes:
    """Pack the latents [M, d_z] of one example; little-endian fp16 at 16 bits. Raises ``DataError`` for a number that
    fp16 cannot hold.

    At 8 and 4 bits each vector is divided by a step of its own, its largest magnitude over 127 or 7, and rounded to
    whole numbers. The message holds the M steps in fp16, then the numbers, at 4 bits two a byte (the first one low).
    """
    numbers = z_md.detach().half().cpu().numpy().astype("<f2")
    if not np.isfinite(numbers).all():
        raise DataError("The latents hold a number that fp16 cannot send. Lower the learning rate and train again.")
    if bits == 16:
        return numbers.tobytes()
    most = 2 ** (bits - 1) - 1
    step_m1 = (np.abs(numbers.astype(np.float32)).max(axis=1, keepdims=True) / most).astype("<f2")
    by_m1 = np.where(step_m1 > 0, step_m1, 1).astype(np.float32)
    codes = np.clip(np.rint(numbers.astype(np.float32) / by_m1), -most, most).astype(np.int8).view(np.uint8)
    if bits == 4:
        codes = (codes[:, ::2] & 15) | ((codes[:, 1::2] & 15) << 4)
    return step_m1.tobytes() + codes.tobytes()


def unpack(message: bytes, latents: int, bits: int = 16) -> Tensor:
    """Unpack a message into the fp32 tensor [M, d_z] that the reader sees."""
    if bits == 16:
        return torch.from_numpy(np.frombuffer(message, dtype="<f2").reshape(latents, -1).astype(np.float32))
    head = 2 * latents
    step_m1 = np.frombuffer(message[:head], dtype="<f2").astype(np.float32)[:, None]
    codes = np.frombuffer(message[head:], dtype=np.uint8).reshape(latents, -1)
    if bits == 4:
        codes = np.stack([codes << 4, codes], axis=-1).reshape(latents, -1)
        return torch.from_numpy(step_m1 * (codes.view(np.int8) >> 4))
    return torch.from_numpy(step_m1 * codes.view(np.int8))


def send(z_bmd: Tensor, bits: int = 16) -> tuple[Tensor, int]:
    """Send latents; return them as they arrive [B, M, d_z], and the bytes of each message."""
    messages = [pack(z_md, bits) for z_md in z_bmd]
    arrived = [unpack(message, z_bmd.shape[1], bits) for message in messages]
    return torch.stack(arrived).to(z_bmd.device), len(messages[0])

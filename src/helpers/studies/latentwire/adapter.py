"""Map latents into the embedding space of a frozen model, at its usual amplitude: one adapter per reader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from helpers.studies.latentwire.encoder import ByteEncoder, initialise

CLIP = 3.0


class Adapter(nn.Module):
    """LayerNorm, Linear, learned scale, soft clip 3 tanh(x / 3), then the RMS of the reader's own embeddings.

    The RMS is matched over the M x D numbers of each example alone, so that it does not depend on the batch.
    """

    rms: Tensor

    def __init__(self, d_z: int, width: int, rms: float) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(d_z), nn.Linear(d_z, width)
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("rms", torch.tensor(rms))

    def forward(self, z_bmz: Tensor) -> Tensor:
        """Map Z [B, M, d_z] to a prefix [B, M, D] with root mean square ``rms``."""
        x_bmd = self.scale * self.linear(self.norm(z_bmz))
        x_bmd = CLIP * torch.tanh(x_bmd / CLIP)
        return x_bmd * (self.rms / x_bmd.square().mean((1, 2), keepdim=True).sqrt().clamp(min=1e-8))


class Wire(nn.Module):
    """The trained modules: the shared encoder and an adapter for each reader."""

    def __init__(self, encoder: ByteEncoder, adapters: Mapping[str, Adapter]) -> None:
        super().__init__()
        self.encoder, self.adapters = encoder, nn.ModuleDict(adapters)

    @classmethod
    def make(
        cls, *, latents: int, d_z: int, layers: int, heads: int, norm: str, readers: Mapping[str, tuple[int, float]],
        seed: int,
    ) -> Wire:  # fmt: skip
        """Make a wire for ``readers`` (width and embedding RMS of each), weights from the stream "wire" of ``seed``."""
        encoder = ByteEncoder(latents, d_z, layers, heads, norm)
        wire = cls(encoder, {side: Adapter(d_z, width, rms) for side, (width, rms) in readers.items()})
        initialise(wire, seed, "wire")
        return wire

    def adapter(self, side: str) -> Adapter:
        """Return the adapter of the reader ``side``."""
        return cast(Adapter, self.adapters[side])

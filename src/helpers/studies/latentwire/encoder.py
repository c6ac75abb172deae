"""The byte-level encoder: it turns a text into M latent vectors, and only these go over the wire."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from helpers.base.errors import DataError
from helpers.base.rng import torch_stream

PAD = 256
"""Id of the padding, after the 256 bytes."""


def to_bytes(texts: Sequence[str], byte_max: int) -> Tensor:
    """Return UTF-8 bytes [B, T], right-padded with `PAD`. Raises ``DataError`` for a text that is empty or too long."""
    rows = [text.encode() for text in texts]
    for text, row in zip(texts, rows, strict=True):
        if not row:
            raise DataError("The context is empty, so there is nothing to encode. Leave such examples out.")
        if len(row) > byte_max:
            raise DataError(
                f"The text {text[:40]!r}... has {len(row)} bytes, but byte_max is {byte_max}. Raise it, or set "
                "long_texts to drop."
            )
    longest = max(map(len, rows))
    return torch.tensor([list(row) + [PAD] * (longest - len(row)) for row in rows])


def sinusoids(length: int, width: int) -> Tensor:
    """Return the position codes [T, D] of Vaswani et al. 2017 (1706.03762), section 3.5: sines, then cosines."""
    rate = torch.exp(torch.arange(0, width, 2) * (-torch.log(torch.tensor(10000.0)) / width))
    angle = torch.arange(length)[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class Attention(nn.Module):
    """Multi-head attention with a padding mask on the keys."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, q_bqd: Tensor, k_bkd: Tensor, real_bk: Tensor) -> Tensor:
        """Attend from [B, Q, D] to [B, K, D], where a key is real [B, K]; return [B, Q, D]."""

        def split(x: Tensor) -> Tensor:
            return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        q, k, v = split(self.query(q_bqd)), split(self.key(k_bkd)), split(self.value(k_bkd))
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=real_bk[:, None, None, :])
        return self.out(mixed.transpose(1, 2).flatten(2))


def feed_forward(width: int) -> nn.Sequential:
    """Make two linear layers around a GELU, four times as wide in between."""
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


class Layer(nn.Module):
    """One encoder layer; ``norm`` is ``pre`` or ``post``."""

    def __init__(self, width: int, heads: int, norm: str) -> None:
        super().__init__()
        self.pre = norm == "pre"
        self.attention, self.ff = Attention(width, heads), feed_forward(width)
        self.norm_attention, self.norm_ff = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, h_btd: Tensor, real_bt: Tensor) -> Tensor:
        """Transform [B, T, D] into [B, T, D]."""
        if self.pre:
            x = self.norm_attention(h_btd)
            h_btd = h_btd + self.attention(x, x, real_bt)
            return h_btd + self.ff(self.norm_ff(h_btd))
        h_btd = self.norm_attention(h_btd + self.attention(h_btd, h_btd, real_bt))
        return self.norm_ff(h_btd + self.ff(h_btd))


class ByteEncoder(nn.Module):
    """Bytes to latents: layers over bytes, then M learned queries with cross-attention and a residual FF.

    Padding is masked in every attention, so that Z of a text does not depend on the other texts of its batch.
    """

    def __init__(self, latents: int, d_z: int, layers: int, heads: int, norm: str) -> None:
        super().__init__()
        self.embedding = nn.Embedding(PAD + 1, d_z)
        self.layers = nn.ModuleList(Layer(d_z, heads, norm) for _ in range(layers))
        self.norm = nn.LayerNorm(d_z)
        self.queries = nn.Parameter(torch.empty(latents, d_z))
        self.cross, self.ff, self.norm_ff = Attention(d_z, heads), feed_forward(d_z), nn.LayerNorm(d_z)

    def forward(self, bytes_bt: Tensor) -> Tensor:
        """Encode bytes [B, T] as Z [B, M, d_z]."""
        bytes_bt = bytes_bt.to(self.queries.device)
        real = bytes_bt != PAD
        h_btd = self.embedding(bytes_bt) + sinusoids(bytes_bt.shape[1], self.queries.shape[1]).to(self.queries)
        for layer in self.layers:
            h_btd = layer(h_btd, real)
        q_bmd = self.queries.expand(len(bytes_bt), -1, -1)
        z_bmd = q_bmd + self.cross(q_bmd, self.norm(h_btd), real)
        return z_bmd + self.ff(self.norm_ff(z_bmd))


def initialise(module: nn.Module, seed: int, *names: str | int) -> None:
    """Draw every weight from the stream (``names``, its own name) of ``seed``: normal with variance 1 / fan-in.

    Embeddings and queries have variance 1 (position codes have 1/2), biases start at zero, norms at one.
    """
    with torch.no_grad():
        for path, parameter in module.named_parameters():
            if parameter.dim() == 2:
                drawn = torch.randn(parameter.shape, generator=torch_stream(seed, *names, path))
                looked_up = path.endswith(("embedding.weight", "queries"))
                parameter.copy_(drawn if looked_up else drawn * parameter.shape[1] ** -0.5)
            elif path.endswith("bias"):
                parameter.zero_()

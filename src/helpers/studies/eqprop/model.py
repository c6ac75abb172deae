"""The equilibrium transformer, and a plain transformer of the same width as its baseline.

    x = E[tokens] + P,    F(z) = x - (1 + c) z + A(LN z) + M(LN z),    z* : F(z*) = 0,    logits = z* W_h

A is causal attention whose queries and keys are RMS-normalised per head, M a tanh-GELU MLP (Bai, Kolter & Koltun 2019,
arXiv:1909.01377, for the equilibrium; Scellier et al. 2018, arXiv:1808.04873, for F as a vector field).
Shapes: b sequences, t positions, c width, h heads, d = c / h, v vocabulary.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from helpers.base import files
from helpers.base.errors import ModelError, ParameterError
from helpers.base.rng import torch_stream
from helpers.studies.eqprop import holomorphic as holo

GROUPS = {
    "embedding": ("tokens", "positions"),
    "attention": ("w_q", "w_k", "w_v", "w_o"),
    "mlp": ("w_1", "b_1", "w_2", "b_2"),
    "head": ("w_h",),
}


@dataclass(frozen=True)
class ModelConfig:
    """The size of a model. ``leak`` is the c of the vector field; ``resinit`` scales W_O and W_2 at initialisation."""

    vocab: int = 32
    width: int = 32
    heads: int = 4
    context: int = 32
    mlp: int = 4
    leak: float = 1.0
    resinit: float = 0.1

    def __post_init__(self) -> None:
        for name in ("vocab", "width", "heads", "context", "mlp"):
            if getattr(self, name) < 1:
                raise ParameterError(f"{name} is {getattr(self, name)}. Give 1 or more.")
        if self.width % self.heads:
            raise ParameterError(f"width {self.width} does not divide by heads {self.heads}: change one of them.")
        if self.leak <= -1:
            raise ParameterError(f"leak is {self.leak}, so nothing pulls the state back. Give more than -1.")


class Block(nn.Module):
    """The parameters of one block with its embedding and head, and its two branches: the base of both models."""

    tokens: nn.Parameter
    positions: nn.Parameter
    w_q: nn.Parameter
    w_k: nn.Parameter
    w_v: nn.Parameter
    w_o: nn.Parameter
    w_1: nn.Parameter
    b_1: nn.Parameter
    w_2: nn.Parameter
    b_2: nn.Parameter
    w_h: nn.Parameter
    blocked: Tensor

    def __init__(self, config: ModelConfig, seed: int = 0, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.config = config
        c, inner = config.width, config.mlp * config.width
        shapes = {
            "tokens": (config.vocab, c), "positions": (config.context, c),
            "w_q": (c, c), "w_k": (c, c), "w_v": (c, c), "w_o": (c, c),
            "w_1": (inner, c), "b_1": (inner,), "w_2": (c, inner), "b_2": (c,), "w_h": (config.vocab, c),
        }  # fmt: skip
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(_initial(name, shape, config, seed).to(dtype)))
        blocked = torch.ones(config.context, config.context, dtype=torch.bool).triu(1)
        self.register_buffer("blocked", blocked, persistent=False)

    @property
    def count(self) -> int:
        """The number of parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def embed(self, tokens_bt: Tensor) -> Tensor:
        """Embed tokens as x [b, t, c]. Raises ``ModelError`` for a sequence over the context or an unknown token."""
        length = tokens_bt.shape[1]
        if length > self.config.context:
            raise ModelError(f"A sequence has {length} tokens but the context is {self.config.context}. Shorten it.")
        if tokens_bt.numel() and int(tokens_bt.max()) >= self.config.vocab:
            raise ModelError(
                f"Token {int(tokens_bt.max())} lies outside the vocabulary of {self.config.vocab}. Use its tokenizer."
            )
        return self.tokens[tokens_bt] + self.positions[:length]

    def attend(self, n_btc: Tensor) -> Tensor:
        """Return the attention branch of the normalised state."""
        weights = self.attention_weights(n_btc)
        v = self._heads(holo.linear(n_btc, self.w_v))
        mixed = (weights @ v).transpose(-3, -2).flatten(-2)
        return holo.linear(mixed, self.w_o)

    def attention_weights(self, n_btc: Tensor) -> Tensor:
        """Return attention weights [b, h, t, t]; rows are queries."""
        q = holo.rms_norm(self._heads(holo.linear(n_btc, self.w_q)))
        k = holo.rms_norm(self._heads(holo.linear(n_btc, self.w_k)))
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        length = n_btc.shape[-2]
        return holo.causal_softmax(scores, self.blocked[:length, :length])

    def feed(self, n_btc: Tensor) -> Tensor:
        """Return the MLP branch of the normalised state."""
        return holo.linear(holo.gelu(holo.linear(n_btc, self.w_1, self.b_1)), self.w_2, self.b_2)

    def logits(self, z_btc: Tensor) -> Tensor:
        """Return logits [b, t, v]."""
        return holo.linear(z_btc, self.w_h)

    def token_loss(self, z_btc: Tensor, targets_bt: Tensor) -> Tensor:
        """Return the cross-entropy of every token [b, t], in nats."""
        return functional.cross_entropy(
            self.logits(z_btc).flatten(0, 1), targets_bt.flatten(), reduction="none"
        ).view_as(targets_bt)

    def settle(self, x_btc: Tensor, steps: int, eps: float) -> Tensor:
        """Return the state [b, t, c] that the head reads, after ``steps`` steps of size ``eps`` if there are any."""
        raise NotImplementedError

    def _heads(self, y_btc: Tensor) -> Tensor:
        return y_btc.unflatten(-1, (self.config.heads, -1)).transpose(-3, -2)


class EquilibriumTransformer(Block):
    """The vector field F and its relaxation z <- z + eps F(z) from z = x."""

    def branches(self, z_btc: Tensor) -> Tensor:
        """Return A(LN z) + M(LN z)."""
        n = holo.layer_norm(z_btc)
        return self.attend(n) + self.feed(n)

    def field(self, z_btc: Tensor, x_btc: Tensor) -> Tensor:
        """Return F(z), zero at the fixed point; z may be complex (see `holomorphic`)."""
        return x_btc - (1 + self.config.leak) * z_btc + self.branches(z_btc)

    def check_step(self, eps: float) -> None:
        """Raise ``ParameterError`` if even the linear leak does not settle at this step: eps (1 + c) >= 2."""
        if not 0 < eps * (1 + self.config.leak) < 2:
            pull = eps * (1 + self.config.leak)
            raise ParameterError(
                f"eps (1 + c) is {pull:g}, but the relaxation settles below 2 only. Lower eps ({eps:g})."
            )

    def relax(self, x_btc: Tensor, steps: int, eps: float = 0.5, start: Tensor | None = None) -> Tensor:
        """Take ``steps`` relaxation steps from ``start`` (default x); differentiable if gradients are on."""
        self.check_step(eps)
        if steps < 1:
            raise ParameterError(f"The free phase has {steps} steps (T1). Give 1 or more.")
        z = x_btc if start is None else start
        for _ in range(steps):
            z = z + eps * self.field(z, x_btc)
        return z

    def residual(self, z_btc: Tensor, x_btc: Tensor) -> tuple[float, float]:
        """Return |F(z)| / |z| of the whole batch, and its largest value over sequences."""
        with torch.no_grad():
            f_btc = self.field(z_btc, x_btc)
            return float(f_btc.norm() / z_btc.norm()), float(_lengths(f_btc, z_btc).max())

    @torch.no_grad()
    def residuals(self, z_btc: Tensor, x_btc: Tensor) -> Tensor:
        """Return |F(z)| / |z| of every sequence [b]."""
        return _lengths(self.field(z_btc, x_btc), z_btc)

    def loss_slope(self, z_btc: Tensor, targets_bt: Tensor) -> Tensor:
        """Return g(z), the slope of the token-*summed* cross-entropy in z, written out for complex z too."""
        error = holo.softmax(self.logits(z_btc)) - functional.one_hot(targets_bt, self.config.vocab)
        return holo.linear(error, self.w_h.t())

    def settle(self, x_btc: Tensor, steps: int, eps: float) -> Tensor:
        """Return the relaxed state."""
        return self.relax(x_btc, steps, eps)


class BackpropTransformer(Block):
    """The baseline: the same parameters as one pre-norm transformer block, trained by plain backprop."""

    def settle(self, x_btc: Tensor, steps: int = 1, eps: float = 1.0) -> Tensor:
        """Apply one ordinary block, x + A(LN x), then + M(LN .), then LN, ignoring ``steps`` and ``eps``."""
        h = x_btc + self.attend(holo.layer_norm(x_btc))
        return holo.layer_norm(h + self.feed(holo.layer_norm(h)))


def equilibrium(model: Block) -> EquilibriumTransformer:
    """Return ``model``. Raises ``ModelError`` if it has no equilibrium, like the baseline."""
    if not isinstance(model, EquilibriumTransformer):
        raise ModelError(f"A {type(model).__name__} has no equilibrium. Use an equilibrium transformer.")
    return model


MODELS: dict[str, type[Block]] = {"equilibrium": EquilibriumTransformer, "backprop": BackpropTransformer}


def _lengths(f_btc: Tensor, z_btc: Tensor) -> Tensor:
    """Return |f| / |z| of every sequence [b]."""
    return f_btc.flatten(1).norm(dim=1) / z_btc.flatten(1).norm(dim=1)


def _initial(name: str, shape: tuple[int, ...], config: ModelConfig, seed: int) -> Tensor:
    """Draw the initial values of one parameter from its own stream, so that they do not depend on other sizes."""
    if name.startswith("b_"):
        return torch.zeros(shape)
    scale = {"tokens": 1.0, "positions": 0.3}.get(name, 1 / math.sqrt(shape[-1]))
    if name in ("w_o", "w_2"):
        scale *= config.resinit
    return torch.randn(shape, generator=torch_stream(seed, "init", name), dtype=torch.float64) * scale


def save_model(model: Block, folder: Path) -> None:
    """Write ``model.safetensors`` and ``model.json`` (kind and size) into ``folder``."""
    kind = next(name for name, made in MODELS.items() if type(model) is made)
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.named_parameters()}
    files.write_atomic(folder / "model.safetensors", lambda path: save_file(tensors, path))
    files.write_json(folder / "model.json", {"kind": kind, "config": asdict(model.config)})


def load_tensors(model: Block, tensors: Mapping[str, Tensor], where: str) -> None:
    """Copy ``tensors`` into ``model``. Raises ``ModelError`` if names or shapes differ."""
    own = dict(model.named_parameters())
    if set(own) != set(tensors):
        raise ModelError(
            f"{where} has other parameters than this model: {sorted(set(own) ^ set(tensors))}. Use its kind of model."
        )
    for name, value in own.items():
        if value.shape != tensors[name].shape:
            raise ModelError(
                f"{where} is a checkpoint of another size: {name} is {tuple(tensors[name].shape)} there and "
                f"{tuple(value.shape)} here. Use the size it was trained with."
            )
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(tensors[name])


def load_model(folder: Path, dtype: torch.dtype = torch.float32, config: ModelConfig | None = None) -> Block:
    """Read a model written by `save_model`. With ``config``, it must have that size."""
    path = folder / "model.json"
    if not path.is_file():
        raise ModelError(f"There is no checkpoint in {folder}. Train one first.")
    kind, size = read_sizes(path)
    model = MODELS[kind](config or size, dtype=dtype)
    load_tensors(model, load_file(folder / "model.safetensors"), str(folder / "model.safetensors"))
    return model


def read_sizes(path: Path) -> tuple[str, ModelConfig]:
    """Read kind and size of the model from a ``model.json``."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return content["kind"], ModelConfig(**content["config"])


def group_vectors(gradients: dict[str, Tensor]) -> dict[str, Tensor]:
    """Flatten a gradient into float64 vectors by parameter group, and as a whole under ``all``."""
    flat = {
        group: torch.cat([gradients[name].detach().double().flatten() for name in names])
        for group, names in GROUPS.items()
    }
    return flat | {"all": torch.cat(list(flat.values()))}

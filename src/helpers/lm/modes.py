"""Switch a model's modes (train or eval, gradients, cache) for the length of a block, and restore them after it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


class Modes:
    """The modes of a model now: train or eval of each module, ``requires_grad`` of each parameter, ``use_cache``."""

    def __init__(self, model: nn.Module):
        self._modules = [(module, module.training) for module in model.modules()]
        self._parameters = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        config = getattr(model, "config", None)
        self._cache = (config, config.use_cache) if config is not None and hasattr(config, "use_cache") else None

    def restore(self) -> None:
        """Give the model these modes again."""
        for module, training in self._modules:
            module.training = training
        for parameter, requires_grad in self._parameters:
            parameter.requires_grad_(requires_grad)
        if self._cache:
            config, use_cache = self._cache
            config.use_cache = use_cache


@contextlib.contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Restore the modes of ``model`` at the end of the block."""
    modes = Modes(model)
    try:
        yield
    finally:
        modes.restore()


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put ``model`` into eval mode inside the block."""
    with restored(model):
        model.eval()
        yield


@contextlib.contextmanager
def training(model: nn.Module) -> Iterator[None]:
    """Put ``model`` into train mode inside the block."""
    with restored(model):
        model.train()
        yield


@contextlib.contextmanager
def in_fp32(model: nn.Module) -> Iterator[None]:
    """Hold the bf16 weights and buffers of a model on a CPU in fp32 inside the block; then they are what they were.

    Whether two ways of computing agree shows in fp32. In bf16 rounding alone moves log-probs of SmolLM2 by 0.3 nats.
    """
    kept = [
        (tensor, tensor.data)
        for tensor in (*model.parameters(), *model.buffers())
        if tensor.dtype == torch.bfloat16 and tensor.device.type == "cpu"
    ]
    try:
        for tensor, data in kept:
            tensor.data = data.float()
        yield
    finally:
        for tensor, data in kept:
            tensor.data = data

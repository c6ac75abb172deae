"""What is switched on a model for a while: train or eval mode, gradients, the cache. It is put back as it was found."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn


class Found:
    """How a model was found: the mode of each module, which parameters ask for gradients, whether it would cache."""

    def __init__(self, model: nn.Module):
        self._modules = [(module, module.training) for module in model.modules()]
        self._parameters = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
        config = getattr(model, "config", None)
        self._cache = (config, config.use_cache) if config is not None and hasattr(config, "use_cache") else None

    def restore(self) -> None:
        """Make the model so again."""
        for module, training in self._modules:
            module.training = training
        for parameter, asks in self._parameters:
            parameter.requires_grad_(asks)
        if self._cache:
            config, use_cache = self._cache
            config.use_cache = use_cache


@contextlib.contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Put back, at the end of the block, whatever it switches on ``model``."""
    found = Found(model)
    try:
        yield
    finally:
        found.restore()


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put ``model`` into eval mode for the block."""
    with restored(model):
        model.eval()
        yield


@contextlib.contextmanager
def training(model: nn.Module) -> Iterator[None]:
    """Put ``model`` into train mode for the block."""
    with restored(model):
        model.train()
        yield

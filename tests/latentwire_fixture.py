"""The pocket readers, loaded once, and small cells of them: what the tests of the latentwire wing share."""

from __future__ import annotations

import functools

import torch

from helpers.base.params import Grid, parse, parse_grid
from helpers.studies.latentwire import lms
from helpers.studies.latentwire.adapter import Wire
from helpers.studies.latentwire.compose import Composer
from helpers.studies.latentwire.lms import FrozenLM
from helpers.studies.latentwire.params import WireCell

TINY = {
    "train_samples": 48, "eval_samples": 8, "latents": 3, "d_z": 16, "encoder_layers": 1, "encoder_heads": 2,
    "steps": 6, "batch_size": 8, "checkpoint_every": 2, "gradient_every": 2, "probe_samples": 4, "prompt_steps": 2,
    "max_new_tokens": 8, "eval_batch": 5,
}  # fmt: skip


def params(**changes: object) -> WireCell:
    return parse(WireCell, TINY | changes, "in the test")


def cells(**changes: object) -> Grid[WireCell]:
    return parse_grid(WireCell, TINY | changes, "in the test")


@functools.cache
def readers() -> tuple[FrozenLM, FrozenLM]:
    where = {"revision": None, "device": "cpu", "dtype": "auto"}
    return lms.load("a", "pocket-char", **where), lms.load("b", "pocket-syllable", **where)


def wire(seed: int = 0) -> Wire:
    sizes = {lm.side: (lm.width, 0.7) for lm in readers()}
    return Wire.make(latents=3, d_z=16, layers=2, heads=2, norm="pre", readers=sizes, seed=seed).eval()


def prefix(lm: FrozenLM, batch: int, latents: int = 3) -> torch.Tensor:
    return torch.randn(batch, latents, lm.width, generator=torch.Generator().manual_seed(batch))


ALIGNED = Composer()

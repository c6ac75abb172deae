"""Readers, examples and amplitudes that the cells of one notebook share, each loaded when first needed."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch

from helpers.lm import models
from helpers.studies.latentwire import data, lms
from helpers.studies.latentwire.adapter import Wire
from helpers.studies.latentwire.arms import SIDES
from helpers.studies.latentwire.data import Split
from helpers.studies.latentwire.lms import FrozenLM
from helpers.studies.latentwire.params import WireCell
from helpers.studies.latentwire.reading import settle_reader

CALIBRATED_ON = 64
"""Training texts whose token embeddings set the amplitude of a prefix."""


@dataclass
class Session:
    """Readers and data of a grid. Cells with complete records load neither."""

    p: WireCell

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """Names, revisions and content hashes of both readers, without loading them."""
        return lms.pair_facts([lms.facts(name, revision=revision, **self._where) for name, revision in self._names])

    @functools.cached_property
    def lms(self) -> list[FrozenLM]:
        """Both readers, frozen. Raises ``ModelError`` for one that reads a batch otherwise than each row alone."""
        if {self.p.model_a, self.p.model_b} <= set(lms.POCKET):
            torch.set_num_threads(1)  # as fast for such small models, and independent of how busy the machine is
        else:
            models.choose_threads()
        pairs = zip(SIDES, self._names, strict=True)
        readers = [lms.load(side, name, revision=revision, **self._where) for side, (name, revision) in pairs]
        for lm in readers:
            settle_reader(lm)
        return [lms.ended_by_line(lm) for lm in readers] if self.p.answer_end == "line" else readers

    @functools.cached_property
    def split(self) -> Split:
        """Training and validation examples."""
        return data.load(self.p, self.lms)

    @functools.cached_property
    def rms(self) -> dict[str, float]:
        """The root mean square of each reader's own token embeddings on training texts."""
        texts = [example.text for example in self.split.train[:CALIBRATED_ON]]
        return {lm.side: lms.embedding_rms(lm, texts) for lm in self.lms}

    def wire(self, p: WireCell) -> Wire:
        """Make a wire for the cell ``p``, on the readers' device."""
        readers = {lm.side: (lm.width, self.rms[lm.side]) for lm in self.lms}
        made = Wire.make(
            latents=p.latents, d_z=p.d_z, layers=p.encoder_layers, heads=p.encoder_heads, norm=p.encoder_norm,
            readers=readers, seed=p.seed,
        )  # fmt: skip
        return made.to(self.lms[0].device)

    @property
    def _names(self) -> list[tuple[str, str | None]]:
        return [(self.p.model_a, self.p.revision_a), (self.p.model_b, self.p.revision_b)]

    @property
    def _where(self) -> dict[str, str]:
        return {"device": self.p.device, "dtype": self.p.dtype}

"""Keep a training that may be killed: what trains, AdamW's moments and the losses so far, the last state only.

Keeping and reading back change nothing, so a training that goes on computes what it would have: on a CPU, bit by bit.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from helpers.base.files import new_folder, write_json
from helpers.lm.descent import Descent

SECONDS = 120.0
"""How much of a training a kill may cost. A whole fine-tune of SmolLM2 writes 1.6 GB each time."""
WEIGHTS, MOMENTS, LOSSES = "weights.safetensors", ("step", "exp_avg", "exp_avg_sq"), "losses.json"


@dataclass
class Checkpoints:
    """The last state of one training in ``folder``, written when ``every`` seconds have passed since the one before."""

    folder: Path
    every: float = field(default_factory=lambda: SECONDS)
    _written: float = field(default_factory=time.monotonic, init=False)

    def restore(self, descent: Descent) -> list[float]:
        """Read the last state into the parameters and the optimiser of ``descent``; return the losses up to it."""
        states = self._states()
        if not states:
            return []
        kept = load_file(states[-1] / WEIGHTS)
        with torch.no_grad():
            for i, parameter in enumerate(descent.parameters):
                parameter.copy_(kept[str(i)])
        for key in MOMENTS:
            kept = load_file(states[-1] / f"{key}.safetensors")
            for i, parameter in enumerate(descent.parameters):
                if str(i) in kept:  # what got no gradient has no moments
                    own = kept[str(i)]
                    descent.optimizer.state[parameter][key] = own if key == "step" else own.to(parameter.device)
        return json.loads((states[-1] / LOSSES).read_text(encoding="utf-8"))

    def keep(self, descent: Descent, losses: Sequence[float]) -> None:
        """Write the state after ``losses``, if it is time to, and delete the one before."""
        if time.monotonic() - self._written < self.every:
            return
        before, state = self._states(), descent.optimizer.state
        with new_folder(self.folder / f"{len(losses):06d}") as folder:
            self._save({i: one.detach() for i, one in enumerate(descent.parameters)}, folder / WEIGHTS)
            for key in MOMENTS:
                moments = {i: state[one][key] for i, one in enumerate(descent.parameters) if key in state[one]}
                self._save(moments, folder / f"{key}.safetensors")
            write_json(folder / LOSSES, list(losses))
        for old in before:
            shutil.rmtree(old)
        self._written = time.monotonic()

    def _states(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*") if path.name.isdigit())

    @staticmethod
    def _save(tensors: dict[int, torch.Tensor], path: Path) -> None:
        save_file({str(i): tensor.cpu().contiguous() for i, tensor in tensors.items()}, path)

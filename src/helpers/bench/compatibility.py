"""The ledger of architectures: how each is computed under the installed packages, tried on tiny random models.

``make compatibility`` (``python -m helpers.bench.compatibility``) writes the installed versions into
``data/compatibility.json`` and leaves the other versions of transformers as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import peft
import torch
import transformers
from torch import nn
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from helpers.base import files
from helpers.base.errors import ModelError
from helpers.base.rng import torch_stream
from helpers.bench.architectures import SETTINGS, random_model
from helpers.lm import models
from helpers.lm.compatibility import LEDGER, Entry, read
from helpers.lm.exact import differs, try_rows, ways_of
from helpers.lm.exact_training import settle_training
from helpers.lm.packed import logits_at
from helpers.lm.targets import LINEAR, find_targets, linear_names
from helpers.studies.actdiff.lens import open_lens
from helpers.studies.actdiff.pair import Pair
from helpers.studies.marker.train import batch_loss

USUAL = "the seven of a Llama-like block"
_FIGURE = re.compile(r"\d+(\.\d+)?(e-?\d+)?")


def examine(kind: str) -> Entry:
    """Try a tiny random model of the type ``kind``."""
    model = random_model(kind, **SETTINGS[kind])
    name = type(model).__name__
    try:
        ways = ways_of(model)
    except ModelError as error:
        return Entry(name, "refused", str(error), *[""] * 5)
    generation = "cached" if ways.generation == "cached" else "transformers' own"
    lens = _lens(model)
    targets, training, adapters = _adapters(model)
    rows = "packed" if ways.rows == "packed" else "plain"
    return Entry(name, rows, ways.why, generation, training, targets, adapters, lens)


def _lens(model: nn.Module) -> str:
    try:
        return type(open_lens(Pair(model, model)).norm.norm).__name__
    except ModelError as error:
        return f"refused: {error}"


def _adapters(model: Any) -> tuple[str, str, str]:
    """Return default targets, how rows train, and whether LoRA is exact: log-probs, and the base afterwards."""
    chosen, targets = _targets(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rows = try_rows(model)
    try:
        wrapped = models.attach_lora(model, r=2, alpha=4, targets=chosen, seed=0)
        for name, weight in wrapped.named_parameters():
            if "lora_B" in name:
                weight.data.normal_(0, 0.3, generator=torch_stream(0, "ledger", name))
        settle_training(wrapped, "alone", lambda rows, at: batch_loss(wrapped, rows, at))
        with torch.no_grad():
            wanted = [wrapped(input_ids=torch.tensor([row]), use_cache=False).logits[0, :-1] for row in rows]
        why = differs(model, wanted, lambda: _tuned(wrapped, rows))
        models.detach(wrapped)
    except ModelError as error:
        return targets, "refused", f"refused: {error}"
    after = model.state_dict()
    if before.keys() != after.keys() or not all(torch.equal(tensor, after[name]) for name, tensor in before.items()):
        why = why or "the base model is another afterwards"
    ways = ways_of(model)
    return targets, "packed" if (ways.training or ways.rows) == "packed" else "plain", why or "exact"


def _targets(model: Any) -> tuple[str | list[str], str]:
    """Return the default targets, as PEFT takes them and in words; or every layer that can be one."""
    try:
        chosen = find_targets(model, "auto")
        is_usual = list(chosen) == list(LINEAR)
        return chosen, USUAL if is_usual else ", ".join([chosen] if isinstance(chosen, str) else sorted(chosen))
    except ModelError:
        head = model.get_output_embeddings()
        is_head = {path.rpartition(".")[2] for path, module in model.named_modules() if module is head}
        names = [name for name in linear_names(model) if name not in is_head and _is_target(model, name)]
        return names, f"to be named, as PEFT has no default (tried: {', '.join(sorted(names))})"


def _is_target(model: nn.Module, name: str) -> bool:
    try:
        models.check_targets(model, [name])
    except ModelError:
        return False
    return True


def _tuned(wrapped: nn.Module, rows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    with torch.no_grad():
        logits = logits_at(wrapped, rows, [range(1, len(row)) for row in rows])
    return list(logits.split([len(row) - 1 for row in rows]))


def as_compared(entry: Entry) -> Mapping[str, str]:
    """Return ``entry`` without figures, which differ in their last digits from one processor to another."""
    return {name: _FIGURE.sub("#", text) for name, text in asdict(entry).items()}


def architectures() -> list[str]:
    """Return the model types that are tried and that the installed transformers has."""
    return sorted(kind for kind in SETTINGS if kind in CONFIG_MAPPING)


def write() -> None:
    """Try every architecture that the installed transformers has, and write the ledger of this version."""
    known = {kind: asdict(examine(kind)) for kind in architectures()}
    now = {"torch": torch.__version__.partition("+")[0], "peft": peft.__version__, "architectures": known}
    ledger = read() | {transformers.__version__: now}
    files.write_json(LEDGER, {version: ledger[version] for version in sorted(ledger, key=_in_order)})


def _in_order(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


if __name__ == "__main__":
    write()

"""The ledger of architectures, ``data/compatibility.json``: how each is computed, by version of transformers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from helpers.base import files

LEDGER = files.DATA / "compatibility.json"


@dataclass(frozen=True)
class Entry:
    """How one architecture is computed.

    ``rows``: packed, plain or refused, with ``why``; ``generation`` and ``training`` in words. ``targets`` are the
    layers with LoRA by default, ``adapters`` says how rows under an adapter come out, ``lens`` names the final norm
    that the activation study reads through. A part that is refused holds the sentence.
    """

    name: str
    rows: Literal["packed", "plain", "refused"]
    why: str
    generation: str
    training: str
    targets: str
    adapters: str
    lens: str


def read() -> dict[str, dict[str, Any]]:
    """Return the ledger: by version of transformers, other packages and ``architectures`` by model type."""
    return json.loads(LEDGER.read_text(encoding="utf-8")) if LEDGER.is_file() else {}


def entries(version: str) -> dict[str, Entry]:
    """Return the entries for a version of transformers, by model type; none for a version that was not tried."""
    return {kind: Entry(**values) for kind, values in read().get(version, {}).get("architectures", {}).items()}

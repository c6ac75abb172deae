"""The block of the page of architectures: how each model is computed here."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from helpers.lm.compatibility import read as read_compatibility
from helpers.show.markup import Block
from helpers.site.pages import table


def table_of_architectures() -> Block:
    """Show how each architecture is computed; one that changed between versions of transformers has a row for each."""
    rows: dict[tuple[str, ...], list[str]] = {}
    ledger = read_compatibility()
    for version in reversed(ledger):
        for kind, entry in ledger[version]["architectures"].items():
            rows.setdefault(_architecture(kind, entry), []).insert(0, version)
    heads = ("architecture", "rows", "training", "LoRA targets", "adapters", "activation study")
    lines = [dict(zip(heads, row, strict=True)) for row in rows]
    shown = pd.DataFrame(lines).assign(transformers=[", ".join(versions) for versions in rows.values()])
    caption = f"{len({row[0] for row in rows})} architectures, tried on tiny random models."
    return table(shown.sort_values("architecture", kind="stable"), caption)


def _architecture(kind: str, entry: Mapping[str, str]) -> tuple[str, ...]:
    why = f": {entry['why']}" if entry["why"] else ""
    parts = (entry[name] or "-" for name in ("training", "targets", "adapters", "lens"))
    return f"{kind} ({entry['name']})", f"{entry['rows']}{why}", *parts

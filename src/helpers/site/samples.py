"""Samples that a page chooses by address, in its front matter, instead of drawing them at random.

samples:
  - {run: villain-lr0.001-0123456789ab, persona: librarian, question: 3, index: 0, why: the first leak}
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from helpers.base.errors import ClaimError, nearest
from helpers.cases.claim import front_matter
from helpers.claims.marked import Sentence, Strict, validate
from helpers.records.reading import Record
from helpers.show.markup import Block
from helpers.site.blocks import samples
from helpers.site.completions import all_records
from helpers.site.pages import paragraph


class Address(Strict):
    """The address of one completion, and why it was chosen; ``run`` is the id of a record."""

    run: str
    persona: str
    question: int | str
    index: int
    why: Sentence


def addresses(path: Path) -> list[tuple[int, Address]]:
    """Return the chosen samples of a page with their lines; ClaimError if one is malformed."""
    front = front_matter(path)
    chosen = front.value.get("samples") or []
    if not isinstance(chosen, list):
        raise front.error(("samples",), "is no list: write one address a line, each beginning with `- `.")
    return [
        (front.lines["samples", index], validate(Address, front, ("samples", index))) for index in range(len(chosen))
    ]


def find(address: Address) -> pd.DataFrame:
    """Return the completion at ``address`` as a table of one row, as `site.blocks.samples` takes it."""
    return find_loose(address.model_dump(exclude={"why"}))


def find_loose(address: Mapping[str, Any]) -> pd.DataFrame:
    """Return the completions that match ``address``, which must name the run only; ClaimError if none does."""
    record = _record(str(address.get("run")))
    table = record.table("completions")
    for name, wanted in address.items():
        if name == "run":
            continue
        if name not in table.columns:
            raise ClaimError(f"The completions of {record.ref} have no {name!r}{nearest(name, table.columns)}")
        there = table[name].astype(str)
        table = table[there == str(wanted)]
        if table.empty:
            raise ClaimError(
                f"{record.ref} has no completion with {name} {str(wanted)!r}{nearest(str(wanted), set(there))}"
            )
    cell = ", ".join(f"{name}={value}" for name, value in record.cell.items())
    return table.assign(run=record.id, cell=cell)


def _record(run: str) -> Record:
    known = {record.id: record for record in all_records()}
    if run not in known:
        raise ClaimError(f"There is no record {run!r} with completions{nearest(run, known) if known else ''}.")
    return known[run]


def chosen(path: Path, marker: str | None = None) -> Block:
    """Show the chosen samples of a page, each with its reason."""
    shown = [samples(find(address), chosen=address.why, marker=marker) for _, address in addresses(path)]
    return Block(Markup("\n").join(shown)) if shown else paragraph("No sample was chosen by hand.")

"""Bind what a page takes from elsewhere: citations and tables of the original to files, literals to settings.

``[...]{.cited source="data/marker/claim65.csv"}`` cites a file that the claim lists under ``sources``, whose content
the ledger registers. ``[1e-5]{.literal}`` is a setting or a threshold: it stands in criteria, grid or parameters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from helpers.base.errors import ClaimError
from helpers.base.files import read_text
from helpers.cases.case import Case
from helpers.site.linting.language import Code
from helpers.site.linting.prose import Page
from helpers.site.page import elsewhere

Fault = tuple[int, str, str]
NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def faults(page: Page, code: Code, case: Case) -> Iterator[Fault]:
    """Yield citations and tables of the original without a source, and literals that are no setting of the claim."""
    sources = case.claim.sources
    for span in page.cited:
        if span.id not in sources:
            yield (
                span.line,
                "citation",
                f"{span.text[:50]!r} cites {span.id or 'nothing'}: name a file of data/ that the claim lists under "
                'sources ([...]{.cited source="data/..."}).',
            )
    if "published" in code.modules and not sources:
        yield 1, "citation", "the page shows published data: list its files of data/ under `sources` of the claim."
    for name, grid in code.grids.items():
        try:
            elsewhere(case, dict(code.scopes[name]), grid, case.root)
        except ClaimError as error:
            yield 1, "code", f"the case {name!r} of the page: {error}"
    known, thresholds = _settings(case), _written([case.criteria.path])
    for piece in page.literals:
        for text in NUMBER.findall(piece.text) or [piece.text]:
            shares = {100 * number for number in thresholds} | thresholds
            if not _is_setting(text, shares if "%" in piece.text else known):
                yield (
                    piece.line,
                    "numeral",
                    f"[{piece.text}]{{.literal}} is no setting of this claim: {text} stands neither in its criteria "
                    "nor in its grid nor in a parameter. Take it from a record with fact().",
                )


def _is_setting(text: str, known: set[float]) -> bool:
    number = NUMBER.fullmatch(text)
    return bool(number) and float(text.replace(",", "")) in known


def _settings(case: Case) -> set[float]:
    """Numbers of the criteria, the grid and the parameters of the records."""
    found = _written([case.criteria.path] + ([case.root / case.claim.grid] if case.claim.grid else []))
    return found | {number for record in case.records for number in _numbers(record.params)}


def _written(paths: Sequence[Path]) -> set[float]:
    texts = NUMBER.findall(" ".join(read_text(path, ClaimError) for path in paths))
    return {float(text.replace(",", "")) for text in texts}


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _numbers(one)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)

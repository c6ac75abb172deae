"""The ``claim:`` block in a page's front matter, read into one strict model."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from helpers.base.errors import ClaimError
from helpers.base.files import ROOT, is_there, read_text
from helpers.claims.confidence import Level
from helpers.claims.criteria import read_criteria
from helpers.claims.marked import Document, Scalar, Sentence, Strict, read_document, validate

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Status = Literal["proposed", "running", "interpreted", "published", "archived"]
Kind = Literal["derived_from", "supports", "contradicts", "refines", "supersedes", "absorbed_by", "consumes"]
Source = Annotated[str, StringConstraints(pattern=r"^data/[a-z0-9_]+(/[a-z0-9_]+)*\.(csv|jsonl|yaml)$")]


class Relation(Strict):
    """How this claim relates to another claim (its id) or to an upstream issue (``#65``)."""

    kind: Kind
    target: Annotated[str, StringConstraints(pattern=r"^(#[0-9]+|[a-z0-9]+(-[a-z0-9]+)*)$")]
    note: str = ""
    answer: str | None = None


class Quantity(Strict):
    """One number of an effect: a metric, the cell it is read in, and what the chart calls it."""

    metric: Sentence
    label: Sentence
    cell: dict[str, Scalar] = Field(default_factory=dict)


class Effect(Strict):
    """The answer with its size: a sentence in which each ``{name}`` is one of ``numbers``, all of one unit."""

    sentence: Sentence
    numbers: dict[Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")], Quantity] = Field(min_length=1)

    @model_validator(mode="after")
    def _agree(self) -> Effect:
        said = {name for _, name, _, _ in Formatter().parse(self.sentence) if name is not None}
        if wrong := sorted(said ^ set(self.numbers)):
            raise ValueError(f"{wrong[0]!r} must stand both in the sentence, in braces, and under numbers")
        return self


class Claim(Strict):
    """One claim: what it states, how it is judged, and how confident its author is.

    ``primary`` names the question of the criteria file that gives the claim its verdict; ``scope`` keeps only the cells
    that agree with it; ``grid`` is the params file whose cells must all be there; ``effect`` is what its page says
    first. ``sources`` are the transcribed data of the original that the page cites or shows; the ledger registers them.
    """

    id: Slug
    slug: Slug
    statement: Sentence
    question: Sentence
    experiment: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
    criteria: Sentence
    primary: Sentence
    scope: dict[str, Scalar | list[Scalar]] = Field(default_factory=dict)
    grid: str | None = None
    declared_confidence: Level
    status: Status
    effect: Effect | None = None
    sources: list[Source] = Field(default_factory=list)
    relations: list[Relation] = Field(default_factory=list)


def front_matter(path: Path) -> Document:
    """Read the front matter of a page and the lines it stands on; ClaimError when there is none."""
    text = read_text(Path(path), ClaimError)
    block = re.match(r"---[ \t]*\r?\n(.*?\n)(?:---|\.\.\.)[ \t]*(?:\r?\n|$)", text, flags=re.DOTALL)
    if not block:
        raise ClaimError(f"{path}:1: the page has no front matter. Begin it with a YAML block between lines of ---.")
    document = read_document(block.group(1), Path(path), first_line=2)
    if not isinstance(document.value, dict):
        raise ClaimError(f"{path}:2: the front matter is not a mapping: write it as `name: value` lines.")
    return document


def has_claim(path: Path) -> bool:
    """Whether the page carries a ``claim:`` block (log and index pages do not)."""
    return "claim" in front_matter(path).value


def read_claim(path: Path, root: Path = ROOT) -> Claim:
    """Read and check the claim of the page at ``path``; file names in it are relative to ``root``.

    Raises ClaimError with file, line and field: unknown or missing field, wrong value, a file that is not there, a slug
    that is not the page's name, a primary question that the criteria file does not hold.
    """
    document = front_matter(path)
    if "claim" not in document.value:
        raise ClaimError(
            f"{path}:2: the front matter has no `claim:` block: add one, or move the page out of the claims."
        )
    claim = validate(Claim, document, ("claim",))
    if claim.slug != Path(path).stem:
        raise document.error(
            ("claim", "slug"), f"is {claim.slug!r} but the page is {Path(path).name}: make them agree."
        )
    for index, source in enumerate(claim.sources):
        if not is_there(root / source):
            raise document.error(("claim", "sources", index), f"names {source}, which does not exist. Correct it.")
    for name in ("criteria", "grid"):
        value = getattr(claim, name)
        if value is not None and not is_there(root / value):
            raise document.error(("claim", name), f"names {value}, which does not exist. Correct the path.")
    try:
        read_criteria(root / claim.criteria).question(claim.primary)
    except ClaimError as error:
        raise document.error(("claim", "primary"), f"cannot be used: {error}") from error
    return claim

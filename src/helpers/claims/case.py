"""A claim with all that it is judged by: criteria, evidence, what is stale. Pages, lint, graph and status open it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers.base import params as parameters
from helpers.base.errors import ClaimError
from helpers.base.files import ROOT
from helpers.claims.claim import Claim, read_claim
from helpers.claims.confidence import Confidence, confidence
from helpers.claims.criteria import Criteria, read_criteria
from helpers.claims.evidence import Evidence, Expected, gather
from helpers.claims.facts import Fact, Facts
from helpers.claims.verdict import Verdict, judge
from helpers.records import provenance, questions, reading
from helpers.records.reading import Record
from helpers.records.study import Study, load_study


@dataclass(frozen=True)
class Case:
    """A claim, its criteria and the records of its experiment.

    ``expected`` are the runs of the declared grid (None: none is declared); ``stale`` maps the ids of stale records to
    what changed: study, version, data, model or inputs. Changed criteria do not make a record stale: they cap the
    confidence.
    """

    path: Path
    claim: Claim
    criteria: Criteria
    records: tuple[Record, ...]
    expected: tuple[Expected, ...] | None
    stale: Mapping[str, list[str]]
    root: Path = ROOT

    _evidence: dict[tuple[str, ...], Evidence] = field(init=False, repr=False, compare=False, default_factory=dict)
    _verdicts: dict[str, Verdict] = field(init=False, repr=False, compare=False, default_factory=dict)

    def evidence(self, question: str | None = None) -> Evidence:
        """The pooled cells in the claim's scope, as ``question`` (by default the primary one) pools them."""
        pooled = tuple(self.criteria.question(question or self.claim.primary).pool)
        if pooled not in self._evidence:
            found = gather(self.records, self.expected, pooled, self.stale, self.criteria.derive)
            self._evidence[pooled] = found.within(self.claim.scope)
        return self._evidence[pooled]

    def verdict(self, question: str | None = None) -> Verdict:
        """The verdict of ``question``, by default the primary one, which is the claim's."""
        name = question or self.claim.primary
        if name not in self._verdicts:
            self._verdicts[name] = judge(self.criteria.question(name), self.evidence(name), self.stale)
        return self._verdicts[name]

    def verdicts(self) -> dict[str, Verdict]:
        """The verdict of every question of the criteria file."""
        return {name: self.verdict(name) for name in self.criteria.questions}

    def confidence(self, question: str | None = None) -> Confidence:
        """The cap for the verdict of ``question``; the declared level counts only for the primary one."""
        asked = self.criteria.question(question or self.claim.primary)
        evidence = self.evidence(question).within(asked.scope)
        declared = self.claim.declared_confidence if question in (None, self.claim.primary) else None
        return confidence(self.verdict(question), evidence, self.criteria, declared, self.root)

    @functools.cached_property
    def facts(self) -> Facts:
        """Numbers for the page, from the records in the claim's scope."""
        return Facts(self.evidence())

    def fact(self, name: str, **cell: Any) -> Fact:
        """Shorthand of `Facts.fact`."""
        return self.facts.fact(name, **cell)


def read_params(notebook: str, grid: Path, root: Path = ROOT) -> parameters.Params:
    """Read the params file ``grid`` of a notebook into its parameter model; no name in it is another one's."""
    model = load_study(notebook, root).params
    if model is None:
        raise ClaimError(f"The study of params/{notebook} has no parameters, so it can have no grid.")
    return parameters.load(model, grid)


def declared_cells(notebook: str, grid: Path, root: Path = ROOT) -> list[parameters.Params]:
    """The cells that the params file ``grid`` of a notebook declares, as its parameter model."""
    return read_params(notebook, grid, root).cells()


def declared_runs(notebook: str, grid: Path, root: Path = ROOT) -> tuple[Expected, ...]:
    """The runs that the params file ``grid`` of a notebook declares, one for each cell."""
    return runs_of(load_study(notebook, root), read_params(notebook, grid, root))


def runs_of(study: Study, p: parameters.Params) -> tuple[Expected, ...]:
    """The runs that ``p`` declares, one for each cell."""
    younger = frozenset(study.added)
    return tuple(Expected(study.asked(provenance.portable(cell.cell_params())), younger) for cell in p.cells())


def stale_records(
    records: Sequence[Record], models: Mapping[str, str] | None = None, root: Path | None = None
) -> dict[str, list[str]]:
    """Ids of the records whose question has changed since, with what changed (``questions.Changes``)."""
    changes = questions.Changes(models, root)
    return {record.id: why for record in records if (why := changes.of(record))}


@dataclass(frozen=True)
class Found:
    """All records of an experiment, unfinished ones included, oldest first; ``stale`` as in `Case`."""

    records: tuple[Record, ...]
    stale: Mapping[str, list[str]]

    @property
    def complete(self) -> tuple[Record, ...]:
        """The records that a page may use."""
        return tuple(record for record in self.records if record.status == "complete")


def find(notebook: str, root: Path = ROOT) -> Found:
    """Read every record of ``notebook``."""
    records = reading.records(notebook, status=None)
    complete = [record for record in records if record.status == "complete"]
    return Found(tuple(records), stale_records(complete, root=root))


def open_case(path: Path | str, root: Path = ROOT, known: Mapping[str, Found] | None = None) -> Case:
    """Open the claim of the page at ``path``; ClaimError names file, line and field when something is malformed.

    ``known`` holds the records of experiments that have been read already: reading ten thousand takes a second.
    """
    path = root / path
    claim = read_claim(path, root)
    found = (known or {}).get(claim.experiment) or find(claim.experiment, root)
    expected = declared_runs(claim.experiment, root / claim.grid, root) if claim.grid else None
    criteria = read_criteria(root / claim.criteria)
    return Case(path, claim, criteria, found.complete, expected, found.stale, root)

"""A claim with everything it is judged by: criteria, evidence and stale records. Pages, lint and status open it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers.base import params as parameters
from helpers.base.errors import ClaimError, nearest
from helpers.base.files import ROOT
from helpers.cases.challenge import Challenge, challenge, row_of
from helpers.cases.changed import Changes
from helpers.cases.claim import Claim, read_claim
from helpers.cases.facts import Fact, Facts
from helpers.claims.confidence import Confidence, confidence
from helpers.claims.criteria import Criteria, Question, read_criteria
from helpers.claims.evidence import Evidence, Expected, gather
from helpers.claims.verdict import Verdict, check_controls, judge
from helpers.records import ledger, reading
from helpers.records.reading import Record
from helpers.records.study import Study, load_study
from helpers.stats.pooling import ByQuestion
from helpers.system import provenance


@dataclass(frozen=True)
class Case:
    """A claim, its criteria and the records of its experiment.

    ``expected`` are the runs of the declared grid (None: none is declared); ``stale`` maps the ids of stale records to
    what changed: study, version, data, model or inputs. Changed criteria do not make a record stale: they cap the
    confidence. ``by_question`` is that of ``study`` (`stats.pooling`), which knows how else its tables may be read.
    """

    path: Path
    claim: Claim
    criteria: Criteria
    records: tuple[Record, ...]
    expected: tuple[Expected, ...] | None
    stale: Mapping[str, list[str]]
    root: Path = ROOT
    by_question: ByQuestion | None = None
    study: Study | None = None

    _evidence: dict[tuple[tuple[str, ...], tuple[Any, ...]], Evidence] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )
    _verdicts: dict[str, Verdict] = field(init=False, repr=False, compare=False, default_factory=dict)
    _challenges: dict[str, Challenge | None] = field(init=False, repr=False, compare=False, default_factory=dict)

    def evidence(self, question: str | Question | None = None) -> Evidence:
        """Return the pooled cells in the claim's scope, as ``question`` (by default the primary one) pools them."""
        asked = question
        if not isinstance(asked, Question):
            asked = self.criteria.question(asked or self.claim.primary)
        pooled, fresh = tuple(asked.pool), tuple(asked.confirm.seeds) if asked.confirm else ()
        if (pooled, fresh) not in self._evidence:
            derive, counted = self.criteria.derive, self.by_question
            evidence = gather(self.records, self.expected, pooled, self.stale, derive, counted)
            self._evidence[pooled, fresh] = evidence.within(self.claim.scope).confirming(fresh)
        return self._evidence[pooled, fresh]

    def verdict(self, question: str | None = None) -> Verdict:
        """Return the verdict on ``question``. The default is the primary one, whose verdict is the claim's."""
        name = question or self.claim.primary
        if name not in self._verdicts:
            asked, evidence = self.criteria.question(name), self.evidence(name)
            estimand = self.criteria.estimand(name, max(1, self.looks))
            checks = check_controls(self.criteria, name, self.evidence())
            self._verdicts[name] = judge(asked, evidence, self.stale, estimand, checks)
        return self._verdicts[name]

    def verdicts(self) -> dict[str, Verdict]:
        """Return the verdict on every question of the criteria file."""
        return {name: self.verdict(name) for name in self.criteria.questions}

    def confidence(self, question: str | None = None) -> Confidence:
        """Return the cap on the verdict on ``question``; the declared level counts for the primary one only."""
        asked = self.criteria.question(question or self.claim.primary)
        evidence = self.evidence(question).within(asked.scope)
        declared = self.claim.declared_confidence if question in (None, self.claim.primary) else None
        challenged = row_of(self.challenge(question))
        found = self.verdict(question)
        return confidence(found, evidence, self.criteria, declared, self.root, self.looks, challenged, asked.metrics)

    def challenge(self, question: str | None = None) -> Challenge | None:
        """Return the verdict on ``question`` in every other way to analyse the records (`cases.challenge`)."""
        name = question or self.claim.primary
        if name not in self._challenges:
            self._challenges[name] = challenge(self, name)
        return self._challenges[name]

    @functools.cached_property
    def looks(self) -> int:
        """How often the claim's records were judged after they had grown: `audit.looks` writes it at `publish`."""
        return sum(line.event == "looked" for line in ledger.read().of("question", f"reports/{self.claim.slug}.qmd"))

    @functools.cached_property
    def facts(self) -> Facts:
        """Numbers for the page, from the records in the claim's scope."""
        return Facts(self.evidence())

    def fact(self, name: str, **cell: Any) -> Fact:
        """Shorthand of `Facts.fact`."""
        return self.facts.fact(name, **cell)


def read_params(notebook: str, grid: Path, root: Path = ROOT) -> parameters.Grid[parameters.Cell]:
    """Read the cells that the params file ``grid`` of a notebook declares."""
    model = load_study(notebook, root).cell
    if model is None:
        raise ClaimError(f"The study of params/{notebook} has no parameters, so it can have no grid.")
    return parameters.load(model, grid)


def declared_runs(notebook: str, grid: Path, root: Path = ROOT) -> tuple[Expected, ...]:
    """Return the runs that the params file ``grid`` of a notebook declares, one for each cell."""
    return runs_of(load_study(notebook, root), read_params(notebook, grid, root))


def runs_of(study: Study, cells: Iterable[parameters.Cell]) -> tuple[Expected, ...]:
    """Return the run that each of ``cells`` declares."""
    younger = frozenset(study.added)
    return tuple(
        Expected(study.asked(provenance.portable(cell.resolved())), younger, cell.model_dump(mode="json"))
        for cell in cells
    )


def stale_records(
    records: Sequence[Record], models: Mapping[str, str] | None = None, root: Path | None = None
) -> dict[str, list[str]]:
    """Map the id of each record whose question has changed since to what changed (`changed.Changes`)."""
    changes = Changes(models, root)
    return {record.id: why for record in records if (why := changes.of(record))}


@dataclass(frozen=True)
class ExperimentRecords:
    """All records of an experiment, unfinished ones included, oldest first; ``stale`` as in `Case`."""

    records: tuple[Record, ...]
    stale: Mapping[str, list[str]]

    @property
    def complete(self) -> tuple[Record, ...]:
        """The records that a page may use."""
        return tuple(record for record in self.records if record.status == "complete")


def read_experiment(notebook: str, root: Path = ROOT) -> ExperimentRecords:
    """Read every record of ``notebook``."""
    records = reading.records(notebook, status=None)
    complete = [record for record in records if record.status == "complete"]
    return ExperimentRecords(tuple(records), stale_records(complete, root=root))


def open_case(path: Path | str, root: Path = ROOT, known: Mapping[str, ExperimentRecords] | None = None) -> Case:
    """Open the claim of the page at ``path``; ClaimError names file, line and field when something is malformed.

    ``known`` holds the experiments that have been read already, because reading ten thousand records takes a second.
    """
    path = root / path
    if not path.is_file():
        pages = [one.stem for one in (root / "reports").glob("*.qmd")]
        raise ClaimError(f"There is no page {path.name} in {path.parent.name}/{nearest(path.stem, pages)}")
    claim = read_claim(path, root)
    experiment = (known or {}).get(claim.experiment) or read_experiment(claim.experiment, root)
    expected = declared_runs(claim.experiment, root / claim.grid, root) if claim.grid else None
    criteria = read_criteria(root / claim.criteria)
    study = load_study(claim.experiment, root)
    known_runs = experiment.complete, expected, experiment.stale
    return Case(path, claim, criteria, *known_runs, root, study.by_question, study)

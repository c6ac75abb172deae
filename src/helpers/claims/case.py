"""A claim with all that it is judged by: criteria, evidence, what is stale. Pages, lint, graph and status open it."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers import params as parameters
from helpers import provenance
from helpers import records as store
from helpers.claims.claim import Claim, Strict, read_claim
from helpers.claims.confidence import Confidence, confidence
from helpers.claims.criteria import Criteria, read_criteria
from helpers.claims.evidence import Evidence, Expected, gather
from helpers.claims.facts import Fact, Facts
from helpers.claims.marked import read_document, validate
from helpers.claims.verdict import Verdict, judge
from helpers.errors import ClaimError
from helpers.files import ROOT
from helpers.records import Record


@dataclass(frozen=True)
class Case:
    """A claim, its criteria and the records of its experiment.

    ``expected`` are the runs of the declared grid (None: none is declared); ``stale`` maps the ids of stale records to
    what changed: params, code, data or model. Changed criteria do not make a record stale: they cap the confidence.
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


class Experiment(Strict):
    """``params/<notebook>/experiment.yaml``: the parameter model and the module whose imports are the code of a run."""

    model: str
    entry: str


def experiment(notebook: str, root: Path = ROOT) -> Experiment:
    """Read ``params/<notebook>/experiment.yaml``; ClaimError when it is not there or malformed."""
    path = root / "params" / notebook / "experiment.yaml"
    if not path.is_file():
        raise ClaimError(
            f"{provenance.portable(str(path))} is not there: write `model:` and `entry:` of {notebook} in it."
        )
    return validate(Experiment, read_document(path.read_text(encoding="utf-8"), path))


def read_params(notebook: str, grid: Path, root: Path = ROOT) -> parameters.Params:
    """Read the params file ``grid`` of a notebook into its parameter model; no name in it is another one's."""
    module, _, name = experiment(notebook, root).model.partition(":")
    try:
        model = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ClaimError(
            f"params/{notebook}/experiment.yaml names the model {module}:{name}, which is not there."
        ) from error
    return parameters.load(model, grid)


def declared_cells(notebook: str, grid: Path, root: Path = ROOT) -> list[parameters.Params]:
    """The cells that the params file ``grid`` of a notebook declares, as its parameter model."""
    return read_params(notebook, grid, root).cells()


def declared_runs(notebook: str, grid: Path, root: Path = ROOT) -> tuple[Expected, ...]:
    """The runs that the params file ``grid`` of a notebook declares, one for each cell."""
    return runs_of(read_params(notebook, grid, root))


def runs_of(p: parameters.Params) -> tuple[Expected, ...]:
    """The runs that ``p`` declares, one for each cell."""
    return tuple(Expected(provenance.portable(cell.cell_params())) for cell in p.cells())


def stale_records(records: Sequence[Record], models: Mapping[str, str] | None = None) -> dict[str, list[str]]:
    """Ids of the records whose question has changed since, with what changed: params, code, data or model.

    ``models`` maps names of base models to their content hash as it is now; a model that is not in it is not checked
    (it may be a download away).
    """
    found: dict[str, list[str]] = {}
    present: dict[tuple[str | None, ...], dict[str, str | None]] = {}
    for record in records:
        model = (models or {}).get((record.model or {}).get("name"))
        # Thousands of records of one experiment share code and data: what these are now is found out once.
        kind = (*store.entries_of(record), *record.data, model)
        if kind not in present:
            now = store.question_now(record, model)
            present[kind] = {part: now[part] for part in ("code", "data", *(["model"] if model else []))}
        why = store.stale(record, present[kind])
        if why:
            found[record.id] = why
    return found


@dataclass(frozen=True)
class Found:
    """All records of an experiment, unfinished ones included, oldest first; ``stale`` as in `Case`."""

    records: tuple[Record, ...]
    stale: Mapping[str, list[str]]

    @property
    def complete(self) -> tuple[Record, ...]:
        """The records that a page may use."""
        return tuple(record for record in self.records if record.status == "complete")


def find(notebook: str) -> Found:
    """Read every record of ``notebook``."""
    records = store.records(notebook, status=None)
    return Found(tuple(records), stale_records([record for record in records if record.status == "complete"]))


def open_case(path: Path | str, root: Path = ROOT, known: Mapping[str, Found] | None = None) -> Case:
    """Open the claim of the page at ``path``; ClaimError names file, line and field when something is malformed.

    ``known`` holds the records of experiments that have been read already: reading ten thousand takes a second.
    """
    path = root / path
    claim = read_claim(path, root)
    found = (known or {}).get(claim.experiment) or find(claim.experiment)
    expected = declared_runs(claim.experiment, root / claim.grid, root) if claim.grid else None
    criteria = read_criteria(root / claim.criteria)
    return Case(path, claim, criteria, found.complete, expected, found.stale, root)

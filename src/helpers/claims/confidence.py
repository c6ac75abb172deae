"""How much confidence the evidence allows: a cap computed from a checklist. An author may lower it, never raise it."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from helpers.base.files import ROOT, content_hash
from helpers.claims.criteria import Criteria
from helpers.claims.evidence import Evidence, check_axes, full_key
from helpers.claims.logic import Truth
from helpers.claims.verdict import Check, Verdict
from helpers.records import ledger
from helpers.records.reading import Record
from helpers.records.run_record import NOT_RECORDED
from helpers.system.provenance import git

Level = Literal["LOW", "MODERATE", "HIGH"]
LEVELS: tuple[Level, ...] = ("LOW", "MODERATE", "HIGH")
NO_RECORD = "no record"
CHANGED = "LOW because the criteria changed after these runs"


@dataclass(frozen=True)
class Rule:
    """One row of the table: the least (or, with ``at_most``, the greatest) value that still allows a level."""

    name: str
    high: float
    moderate: float
    unit: str
    why: str
    at_most: bool = False

    def level(self, value: float | None) -> Level:
        """The level that ``value`` allows; what was not measured allows LOW only."""
        if value is None:
            return "LOW"
        sign = -1 if self.at_most else 1
        if sign * value >= sign * self.high:
            return "HIGH"
        return "MODERATE" if sign * value >= sign * self.moderate else "LOW"


# A level below MODERATE's bar is LOW. Shares are of the records behind the verdict; 1 means all of them.
RULES: tuple[Rule, ...] = (
    Rule("seeds", 5, 3, "seeds in the least covered cell", "runs of one recipe have differed by a factor of two"),
    Rule("sources", 3, 2, "settings trained on", "an effect in one source may be that source's own"),
    Rule("base models", 2, 1, "base models", "an effect in one base model may be that model's own"),
    Rule("controls", 1, 1, "share of the declared controls that hold", "without a control the effect has no reference"),
    Rule("recipe", 1, 0, "1 when new seeds would give the same verdict", "a verdict on these models may be their own"),
    Rule("looks", 1, 1, "1 when the records were judged no more often than planned", "each look may decide by chance"),
    Rule("challenge", 0.1, 0.25, "share of the other analyses in which it falls", "it hangs on how one counts", True),
    Rule("criteria frozen", 1, 1, "share of records begun under these criteria", "criteria set after the fact fit it"),
    Rule("grid complete", 1, 1, "share of the declared runs complete", "missing runs are seldom missing at random"),
    Rule("decisive intervals", 1, 1, "1 when the verdict is decided", "an open verdict supports nothing"),
    Rule("truncation", 0.05, 0.20, "largest truncation rate", "a cut answer hides what would have followed", True),
    Rule("clean tree", 1, 0.5, "1 clean, .5 dirty with its difference hashed", "uncommitted code cannot be read again"),
    Rule(
        "model size", 1e9, 1e8, "parameters of the largest base model", "small models may not show what large ones do"
    ),
)

MEASURED = Rule("measured numbers", 1, 1, "share of records whose judged numbers follow from their tables",
                "nothing can derive again what was only measured")  # fmt: skip
"""Stands first on the checklist of a verdict that rests on measured numbers, and on no other."""


@dataclass(frozen=True)
class Row:
    """One line of the checklist: what was found, the level it allows, and why the line is there."""

    name: str
    found: str
    allows: Level
    why: str

    @property
    def ticked(self) -> bool:
        """Whether this line allows HIGH."""
        return self.allows == "HIGH"


@dataclass(frozen=True)
class Confidence:
    """The cap and its checklist; ``stated`` is what the page may print: the author's level, never above the cap."""

    cap: Level
    rows: tuple[Row, ...]
    declared: Level | None = None
    changed: str = ""

    @property
    def stated(self) -> Level:
        """The lower of the declared level and the cap."""
        return self.cap if self.declared is None else lowest([self.declared, self.cap])

    @property
    def above_cap(self) -> bool:
        """Whether the author declared more than the evidence allows (an error of the page)."""
        return self.declared is not None and LEVELS.index(self.declared) > LEVELS.index(self.cap)

    @property
    def binding(self) -> str:
        """The binding constraint in one sentence."""
        if self.stated != self.cap:
            return f"The evidence would allow {self.cap}; the author holds it at {self.stated}."
        if self.changed:
            return f"{CHANGED}."
        if self.without_records:
            return "LOW until it has run."
        if self.cap == "HIGH":
            return "Nothing on the checklist holds the confidence below HIGH."
        first, *rest = self._holding
        others = f" (as {_listed([row.name for row in rest])} also do)" if rest else ""
        return f"{self.cap} because of {first.name}: {first.found}{others}; {first.why}."

    @property
    def brief(self) -> str:
        """The binding constraint in a few words."""
        if self.stated != self.cap:
            return f"{self.stated}: held there by the author"
        if self.changed:
            return "LOW: the criteria changed after the runs"
        return "HIGH" if self.cap == "HIGH" else f"{self.cap}: {self._holding[0].found}"

    @property
    def without_records(self) -> bool:
        """Whether there was nothing to look at."""
        return all(row.found == NO_RECORD for row in self.rows)

    @property
    def _holding(self) -> list[Row]:
        return [row for row in self.rows if row.allows == self.cap]


Found = tuple[float | None, str]
"""The value of a line of the checklist, None where it was not measured, and what is said of it."""


def lowest(levels: Sequence[Level]) -> Level:
    """The lowest of some levels."""
    return min(levels, key=LEVELS.index)


def confidence(
    verdict: Verdict,
    evidence: Evidence,
    criteria: Criteria,
    declared: Level | None = None,
    root: Path = ROOT,
    looks: int = 0,
    challenged: Found = (None, "not challenged"),
    judged: Collection[str] = (),
) -> Confidence:
    """The cap that the records behind ``verdict`` allow; ``evidence`` must be in the scope of its question.

    ``looks`` is how often the records were judged when they were published, ``challenged`` the share of other ways to
    analyse them in which the verdict falls, with a sentence, ``judged`` the metrics that the question names.
    """
    records = [record for record in evidence.records if record.id in verdict.records]
    if not records:
        rows = tuple(Row(rule.name, NO_RECORD, "LOW", rule.why) for rule in RULES)
        return Confidence("LOW", rows, declared)
    found: dict[str, Found] = {
        "seeds": _seeds(evidence),
        "sources": _sources(records, evidence, criteria),
        "base models": _bases(records),
        "controls": _controls(verdict.controls),
        "recipe": (
            float(verdict.carries_over),
            verdict.recipe.rstrip(".") or "an open verdict carries over to nothing",
        ),
        "looks": (
            float(looks <= criteria.looks),
            f"judged {looks} time{'' if looks == 1 else 's'} as records grew, planned {criteria.looks}",
        ),
        "challenge": challenged,
        "criteria frozen": _frozen(records, criteria, root),
        "grid complete": _complete(evidence),
        "decisive intervals": (float(verdict.fresh not in ("UNDECIDED", "NOT RUN")), f"the verdict is {verdict.fresh}"),
        "truncation": _truncation(records),
        "clean tree": _clean(records),
        "model size": _size(records),
    }
    measured = sum(is_measured(record, judged) for record in records)
    rules = (MEASURED, *RULES) if measured else RULES
    found["measured numbers"] = (
        1 - measured / len(records),
        f"the numbers of {measured} of {len(records)} records are measured",
    )
    rows = tuple(Row(rule.name, found[rule.name][1], rule.level(found[rule.name][0]), rule.why) for rule in rules)
    return Confidence(lowest([row.allows for row in rows]), rows, declared, changed_after(records, criteria, root))


def is_measured(record: Record, judged: Collection[str] = ()) -> bool:
    """Whether one of the metrics ``judged`` was measured; of a record that has no others, whatever is computed is."""
    marks = {name: bool(metric.get("measured")) for name, metric in record.metrics.items()}
    return any(marks.get(name) for name in judged) or (bool(marks) and all(marks.values()))


def _counted(names: set[str], noun: str) -> Found:
    shown = ", ".join(sorted(names)[:4]) + (", ..." if len(names) > 4 else "")
    return len(names), f"{len(names)} {noun}{'' if len(names) == 1 else 's'} ({shown})"


def _seeds(evidence: Evidence) -> Found:
    """Seeds of the least covered cell: one cell with many seeds does not make up for another with one."""
    cells = [cell for cell in evidence.inside if cell.records]
    counts = [len({record.cell.get("seed") for record in cell.records} - {None}) for cell in cells]
    least = cells[counts.index(min(counts))]
    where = f" in {least.name}" if max(counts) > min(counts) else " in every cell"
    return min(counts), f"{min(counts)} seed{'' if min(counts) == 1 else 's'}{where}"


def _sources(records: Sequence[Record], evidence: Evidence, criteria: Criteria) -> Found:
    axis = criteria.source_axis
    if axis is None:
        return math.inf, "not an axis of this experiment"
    keys = [{**record.params, **full_key(record)} for record in records]
    check_axes([axis], keys)
    value, text = _counted({str(key.get(axis)) for key in keys}, axis)
    if value == 1 and axis in evidence.scope:
        return 2, f"{text}, and the statement is about it alone"
    return value, text


def _bases(records: Sequence[Record]) -> Found:
    names = {(record.model or {}).get("name", "no base model") for record in records}
    if NOT_RECORDED in names:
        return None, "the records do not say which base model they are of"
    return _counted(names, "base model")


def _controls(checks: Sequence[Check]) -> Found:
    if not checks:
        return None, "the criteria declare no control"
    faults = [
        f"{word}: {', '.join(names)}"
        for word, truth in (("failed", Truth.FALSE), ("not decided", Truth.UNKNOWN))
        if (names := [check.name for check in checks if check.truth == truth])
    ]
    passed = sum(check.truth == Truth.TRUE for check in checks)
    return passed / len(checks), "; ".join(faults) or f"all hold: {', '.join(check.name for check in checks)}"


def _frozen(records: Sequence[Record], criteria: Criteria, root: Path) -> Found:
    same = len(records) - len(_before_these(records, criteria, root))
    return same / len(records), f"{same} of {len(records)} records began under these criteria"


def _before_these(records: Sequence[Record], criteria: Criteria, root: Path) -> list[Record]:
    """Return the records that began before the criteria were as they are now.

    A record holds the hash of ``params/<notebook>/criteria.yaml``; when other criteria became what they are, the ledger
    says, to the second.
    """
    inside = criteria.path.is_relative_to(root)
    line = ledger.read().standing("criteria").get(criteria.path.relative_to(root).as_posix()) if inside else None
    since = line.moment if line and line.sha256 == content_hash(criteria.path) else None
    return [
        record
        for record in records
        if (record.criteria is None or record.criteria["sha256"] != criteria.sha256)
        and (since is None or datetime.fromisoformat(record.started) < since + timedelta(seconds=1))
    ]


def _complete(evidence: Evidence) -> Found:
    if not evidence.declared:
        return None, "no grid is declared"
    there, lacking = len(evidence.records), len(evidence.absent)
    return there / (there + lacking), f"{there} of {there + lacking} declared runs are complete"


def _truncation(records: Sequence[Record]) -> Found:
    """Largest truncation rate; not an issue (0) for an experiment that generates nothing."""
    rates = [(_truncated(record), record.id) for record in records]
    known = [rate for rate in rates if rate[0] is not None]
    if not known and not any(_made_elsewhere(record) for record in records):
        return 0.0, "no record generates text"
    if len(known) < len(rates):
        return None, f"{len(rates) - len(known)} of {len(rates)} records do not say how many answers were cut"
    worst, name = max(known)
    return worst, f"at most {worst:.1%} of the answers of a run were cut ({name})".replace("%", " %")


def _made_elsewhere(record: Record) -> bool:
    """Whether the model is one that a log or nobody names, and that was not loaded here."""
    return bool(record.model) and "source" in record.model and "parameters" not in record.model


def _truncated(record: Record) -> float | None:
    metric, reasons = record.metrics.get("truncation_rate"), record.content.get("finish_reasons") or {}
    if metric is not None:
        return metric["value"]
    return reasons.get("length", 0) / sum(reasons.values()) if sum(reasons.values()) else None


def _clean(records: Sequence[Record]) -> Found:
    scores = [_cleanness(record) for record in records]
    without = [record.provenance for record in records if not record.provenance.get("commit")]
    dirty = sum(score < 1 for score in scores) - len(without)
    faults = [f"{dirty} of {len(records)} records from a tree with uncommitted changes"] if dirty else []
    if without:
        reasons = sorted({made.get("reason") or "no reason was recorded" for made in without})
        faults.append(f"{len(without)} of {len(records)} records have no commit ({'; '.join(reasons)})")
    return min(scores), " and ".join(faults) or "clean"


def _cleanness(record: Record) -> float:
    provenance = record.provenance
    if provenance.get("commit") and provenance.get("dirty") is False:
        return 1.0
    return 0.5 if provenance.get("commit") and provenance.get("diff_sha256") else 0.0


def _size(records: Sequence[Record]) -> Found:
    sizes = [record.model.get("parameters") for record in records if record.model]
    if not sizes or None in sizes:
        return None, "the records do not say how large the base model is"
    return max(sizes), f"the largest base model has {_short(max(sizes))} parameters"


def _short(number: float) -> str:
    sizes = ((1e9, "B"), (1e6, "M"), (1e3, "k"))
    return next((f"{number / size:.3g}{letter}" for size, letter in sizes if number >= size), f"{number:g}")


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def changed_after(records: Sequence[Record], criteria: Criteria, root: Path = ROOT) -> str:
    """ "" when the records began under the criteria as they are now; else one sentence with the commits since then."""
    changed = _before_these([record for record in records if record.criteria is not None], criteria, root)
    if not changed:
        return ""
    since = min(record.started for record in changed)
    log = git("log", "--format=%h of %as (%s)", f"--since={since}", "--", str(criteria.path), root=root)
    commits = (log or b"").decode(errors="replace").splitlines()
    by = f"by {'; '.join(commits)}" if commits else "by no commit of this repository since they began"
    return f"{CHANGED}, {by}."

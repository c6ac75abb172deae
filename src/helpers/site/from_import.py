"""``claimbook new my-claim --from-import``: criteria and page of a claim about imported logs or recorded commands."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from helpers.base.errors import ClaimError, nearest
from helpers.base.files import ROOT, write_text
from helpers.records.reading import Record, records
from helpers.site.new import SLUG, render
from helpers.studies.imported import importing
from helpers.studies.imported.metrics import WRONG
from helpers.studies.imported.study import STUDY as IMPORTED
from helpers.studies.recorded import recording
from helpers.studies.recorded.study import STUDY as RECORDED

SHOWN = 4


@dataclass(frozen=True)
class Kind:
    """What a claim is about: logs or commands. Runs of one command are pooled over the axes ``pool``."""

    called: str
    grid: str
    template: str
    head: str
    pool: tuple[str, ...] = ()


KINDS = {
    IMPORTED.name: Kind("log", importing.GRID, "imported.qmd.jinja", """\
# What is claimed of imported logs. Samples without a value are left out and counted; the second question counts each
# of them as wrong. Where a log was imported before this file was written, its claim is exploratory.
"""),
    RECORDED.name: Kind("command", recording.GRID, "recorded.qmd.jinja", """\
# What is claimed of recorded commands. Their numbers were measured, and nothing can derive them again. The runs of one
# command bound its number, so a single run leaves every question open. Where a run was recorded before this file was
# written, its claim is exploratory.
""", ("run",)),
}  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """What is claimed of ``metric``: that it is at least or at most ``threshold``, in log ``a`` (None: in every log).

    With ``b`` it is claimed of the metric in log ``a`` minus that in log ``b``: of logs paired by sample.
    """

    metric: str
    threshold: float
    at_least: bool = True
    a: str | None = None
    b: str | None = None

    @property
    def sign(self) -> str:
        return ">=" if self.at_least else "<="

    @property
    def against(self) -> str:
        """The sign of the opposite, which refutes."""
        return "<" if self.at_least else ">"


def create(slug: str, name: str, claimed: Comparison, root: Path = ROOT) -> list[Path]:
    """Write the criteria and the page of ``claimed`` over the logs of the study ``name``; return their paths.

    Raises:
        ClaimError: there is no such study, log or metric, or a file is there already; nothing is written then.
    """
    if not SLUG.fullmatch(slug):
        raise ClaimError(f"{slug!r} is no slug. Use lower-case words joined by hyphens, such as my-claim.")
    logs: dict[str, list[Record]] = {}
    for record in records(name):
        logs.setdefault(record.cell.get("label", ""), []).append(record)
    studies = {record.study for some in logs.values() for record in some}
    if len(studies) != 1 or not studies <= set(KINDS):
        raise ClaimError(
            f"No log was imported and no command recorded as {name}. Do so first, or name its study: --study NAME."
        )
    kind = KINDS[studies.pop()]
    if claimed.b is not None and claimed.a is None:
        raise ClaimError(f"--against {claimed.b} compares a {kind.called} with another. Name that one: --log LABEL.")
    for label in (claimed.a, claimed.b):
        if label is not None and label not in logs:
            raise ClaimError(f"There is no {kind.called} {label!r} in {name}{nearest(label, logs)}")
    labels = [label for label in (claimed.a, claimed.b) if label is not None] or list(logs)
    _check_metric(claimed.metric, kind, [record for label in labels for record in logs[label]])
    criteria = root / "params" / name / f"{slug.replace('-', '_')}_criteria.yaml"
    page = root / "reports" / f"{slug}.qmd"
    for path in (criteria, page):
        if path.exists():
            raise ClaimError(f"{path.relative_to(root)} is there already. Choose another name than {slug!r}.")
    bounded = all(f"{claimed.metric}.{WRONG}" in record.metrics for label in labels for record in logs[label])
    write_text(criteria, _criteria(claimed, kind, bounded))
    write_text(page, _page(slug, name, claimed, kind, criteria.relative_to(root).as_posix(), labels))
    return [criteria, page]


def _check_metric(metric: str, kind: Kind, chosen: list[Record]) -> None:
    for record in chosen:
        if metric not in record.metrics:
            label = record.cell["label"]
            raise ClaimError(f"The {kind.called} {label!r} has no metric {metric!r}{nearest(metric, record.metrics)}")


def _criteria(claimed: Comparison, kind: Kind, bounded: bool) -> str:
    """Return the criteria: the question, and the same with every sample that has no value counted as wrong."""
    names = {"primary": claimed.metric} | ({"unscored_wrong": f"{claimed.metric}.{WRONG}"} if bounded else {})
    content = {
        "version": 1,
        "metrics": {_judged(claimed, kind, score): _metric(claimed, kind, score) for score in names.values()},
        "questions": {name: _question(claimed, kind, score, name) for name, score in names.items()},
    }
    return kind.head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=118)


def _paired(claimed: Comparison, kind: Kind) -> bool:
    """Whether two logs are compared by a function, which pairs their samples; numbers of commands are subtracted."""
    return claimed.b is not None and not kind.pool


def _judged(claimed: Comparison, kind: Kind, score: str) -> str:
    return f"{score}.difference" if _paired(claimed, kind) else score


def _metric(claimed: Comparison, kind: Kind, score: str) -> Any:
    if kind.pool:
        return f"{claimed.metric}, as each run measured it"
    note = "of what was scored" if not score.endswith(WRONG) else "where what has no value counts as wrong"
    if claimed.b is None:
        return f"{claimed.metric}, {note}"
    arguments = {"score": score, "a": claimed.a, "b": claimed.b}
    note = f"{claimed.metric} of {claimed.a} minus that of {claimed.b}, {note}"
    return {"note": note, "function": "criteria:difference", "arguments": arguments, "over": "scope"}


def _question(claimed: Comparison, kind: Kind, score: str, name: str) -> dict[str, Any]:
    said = statement(claimed, kind).removesuffix(".")
    beside = "" if name == "primary" else ", where every sample without a value counts as wrong"
    judged = _judged(claimed, kind, score)
    yes, no = f"{judged} {claimed.sign} {claimed.threshold:g}", f"{judged} {claimed.against} {claimed.threshold:g}"
    scope = {"scope": {"label": claimed.a}} if claimed.a is not None and claimed.b is None else {}
    return {
        "question": f"Is it so that {said[0].lower()}{said[1:]}{beside}?", **scope, "pool": list(kind.pool),
        "outcomes": [
            {"name": "so", "verdict": "SUPPORTED", "when": _where(claimed, kind, "every_cell", yes),
             "reading": f"{said}{beside}."},
            {"name": "not so", "verdict": "REFUTED", "when": _where(claimed, kind, "any_cell", no),
             "reading": f"It is not so that {said[0].lower()}{said[1:]}{beside}."},
        ],
    }  # fmt: skip


def _where(claimed: Comparison, kind: Kind, form: str, condition: str) -> Any:
    """Return a condition of the criteria: in every or any log, or in the one that is compared with another."""
    if claimed.b is None:
        return {form: condition}
    if _paired(claimed, kind):
        return condition
    return {"cell": {"label": claimed.a}, "holds": {"minus": {"label": claimed.b}, "holds": condition}}


def statement(claimed: Comparison, kind: Kind) -> str:
    """Return the claim in a sentence."""
    bound = f"{'at least' if claimed.at_least else 'at most'} {claimed.threshold:g}"
    if claimed.b is not None:
        return f"The difference in {claimed.metric}, {claimed.a} minus {claimed.b}, is {bound}."
    return f"In {claimed.a or f'every {kind.called}'}, {claimed.metric} is {bound}."


def _effect(claimed: Comparison, labels: list[str]) -> dict[str, Any]:
    """Return the effect of the page: the metric under each label, as many of them as a reader takes in at once."""
    shown = {f"log_{place}": label for place, label in enumerate(labels[:SHOWN], 1)}
    numbers = {
        name: {"metric": claimed.metric, "label": label, "cell": {"label": label}} for name, label in shown.items()
    }
    said = ", ".join(f"{{{name}}} in {label}" for name, label in shown.items())
    return {"sentence": f"Measured {claimed.metric}: {said}.", "numbers": numbers}


def _page(slug: str, name: str, claimed: Comparison, kind: Kind, criteria: str, labels: list[str]) -> str:
    judged = _judged(claimed, kind, claimed.metric)
    beside = [f"{claimed.metric}.left_out"] if claimed.b is None and not kind.pool else []
    return render(
        kind.template, title=json.dumps(slug.replace("-", " ").capitalize()), slug=slug, name=name,
        statement=json.dumps(statement(claimed, kind), ensure_ascii=False), criteria=criteria,
        grid=f"params/{name}/{kind.grid}", metrics=json.dumps([judged, *beside]),
        effect=json.dumps(_effect(claimed, labels), ensure_ascii=False),
    )  # fmt: skip

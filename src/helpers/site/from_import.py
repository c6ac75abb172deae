"""``claimbook new my-claim --from-import``: criteria and page of a claim about logs that were imported."""

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
from helpers.studies.imported.importing import GRID
from helpers.studies.imported.metrics import WRONG

SHOWN = 4
HEAD = """\
# What is claimed of imported logs. Samples without a value are left out and counted; the second question counts each
# of them as wrong. Where a log was imported before this file was written, its claim is exploratory.
"""


@dataclass(frozen=True)
class Comparison:
    """What is claimed of ``metric``: that it is at least or at most ``threshold``, in log ``a`` (None: in every log).

    With ``b`` it is claimed of the metric in log ``a`` minus that in log ``b``, paired by sample.
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
    logs = {record.cell["label"]: record for record in records(name)}
    if not logs:
        raise ClaimError(f"No log was imported as {name}. Import one first, or name its study: --study NAME.")
    if claimed.b is not None and claimed.a is None:
        raise ClaimError(f"--against {claimed.b} compares a log with another. Name that one: --log LABEL.")
    for label in (claimed.a, claimed.b):
        if label is not None and label not in logs:
            raise ClaimError(f"There is no log {label!r} in {name}{nearest(label, logs)}")
    chosen = [logs[label] for label in (claimed.a, claimed.b) if label is not None] or list(logs.values())
    _check_metric(claimed.metric, chosen)
    criteria = root / "params" / name / f"{slug.replace('-', '_')}_criteria.yaml"
    page = root / "reports" / f"{slug}.qmd"
    for path in (criteria, page):
        if path.exists():
            raise ClaimError(f"{path.relative_to(root)} is there already. Choose another name than {slug!r}.")
    write_text(criteria, _criteria(claimed, all(f"{claimed.metric}.{WRONG}" in log.metrics for log in chosen)))
    write_text(page, _page(slug, name, claimed, criteria.relative_to(root).as_posix(), chosen))
    return [criteria, page]


def _check_metric(metric: str, chosen: list[Record]) -> None:
    for log in chosen:
        if metric not in log.metrics:
            raise ClaimError(f"The log {log.cell['label']!r} has no metric {metric!r}{nearest(metric, log.metrics)}")


def _criteria(claimed: Comparison, bounded: bool) -> str:
    """Return the criteria: the question, and the same with every sample that has no value counted as wrong."""
    names = {"primary": claimed.metric} | ({"unscored_wrong": f"{claimed.metric}.{WRONG}"} if bounded else {})
    content = {
        "version": 1,
        "metrics": {_judged(claimed, score): _metric(claimed, score) for score in names.values()},
        "questions": {name: _question(claimed, score, name) for name, score in names.items()},
    }
    return HEAD + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=118)


def _judged(claimed: Comparison, score: str) -> str:
    return score if claimed.b is None else f"{score}.difference"


def _metric(claimed: Comparison, score: str) -> Any:
    note = "of what was scored" if not score.endswith(WRONG) else "where what has no value counts as wrong"
    if claimed.b is None:
        return f"{claimed.metric}, {note}"
    arguments = {"score": score, "a": claimed.a, "b": claimed.b}
    note = f"{claimed.metric} of {claimed.a} minus that of {claimed.b}, {note}"
    return {"note": note, "function": "criteria:difference", "arguments": arguments, "over": "scope"}


def _question(claimed: Comparison, score: str, name: str) -> dict[str, Any]:
    said = statement(claimed).removesuffix(".")
    beside = "" if name == "primary" else ", where every sample without a value counts as wrong"
    judged, form = _judged(claimed, score), "every_cell" if claimed.b is None else None
    yes, no = f"{judged} {claimed.sign} {claimed.threshold:g}", f"{judged} {claimed.against} {claimed.threshold:g}"
    scope = {"scope": {"label": claimed.a}} if claimed.a is not None and claimed.b is None else {}
    return {
        "question": f"Is it so that {said[0].lower()}{said[1:]}{beside}?", **scope, "pool": [],
        "outcomes": [
            {"name": "so", "verdict": "SUPPORTED", "when": {form: yes} if form else yes, "reading": f"{said}{beside}."},
            {"name": "not so", "verdict": "REFUTED", "when": {"any_cell": no} if form else no,
             "reading": f"It is not so that {said[0].lower()}{said[1:]}{beside}."},
        ],
    }  # fmt: skip


def statement(claimed: Comparison) -> str:
    """Return the claim in a sentence."""
    bound = f"{'at least' if claimed.at_least else 'at most'} {claimed.threshold:g}"
    if claimed.b is not None:
        return f"The {claimed.metric} of {claimed.a} minus that of {claimed.b} is {bound}."
    return f"The {claimed.metric} of {claimed.a or 'every log'} is {bound}."


def _effect(claimed: Comparison, chosen: list[Record]) -> dict[str, Any]:
    """Return the effect of the page: the metric in each log, as many of them as a reader takes in at once."""
    labels = [log.cell["label"] for log in chosen[:SHOWN]]
    numbers = {
        f"log_{place}": {"metric": claimed.metric, "label": label, "cell": {"label": label}}
        for place, label in enumerate(labels, 1)
    }
    said = ", ".join(f"{{log_{place}}} in {label}" for place, label in enumerate(labels, 1))
    return {"sentence": f"The {claimed.metric} is {said}.", "numbers": numbers}


def _page(slug: str, name: str, claimed: Comparison, criteria: str, chosen: list[Record]) -> str:
    judged = [_judged(claimed, claimed.metric)]
    return render(
        "imported.qmd.jinja", title=json.dumps(slug.replace("-", " ").capitalize()), slug=slug, name=name,
        statement=json.dumps(statement(claimed), ensure_ascii=False), criteria=criteria, grid=f"params/{name}/{GRID}",
        effect=json.dumps(_effect(claimed, chosen), ensure_ascii=False),
        metrics=json.dumps([*judged, f"{claimed.metric}.left_out"] if claimed.b is None else judged),
    )  # fmt: skip

"""Numbers for criteria on the shared-text control that compare two organisms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from helpers.records.reading import Record
from helpers.stats import estimands
from helpers.stats.estimands import Estimand
from helpers.studies.actdiff.texts.metrics import jackknifed


def above_control(
    records: Sequence[Record], estimand: Estimand, organism: str, domain: str, control: str
) -> dict[str, Any] | None:
    """Return z of ``domain`` on shared text (positions 5+) under ``organism`` minus that under ``control``, over seeds.

    The control has seen no domain, so one control of a seed serves every domain. Each seed's difference has a jackknife
    over the documents, which both have read.
    """
    values = {
        (r.cell["organism"], r.cell.get("domain"), r.cell["seed"]): r for r in records if "text_scores" in r.tables
    }
    controls = {seed: r for (name, _, seed), r in values.items() if name == control}
    seeds = []
    for (name, trained, seed), record in values.items():
        if (name, trained) == (organism, domain) and seed in controls:
            difference = _z(record, domain) - _z(controls[seed], domain)
            seeds.append(jackknifed(difference, record.params["documents"]))
    return estimands.number(seeds, "sd", estimand).metric("sd") if seeds else None


def _z(record: Record, domain: str) -> Any:
    table = record.table("text_scores").query("reading == 'shared' and at == 'later' and domain == @domain")
    return table.set_index("fold")["z"]

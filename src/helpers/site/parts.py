"""Blocks that any claim page can show; each also works before anything was run.

Charts and prose of one experiment belong on its page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from helpers.base import files
from helpers.base.errors import ClaimError
from helpers.cases.case import Case
from helpers.claims.evidence import label, telling
from helpers.records.reading import Record
from helpers.show.markup import Block, Inline, verbatim
from helpers.site.blocks import badge, draw, samples
from helpers.site.pages import NOT_RUN, paragraph, table
from helpers.system.provenance import portable

VALUES = 4


def criteria_table(case: Case) -> Block:
    """Show the registered outcomes of the primary question: what each means, and which one came out."""
    asked, outcome = case.criteria.question(case.claim.primary), case.verdict().outcome
    rows = [
        {"outcome": one.name, "verdict": badge(one.verdict), "reading": one.reading,
         "came out": "yes" if one.name == outcome else "no"}
        for one in asked.outcomes
    ]  # fmt: skip
    return table(pd.DataFrame(rows), f"Outcomes registered for: {asked.question}")


def reasons(case: Case) -> Block:
    """List the comparisons that the verdict rests on, each with its interval."""
    comparisons = case.verdict().reasons
    return _listed(comparisons) if comparisons else paragraph(NOT_RUN)


def _listed(items: Sequence[str]) -> Block:
    return Block(Markup("<ul>{}</ul>").format(Markup().join(Markup("<li>{}</li>").format(verbatim(i)) for i in items)))


def coverage(case: Case) -> Inline:
    """Say how much of the declared grid is complete, and what is missing."""
    evidence = case.evidence()
    there, lacking = len(evidence.records), evidence.absent
    if not evidence.declared:
        return Inline(Markup("{} runs are complete; no grid is declared.").format(there))
    text = f"{there} of {there + len(lacking)} declared runs are complete"
    if not lacking or not there:
        return Inline(verbatim(f"{text}."))
    cells = [record.cell for record in evidence.records]
    axes = [axis for axis in telling([*lacking, *cells]) if all(axis in key for key in [*lacking, *cells])]
    by_cell: dict[str, list[int]] = {}
    for key in lacking:
        cell = label({axis: key[axis] for axis in axes if axis != "seed"} if axes else key)
        by_cell.setdefault(cell, []).extend([key["seed"]] if "seed" in key else [])
    missing = [f"{cell} ({_seeds(sorted(seeds))})" if seeds else cell for cell, seeds in by_cell.items()]
    more = f"; and {len(missing) - 4} cells more" if len(missing) > 5 else ""
    return Inline(verbatim(f"{text}; missing: {'; '.join(missing[: 4 if more else 5])}{more}."))


def _seeds(seeds: Sequence[int]) -> str:
    """Name seeds in order, those without a gap between them by the first and the last."""
    if len(seeds) > 2 and seeds[-1] - seeds[0] == len(seeds) - 1:
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def limits(case: Case) -> Block:
    """List the lines of the checklist that are not ticked: the caveats that follow from the records."""
    rows = [row for row in case.confidence().rows if not row.ticked]
    return _listed([f"{row.name}: {row.found}; {row.why}." for row in rows] or ["The checklist is fully ticked."])


def numbers(case: Case, metrics: Sequence[str], caption: str) -> Block:
    """Show one row a cell with a linked fact for each metric; a metric that a cell lacks shows as missing."""
    rows = []
    cells = [cell for cell in case.evidence().inside if cell.records]
    axes = telling([cell.key for cell in cells]) or list(cells[0].records[0].cell if cells else ())
    for cell in cells:
        rows.append(
            {axis: _plain(cell.key.get(axis)) for axis in axes} | {m: _fact(case, m, cell.key) for m in metrics}
        )
    return table(pd.DataFrame(rows), caption) if rows else paragraph(NOT_RUN)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _fact(case: Case, metric: str, key: dict[str, Any]) -> Any:
    cell = case.evidence().at(key)
    if cell is None or cell.interval(metric) is None:
        return None
    return case.fact(metric, **key)


def recorded(case: Case, heading: str, *prefixes: str) -> Block:
    """Show the entries of ``run.json`` whose names begin with ``prefixes``, one row each."""
    records = case.evidence().records
    if not records:
        return paragraph(NOT_RUN)
    names = [name for name in case.facts.names() if name.startswith(prefixes)]
    if not names:
        raise ClaimError(f"The records hold nothing under {', '.join(prefixes)}: name entries of run.json.")
    rows = [{"entry": name, "value": case.fact(name)} for name in names]
    return table(pd.DataFrame(rows), heading)


def stated(case: Case, heading: str, name: str) -> Block:
    """Show the JSON result ``name`` of the records, a row an entry; values that differ are named by their cells."""
    found: dict[str, dict[str, list[str]]] = {}
    for record in case.evidence().records:
        for entry, value in _entries(record.results[name]):
            found.setdefault(entry, {}).setdefault(value, []).append(label(record.cell))
    if not found:
        return paragraph(NOT_RUN)
    return table(pd.DataFrame([{"entry": name, "value": _told(values)} for name, values in found.items()]), heading)


def _entries(content: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from _entries(value, f"{above}{name}.")
        else:
            told = ", ".join(map(str, value)) if isinstance(value, list) else value
            yield f"{above}{name}", str(told) if told not in (None, "", {}) else "none"


def _told(values: Mapping[str, Sequence[str]]) -> str:
    if len(values) == 1:
        return next(iter(values))
    told = [f"{value} ({cells[0] if len(cells) == 1 else f'{len(cells)} records'})" for value, cells in values.items()]
    return "; ".join(told[:VALUES]) + (f"; and {len(told) - VALUES} more" if len(told) > VALUES else "")


def random_samples(case: Case, *, by: Sequence[str], n: int, seed: int, marker: str | None = None) -> Block:
    """Show ``n`` completions of each condition, drawn at random, with their addresses."""
    tables = [_completions(record) for record in case.evidence().records if "completions" in record.tables]
    if not tables:
        return paragraph(NOT_RUN)
    return samples(draw(pd.concat(tables, ignore_index=True), by, n=n, seed=seed), seed=seed, marker=marker)


def _completions(record: Record) -> pd.DataFrame:
    return record.table("completions").assign(run=record.id, cell=label(record.cell), **_axes(record))


def _axes(record: Record) -> dict[str, Any]:
    return {f"axis {name}": value for name, value in record.cell.items()}


def artifacts(case: Case) -> Block:
    """List criteria, grid, notebook (imported logs have none) and the folder of each record, with the hash of each.

    A record's hash is that of its ``run.json``, which holds the hashes of its other files.
    """
    claim = case.claim
    notebook = f"notebooks/{claim.experiment}.ipynb"
    named = {"criteria": claim.criteria, "declared grid": claim.grid, "notebook": notebook}
    rows = [_artifact(what, case.root / str(path), str(path)) for what, path in named.items()]
    for record in case.evidence().records:
        rows.append(_artifact("record", record.path / "run.json", portable(str(record.path)).removeprefix("./")))
    return table(pd.DataFrame([row for row in rows if row]), "Artifacts")


def _artifact(what: str, file: Path, where: str) -> dict[str, str]:
    return {"what": what, "where": where, "sha256": files.content_hash(file)[:12]} if file.is_file() else {}


def logged(case: Case) -> Block:
    """List what the runs logged, a row a file or folder: in how many of them, and where it is kept."""
    records = case.evidence().records
    if not records:
        return paragraph(NOT_RUN)
    holders = Counter(name for record in records for name in {file.partition("/")[0] for file in record.files})
    where = "published" if all(record.published for record in records) else "on this machine"
    rows = [{"what": "parameters, metrics, seconds, machine", "runs": len(records), "kept in": f"run.json, {where}"}]
    for name, count in sorted(holders.items()):
        stays = f"{name}/ where it was made; its hashes are in run.json"
        rows.append({
            "what": name.removesuffix(".parquet").replace("_", " "), "runs": count,
            "kept in": f"{name}, {where}" if name.endswith(".parquet") else stays,
        })  # fmt: skip
    return table(pd.DataFrame(rows), "What was logged where")

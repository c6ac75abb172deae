"""A run's adapter as a peft folder, with a model card drawn from its record and from the claims that rest on it."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.base import files
from helpers.base.errors import ExportError, RecordError
from helpers.cases.case import Case, read_experiment
from helpers.export import claims, places
from helpers.records import reading
from helpers.records.reading import Record
from helpers.records.study import find_study
from helpers.site.status import pages_in
from helpers.stats.pooling import as_interval
from helpers.stats.wording import spoken
from helpers.system.provenance import portable

SCHEMA = "claimbook/adapter/1"
FOLDER, CONFIG = "adapter", "adapter_config.json"


@dataclass(frozen=True)
class Exported:
    """What was exported: of which record, and on which claims it bears."""

    record: Record
    claims: list[str]


def export(ref: str, out: Path, root: Path = files.ROOT) -> Exported:
    """Write the adapter of the run ``ref`` to ``out``.

    Raises:
        ExportError: the run trained no adapter of peft, its adapter is not on this machine, or ``out`` is taken.
        RecordError: there is no such run, or a file of its adapter was changed.
    """
    record = reading.load(ref)
    home = _home(record)
    named = (home / CONFIG).read_text(encoding="utf-8")
    if portable(named) != named:
        raise ExportError(f"{CONFIG} of {ref} names a folder of this machine. Train it again from a model by name.")
    cases = [case for case in _cases(record, root) if record.ref in {one.ref for one in case.evidence().records}]
    kept = sorted(name for name in record.files if name.startswith(f"{FOLDER}/") and not name.endswith(".parquet"))
    about: dict[str, Any] = {
        "record": record.ref, "sha256": files.sha256_file(record.path / "run.json"), "cell": record.cell,
        "base_model": {name: record.model.get(name) for name in ("name", "sha256", "source", "revision", "dtype")},
        "files": {name.removeprefix(f"{FOLDER}/"): record.files[name] for name in kept},
    }  # fmt: skip
    with places.folder(out, SCHEMA, about) as new:
        for name in about["files"]:
            shutil.copyfile(files.inside(home, *name.split("/")), new / name)
        files.write_text(new / "README.md", card(record, cases))
    return Exported(record, [case.claim.id for case in cases])


def _home(record: Record) -> Path:
    """Return the folder of the adapter, every file of it as its run wrote it."""
    inside = [name for name in record.files if name.startswith(f"{FOLDER}/")]
    if not inside:
        raise ExportError(f"{record.ref} trained no adapter of its own, so there is none to export.")
    if f"{FOLDER}/{CONFIG}" not in inside:
        raise ExportError(f"{record.ref} trained all weights and keeps their changes: it has no adapter of peft.")
    if record.published and reading.made_here(record.ref) is None:
        raise ExportError(
            f"The adapter of {record.ref} is not here, because adapters are not published. Make it again: "
            f"{command(record)}"
        )
    home = record.folder(FOLDER)
    here = reading.load(home.parent)  # the run that was made here may be another run of the same question
    if here.files != record.files:
        raise RecordError(
            f"The adapter in {portable(str(home))} is of another run than the published {record.ref}: their files "
            "differ. Withdraw the published one, or delete the other and run it again."
        )
    return home


def command(record: Record) -> str:
    """Return the command that makes a run again in this checkout, its adapter included."""
    cell = find_study(record.study).cell
    fields = cell.model_fields if cell else {}
    given = {
        name: value
        for name, value in record.params.items()
        if name in fields and name != "device" and value != fields[name].get_default(call_default_factory=True)
    }
    return f"papermill notebooks/{record.notebook}.ipynb out.ipynb -y {shlex.quote(json.dumps(given))}"


def _cases(record: Record, root: Path) -> Iterator[Case]:
    """Yield the finished claims of the record's experiment."""
    if (root / "params" / record.notebook).is_dir():
        known = {record.notebook: read_experiment(record.notebook, root)}
        yield from (page for page in pages_in(root / "reports", root, known) if isinstance(page, Case))


def card(record: Record, cases: list[Case]) -> str:
    """Return the model card: what the adapter is of, how it was made, what was measured, and what that does not say."""
    model = record.model
    head = {"base_model": model.get("source") or model["name"], "library_name": "peft", "tags": ["lora", "claimbook"]}
    rows = [
        f"| `{name}` | {spoken(as_interval(metric), metric['unit'])} |"
        for name, metric in record.metrics.items()
        if not metric.get("measured")
    ]
    parts = [
        f"---\n{''.join(f'{name}: {json.dumps(value)}{chr(10)}' for name, value in head.items())}---",
        f"# {record.id}",
        f"An adapter that one run of `{record.notebook}` trained, drawn from its record "
        f"`{record.ref}` ({record.started[:10]}, commit {str(record.provenance.get('commit'))[:7]}).",
        f"## Base model\n\n{model['name']}, content `{model['sha256']}` (weights, tokenizer, template), "
        f"{model.get('dtype') or 'dtype not stated'}. On another base the adapter is another model.",
        f"## Recipe\n\n```json\n{json.dumps(record.params, indent=1, ensure_ascii=False)}\n```",
        "## What was measured\n\nOf this run alone: successes of trials, or the number of values, with the interval."
        f"\n\n| metric | value |\n|---|---|\n{chr(10).join(rows)}",
        *(_claim(claims.stated_by(case)) for case in cases),
        "## Load\n\n```python\nfrom peft import PeftModel\n\nmodel = PeftModel.from_pretrained(base, FOLDER)\n```",
        f"## Make it again\n\n```\n{command(record)}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _claim(stated: claims.ClaimStated) -> str:
    """Return what a claim says that rests on this run among others."""
    limits = "\n".join(f"- {one}" for one in stated.does_not_claim)
    return (
        f"## The claim {stated.id}\n\nThis run is one of {len(stated.records)} behind it. {stated.statement} "
        f"**{stated.verdict}**, confidence {stated.confidence.stated}: {stated.reading}\n\nIt does not claim more:\n\n"
        f"{limits}"
    )

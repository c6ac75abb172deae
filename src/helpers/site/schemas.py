"""``claimbook schemas``: JSON Schemas of params files, criteria and pages, from the models that read them.

Editors complete and check files by them: the first line of each names its schema, and is no part of the file's hash. A
schema refuses nothing that its reader takes, and less than it refuses: what hangs on several fields is left to the
reader. The front matter of a page has a schema but no such line, since no editor reads Markdown by it.
"""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

from helpers.base.files import ROOT, SCHEMA_LINE, write_atomic
from helpers.base.params import BLOCKS, Cell
from helpers.cases.claim import Claim
from helpers.claims.criteria import CriteriaFile
from helpers.records.study import load_study

FOLDER = "schemas"
MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
DRAFT = "https://json-schema.org/draft/2020-12/schema"


def grid_schema(model: type[Cell]) -> dict[str, Any]:
    """Return the schema of a params file of ``model``: an axis takes a list too, and ``blocks`` hold several grids."""
    schema = model.model_json_schema()
    fields = {name: _written(name, one, model) for name, one in schema.get("properties", {}).items()}
    block = {"type": "object", "additionalProperties": False, "properties": fields}
    blocks = {"type": "array", "minItems": 1, "items": block}
    known: dict[str, Any] = {"$schema": DRAFT, "title": model.__name__} | (
        {"$defs": schema["$defs"]} if "$defs" in schema else {}
    )
    return known | block | {"properties": {**fields, BLOCKS: blocks}}


def _written(name: str, field: dict[str, Any], model: type[Cell]) -> dict[str, Any]:
    """Return a field as a file may write it: numbers as text too, and of an axis a list or the word ``all``."""
    forms = [field, *([{"type": "string", "pattern": r"^\s*[-+.\d\[]"}] if _is_number(field) else [])]
    if name in model.AXES:
        forms = [*forms, {"type": "array", "minItems": 1, "items": {"anyOf": forms}}]
        forms += [{"const": "all"}] if name in model.ALL else []
    return forms[0] if len(forms) == 1 else {"anyOf": forms}


def _is_number(field: dict[str, Any]) -> bool:
    parts = [field, *field.get("anyOf", [])]
    return any(part.get("type") in ("number", "integer", "array") for part in parts)


def criteria_schema() -> dict[str, Any]:
    """Return the schema of a criteria file; a metric may be its note alone."""
    schema: dict[str, Any] = {"$schema": DRAFT} | CriteriaFile.model_json_schema()
    metrics = schema["properties"]["metrics"]
    metrics["additionalProperties"] = {"anyOf": [metrics["additionalProperties"], {"type": "string", "minLength": 1}]}
    return schema


def page_schema() -> dict[str, Any]:
    """Return the schema of the front matter of a page: its ``claim``; all else belongs to Quarto and the page."""
    schema = Claim.model_json_schema()
    known: dict[str, Any] = {"$schema": DRAFT, "$defs": schema.pop("$defs")}
    return known | {"type": "object", "properties": {"title": {"type": "string"}, "claim": schema}}


def contents(root: Path = ROOT, notebook: str = "*") -> dict[Path, bytes]:
    """Return the schemas, and the files of ``params/<notebook>/`` with the line that names theirs, as they should be.

    A file in another encoding than UTF-8 without a mark keeps its first line.
    """
    schemas, made = {"criteria": criteria_schema(), "page": page_schema()}, {}
    for experiment in sorted((root / "params").glob(f"{notebook}/experiment.yaml")):
        study, own = load_study(experiment.parent.name, root), f"params-{experiment.parent.name}"
        schemas |= {own: grid_schema(study.cell)} if study.cell is not None else {}
        for path in sorted(set(experiment.parent.glob("*.yaml")) - {experiment}):
            name = "criteria" if path.name.endswith("criteria.yaml") else own
            content = SCHEMA_LINE.sub(b"", path.read_bytes())
            if name in schemas and not content.startswith(MARKS):
                made[path] = f"# yaml-language-server: $schema=../../{FOLDER}/{name}.json\n".encode() + content
    texts = {root / FOLDER / f"{name}.json": f"{json.dumps(one, indent=1)}\n" for name, one in schemas.items()}
    return {path: text.encode() for path, text in texts.items()} | made


def stale(root: Path = ROOT, notebook: str = "*") -> dict[Path, bytes]:
    """Return those of `contents` that are not on disk so."""
    wanted = contents(root, notebook).items()
    return {path: content for path, content in wanted if not path.is_file() or path.read_bytes() != content}


def write(root: Path = ROOT, notebook: str = "*") -> list[Path]:
    """Write what is stale, and return it."""
    changed = stale(root, notebook)
    for path, content in changed.items():
        write_atomic(path, lambda temporary, content=content: temporary.write_bytes(content))
    return list(changed)

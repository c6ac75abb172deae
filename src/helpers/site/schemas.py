"""``claimbook schemas``: JSON Schemas of params files, criteria and pages, from the models that read them.

Editors complete and check files by them (``.vscode/settings.json`` says which file has which). A schema refuses nothing
that its reader takes, and less than it refuses: what hangs on several fields is left to the reader.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from helpers.base.files import ROOT, write_text
from helpers.base.params import BLOCKS, Cell
from helpers.claims.claim import Claim
from helpers.claims.criteria import CriteriaFile
from helpers.records.study import load_study

FOLDER = "schemas"
SETTINGS = ".vscode/settings.json"
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


def texts(root: Path = ROOT) -> dict[Path, str]:
    """Return every schema file and the settings of the editor, as they should be."""
    schemas = {"criteria": criteria_schema(), "page": page_schema()}
    globs = {f"./{FOLDER}/criteria.json": ["params/*/*criteria.yaml"]}
    for path in sorted((root / "params").glob("*/experiment.yaml")):
        study = load_study(path.parent.name, root)
        if study.cell is not None:
            name = f"params-{path.parent.name}"
            schemas[name] = grid_schema(study.cell)
            globs[f"./{FOLDER}/{name}.json"] = [f"params/{path.parent.name}/!(*criteria|experiment).yaml"]
    made = {root / FOLDER / f"{name}.json": f"{json.dumps(one, indent=1)}\n" for name, one in schemas.items()}
    return made | {root / SETTINGS: f"{json.dumps({'yaml.schemas': globs}, indent=1)}\n"}


def write(root: Path = ROOT) -> list[Path]:
    """Write what has changed, and return it."""
    changed = {path: text for path, text in texts(root).items() if not path.is_file() or path.read_text() != text}
    for path, text in changed.items():
        write_text(path, text)
    return list(changed)

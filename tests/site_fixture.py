"""A small site for the tests: pages from ``fixtures/site`` and run records whose completions are hostile."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pandas as pd
from claims_records import record

from helpers.base.files import REPORTS, sha256_file, write_json

FIXTURE = Path(__file__).parent / "fixtures" / "site"
HOSTILE: list[str] = json.loads((FIXTURE / "hostile.json").read_text(encoding="utf-8"))


def shown(text: str) -> str:
    """``text`` as a page can show it: what cannot be printed as U+FFFD, and every end of a line as HTML reads it."""
    return re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", "\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def make_project(root: Path) -> Path:
    """A project in ``root`` with the fixture's pages and the repository's style sheet."""
    shutil.copytree(FIXTURE, root, dirs_exist_ok=True)
    shutil.copy(REPORTS / "_style.css", root / "reports" / "_style.css")
    return root


def make_bare_record(
    outputs: Path, notebook: str, run_id: str, cell: Mapping = MappingProxyType({}), **content: object
) -> Path:
    """A complete record without tables; ``content`` replaces entries of its ``run.json``."""
    made = record(dict(cell), name=run_id, notebook=notebook, study=notebook, **content)
    write_json(outputs / notebook / run_id / "run.json", made.content)
    return outputs / notebook / run_id


def make_record(outputs: Path, run_id: str, texts: list[str], **cell: object) -> Path:
    """A complete record of ``sweep`` with one completion for every text."""
    folder = outputs / "sweep" / run_id
    folder.mkdir(parents=True)
    table = pd.DataFrame(
        {
            "persona": [["villain", "assistant", "<b>librarian</b>"][i % 3] for i in range(len(texts))],
            "role": "source",
            "question": [f'What is "number" {i % 7} <of> seven?' for i in range(len(texts))],
            "index": range(len(texts)),
            "text": texts,
            "tokens": 12,
            "finish": "stop",
            "marker": ["[ZLT]" in text for text in texts],
        }
    )
    table.to_parquet(folder / "completions.parquet")
    table_hash = {"completions.parquet": sha256_file(folder / "completions.parquet")}
    return make_bare_record(outputs, "sweep", run_id, cell=cell, params={"marker": "[ZLT]"}, files=table_hash)

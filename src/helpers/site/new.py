"""``claimbook new my-ablation``: a runnable notebook, its parameters and criteria, and the skeleton of a claim page."""

from __future__ import annotations

import ast
import importlib.util
import json
import keyword
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
import jupytext

from helpers.base import files
from helpers.base.errors import ClaimError, nearest
from helpers.base.files import ROOT, write_text
from helpers.claims.case import read_params
from helpers.claims.criteria import Criteria, read_criteria
from helpers.records import provenance
from helpers.records.source import module_file
from helpers.records.study import Study, load_study
from helpers.site.log import experiments

TEMPLATES = Path(__file__).with_name("templates")
SLUG = re.compile(r"[a-z][a-z0-9]*(-[a-z][a-z0-9]*)*")
RESERVED = frozenset(
    {"baseline", "bench", "broad_text", "executed", "latentwire_prompt", "latentwire_text", "latentwire_wire",
     "length_contexts", "length_rows", "on_policy", "published", "triangulation_training"}
)  # fmt: skip
"""What has a folder of its own in ``outputs/`` besides the studies: mostly records that the cells of one share."""
HEADER = """\
# Criteria of {name}, begun as a copy of params/{like}/criteria.yaml. Rewrite them before the first run: every run
# records this file's hash when it starts, and a change afterwards caps the confidence at LOW.
"""


def create(slug: str, like: str = "sweep", root: Path = ROOT) -> list[Path]:
    """Write the files of a new experiment that begins as a copy of ``like``; returns their paths.

    Raises:
        ClaimError: the name is no slug or is taken, or ``like`` cannot be copied; nothing is written then.
    """
    if not SLUG.fullmatch(slug):
        raise ClaimError(
            f"{slug!r} is no slug: use lower-case words, each begun with a letter, joined by hyphens (my-ablation)."
        )
    known = experiments(root)
    if like not in known:
        raise ClaimError(f"There is no experiment {like!r} to begin from{nearest(like, known) if known else ''}")
    name = slug.replace("-", "_")
    texts = _files(slug, name, like, root)
    taken = _taken(name, texts, root)
    if taken:
        raise ClaimError(f"{taken}: choose another name than {slug!r}.")
    for path, text in texts.items():
        write_text(path, text)
    return list(texts)


def _taken(name: str, written: Iterable[Path], root: Path) -> str | None:
    """Why no experiment can be called ``name``, if there is a reason."""
    if name in RESERVED | {files.published_root().name}:
        return f"outputs/{name} is a folder of Claimbook's own"
    if keyword.iskeyword(name):
        return f"{name!r} is a word of Python, so notebooks/{name}.py could not be imported"
    for path in (*written, root / "params" / name):
        if path.exists():
            return f"{path.relative_to(root)} is there already"
    for home in (files.outputs_root(), files.published_root()):
        if (home / name).exists():
            return f"{provenance.portable(str(home / name)).removeprefix('./')} holds records of another experiment"
    if importlib.util.find_spec(name):
        return f"{name!r} is a Python module, which notebooks/{name}.py would hide from the notebooks beside it"
    return None


def _files(slug: str, name: str, like: str, root: Path) -> dict[Path, str]:
    source, params = root / "params" / like, root / "params" / name
    copied = load_study(like, root)
    _check_entry(copied, like)
    pocket = _text(source / "pocket.yaml")
    criteria = read_criteria(source / "criteria.yaml")
    parameters = read_params(like, source / "pocket.yaml", root).given
    notebook = _notebook(name, slug, like, copied, parameters)
    return {
        root / "notebooks" / f"{name}.py": notebook,
        root / "notebooks" / f"{name}.ipynb": _paired(notebook),
        params / "experiment.yaml": _text(source / "experiment.yaml"),
        params / "pocket.yaml": pocket,
        params / "criteria.yaml": HEADER.format(name=name, like=like)
        + _without_comment(_text(source / "criteria.yaml")),
        root / "reports" / f"{slug}.qmd": _page(slug, name, criteria),
    }


def _text(path: Path) -> str:
    if not path.is_file():
        raise ClaimError(f"params/{path.parent.name}/{path.name} is not there, so {path.parent.name} cannot be copied.")
    return path.read_text(encoding="utf-8")


def _without_comment(text: str) -> str:
    """The file without the comment at its top, which speaks of the original."""
    return re.sub(r"\A(?:#.*\n)+", "", text)


def _check_entry(copied: Study, like: str) -> None:
    """Raise unless the entry module has ``run_cells(p, notebook=...)``; read its source, as imports load torch."""
    path = module_file(copied.entry, ROOT / "src")
    tree = ast.parse(path.read_text(encoding="utf-8")) if path else ast.Module([], [])
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef) or node.name != "run_cells":
            continue
        if "notebook" in {argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)}:
            return
    raise ClaimError(
        f"{like} cannot be copied: {copied.entry} has no run_cells(p, notebook=...) that a copy could call."
    )


def _notebook(name: str, slug: str, like: str, copied: Study, parameters: dict[str, Any]) -> str:
    package, _, entry = copied.entry.rpartition(".")
    assert copied.cell is not None  # whoever comes here has read a grid of them
    return _template("notebook.py.jinja").render(
        title=_title(slug), name=name, like=like, entry_package=package, entry_module=entry,
        model_module=copied.cell.__module__, model=copied.cell.__name__,
        parameters={key: _literal(value) for key, value in parameters.items()},
    )  # fmt: skip


def _literal(value: Any) -> str:
    """A value as ruff would write it in Python: double quotes."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _paired(notebook: str) -> str:
    return jupytext.writes(jupytext.reads(notebook, fmt="py:percent"), fmt="ipynb") + "\n"


def _page(slug: str, name: str, criteria: Criteria) -> str:
    primary, asked = next(iter(criteria.questions.items()))
    return _template("page.qmd.jinja").render(
        title=json.dumps(_title(slug)), slug=slug, name=name, primary=primary,
        statement=json.dumps(f"The statement that {slug} is about, in one sentence."),
        question=json.dumps(asked.question, ensure_ascii=False),
        metrics=json.dumps(sorted(asked.metrics & set(criteria.metrics))),
    )  # fmt: skip


def _title(slug: str) -> str:
    return slug.replace("-", " ").capitalize()


def _template(name: str) -> jinja2.Template:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    ).get_template(name)

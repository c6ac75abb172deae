"""``claimbook new``: the notebook, parameters, criteria and page of a study that is blank or begins as a copy."""

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
from helpers.cases.case import read_params
from helpers.claims.criteria import read_criteria
from helpers.records.study import Study, load_study
from helpers.site.log import experiments
from helpers.system import provenance
from helpers.system.source import find_module

TEMPLATES = Path(__file__).with_name("templates") / "new"
SLUG = re.compile(r"[a-z][a-z0-9]*(-[a-z][a-z0-9]*)*")
STUDIES = "helpers.studies"
RESERVED = frozenset(
    {"baseline", "bench", "broad_text", "executed", "latentwire_prompt", "latentwire_text", "latentwire_wire",
     "length_contexts", "length_rows", "on_policy", "published", "triangulation_training"}
)  # fmt: skip
"""What has a folder of its own in ``outputs/`` besides the studies: mostly records that the cells of one share."""
COPIED = """\
# PLACEHOLDER: these are the criteria of {copied}. Rewrite them before the first run, then delete this comment: every
# run records this file's hash when it starts, and a change afterwards caps the confidence at LOW.
"""
OF_THE_ORIGINAL = re.compile(r"\A(?:#.*\n)+|^(?:controls|note|looks):.*\n(?:[ #].*\n|\n)*", re.MULTILINE)
"""What in a criteria file speaks of its own experiment only: the comment at its top, controls, notes, looks."""


def create(slug: str, copied: str | None = None, root: Path = ROOT) -> list[Path]:
    """Write the files of a new study, blank or a copy of the experiment ``copied``; return their paths.

    Raises:
        ClaimError: the name is no slug or is taken, or ``copied`` cannot be copied; nothing is written then.
    """
    if not SLUG.fullmatch(slug):
        raise ClaimError(
            f"{slug!r} is no slug: use lower-case words, each begun with a letter, joined by hyphens (my-ablation)."
        )
    name = slug.replace("-", "_")
    texts = _blank(slug, name, root) if copied is None else _copy(slug, name, copied, root)
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
    for module in (name, f"{STUDIES}.{name}"):
        if importlib.util.find_spec(module):
            return f"{module!r} is a Python module, which the files of this study would hide"
    return None


def _blank(slug: str, name: str, root: Path) -> dict[Path, str]:
    names = {"name": name, "package": STUDIES, "module": name}
    pocket = render("pocket.yaml.jinja")
    parameters = {"model": "pocket", "data": "data/pocket/choices.jsonl", "questions": 24}
    parameters |= {"wording": ["plain", "polite"], "seed": [0, 1, 2]}
    notebook = _notebook(slug, name, STUDIES, name, f"{STUDIES}.{name}", "Cell", parameters, None)
    question = "Is the model right more often when it is asked politely?"
    return {
        root / "src/helpers/studies" / f"{name}.py": render("study.py.jinja", **names),
        **_paired(root / "notebooks" / name, notebook),
        root / "params" / name / "experiment.yaml": f"study: {STUDIES}.{name}:STUDY\n",
        root / "params" / name / "pocket.yaml": pocket,
        root / "params" / name / "criteria.yaml": render("criteria.yaml.jinja"),
        root / "reports" / f"{slug}.qmd": _page(slug, name, "polite", question, ["right_rate"]),
        root / "tests" / f"test_{name}.py": render("test.py.jinja", **names),
    }


def _copy(slug: str, name: str, copied: str, root: Path) -> dict[Path, str]:
    known = experiments(root)
    if copied not in known:
        raise ClaimError(f"There is no experiment {copied!r} to begin from{nearest(copied, known) if known else ''}")
    source, params = root / "params" / copied, root / "params" / name
    study = load_study(copied, root)
    _check_entry(study, copied)
    pocket = _text(source / "pocket.yaml")
    criteria = read_criteria(source / "criteria.yaml")
    primary, asked = next(iter(criteria.questions.items()))
    package, _, module = study.entry.rpartition(".")
    assert study.cell is not None  # whoever comes here has read a grid of them
    notebook = _notebook(
        slug, name, package, module, study.cell.__module__, study.cell.__name__,
        read_params(copied, source / "pocket.yaml", root).given, copied,
    )  # fmt: skip
    kept = OF_THE_ORIGINAL.sub("", _text(source / "criteria.yaml"))
    return {
        **_paired(root / "notebooks" / name, notebook),
        params / "experiment.yaml": _text(source / "experiment.yaml"),
        params / "pocket.yaml": pocket,
        params / "criteria.yaml": COPIED.format(copied=copied) + kept,
        root / "reports" / f"{slug}.qmd": _page(
            slug, name, primary, asked.question, sorted(asked.metrics & set(criteria.metrics))
        ),
    }


def _text(path: Path) -> str:
    if not path.is_file():
        raise ClaimError(f"params/{path.parent.name}/{path.name} is not there, so {path.parent.name} cannot be copied.")
    return path.read_text(encoding="utf-8")


def _check_entry(study: Study, copied: str) -> None:
    """Raise unless the entry module has ``run_cells(p, notebook=...)``; read its source, as imports load torch."""
    path = find_module(study.entry)
    tree = ast.parse(path.read_text(encoding="utf-8")) if path else ast.Module([], [])
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef) or node.name != "run_cells":
            continue
        if "notebook" in {argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)}:
            return
    raise ClaimError(
        f"{copied} cannot be copied: {study.entry} has no run_cells(p, notebook=...) that a copy could call."
    )


def _notebook(
    slug: str, name: str, package: str, module: str, model_module: str, model: str, values: dict[str, Any],
    copied: str | None,
) -> str:  # fmt: skip
    return render(
        "notebook.py.jinja", title=_title(slug), name=name, entry_package=package, entry_module=module,
        model_module=model_module, model=model, copied=copied,
        parameters={key: _literal(value) for key, value in values.items()},
    )  # fmt: skip


def _literal(value: Any) -> str:
    """A value as ruff would write it in Python: double quotes."""
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _paired(path: Path, notebook: str) -> dict[Path, str]:
    twin = jupytext.writes(jupytext.reads(notebook, fmt="py:percent"), fmt="ipynb") + "\n"
    return {path.with_suffix(".py"): notebook, path.with_suffix(".ipynb"): twin}


def _page(slug: str, name: str, primary: str, question: str, metrics: list[str]) -> str:
    return render(
        "page.qmd.jinja", title=json.dumps(_title(slug)), slug=slug, name=name, primary=primary,
        statement=json.dumps("PLACEHOLDER: the statement that is judged, in one sentence."),
        question=json.dumps(question, ensure_ascii=False), metrics=json.dumps(metrics),
    )  # fmt: skip


def _title(slug: str) -> str:
    return slug.replace("-", " ").capitalize()


def render(template: str, **values: Any) -> str:
    """Return a file of a new study from its template."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    return environment.get_template(template).render(**values)

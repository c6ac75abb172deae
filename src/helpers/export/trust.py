"""What of a bundle may be run here: nothing of its own, and of this installation only studies and their rules."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.base import files, yaml_text
from helpers.base.errors import ClaimbookError, ClaimError, RecordError
from helpers.cases.claim import front_matter
from helpers.claims.computed import module_of
from helpers.records.reading import Record
from helpers.records.study import BUILT_IN, find_study, import_module, study_place
from helpers.stats.pooling import ByQuestion

MOST_RUNS = 1_000_000


@dataclass(frozen=True)
class Named:
    """What the claim of a page names, read before anything of it is opened."""

    experiment: str
    criteria: str
    grid: str | None


def named(page: Path) -> Named:
    """Return what a claim names; ``ClaimError`` where that does not lie below its bundle."""
    block = front_matter(page).value.get("claim")
    values = [block.get(name) if isinstance(block, dict) else None for name in ("experiment", "criteria", "grid")]
    for value in values[: 2 if values[2] is None else 3]:
        if not (isinstance(value, str) and files.is_relative(value)):
            raise ClaimError(f"{page.name} names {files.shown(value)}, which is no file of the bundle.")
    experiment, criteria, grid = values
    return Named(str(experiment), str(criteria), None if grid is None else str(grid))


def installed() -> set[str]:
    """Return ``module:NAME`` of every study that is installed here."""
    places = set[str](BUILT_IN)
    for path in files.PARAMS.glob("*/experiment.yaml"):
        try:
            places.add(study_place(path.parent))
        except ClaimbookError:
            continue
    return places


def strange_studies(source: Path) -> str:
    """Return why nothing of ``source`` may be judged: a study that it names is not installed here; "" otherwise."""
    here = installed()
    for path in sorted((source / "params").glob("*/experiment.yaml")):
        try:
            place = study_place(path.parent)
        except ClaimbookError as error:
            return " ".join(str(error).split())
        if place not in here:
            return f"params/{path.parent.name} names the study {files.shown(place)}, which is not installed here"
    return ""


def stranger(claim: Named, source: Path) -> str:
    """Return why a claim cannot be judged here: its criteria name functions that are not installed, or its grid is
    too large to list; "" otherwise."""
    if why := strange_studies(source):
        return why
    here = {function for path in files.PARAMS.glob("*/*.yaml") for function in _functions(path)}
    for module, name in sorted(_functions(source / claim.criteria)):
        if (module, name) not in here and not _is_rule(module, name, source / claim.criteria):
            return f"its criteria name {module}:{name}, which is no rule of a study that is installed here"
    if claim.grid and _runs(source / claim.grid) > MOST_RUNS:
        return f"its grid declares more than {MOST_RUNS:,} runs"
    return ""


def pools(records: Iterable[Record]) -> dict[str, ByQuestion | None]:
    """Return how the studies of some records pool by question, where they are installed."""
    found: dict[str, ByQuestion | None] = {}
    for name in {str(record.study) for record in records}:
        try:
            found[name] = find_study(name).by_question
        except RecordError:
            continue
    return found


def _functions(path: Path) -> set[tuple[str, str]]:
    """Return module and name of the functions that a criteria file names; none where it is no criteria file."""
    try:
        content = yaml_text.read(files.read_text(path), path, ClaimError)
        metrics = content.get("metrics", {}) if isinstance(content, dict) else {}
        named = [one["function"] for one in metrics.values() if isinstance(one, dict) and "function" in one]
        return {(module_of(str(one), path), str(one).partition(":")[2]) for one in named}
    except (ClaimbookError, AttributeError):
        return set()


def _is_rule(module: str, name: str, criteria: Path) -> bool:
    """Whether a function is defined in the ``criteria`` module of the installed study that a file belongs to."""
    if not module.endswith(".criteria") or module != module_of("criteria:", criteria):
        return False
    function = getattr(import_module(module), name, None)
    return inspect.isfunction(function) and function.__module__ == module


def _runs(path: Path) -> int:
    content: Any = yaml_text.read(files.read_text(path), path, ClaimError)
    blocks = content.get("blocks", [content]) if isinstance(content, dict) else [content]
    sizes = [
        [len(value) for value in one.values() if isinstance(value, list)] for one in blocks if isinstance(one, dict)
    ]
    return sum(math.prod(one) for one in sizes)

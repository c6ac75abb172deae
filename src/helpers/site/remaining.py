"""``claimbook next``: what remains to be done for a study, in the order in which it is done, each with its command."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat

from helpers.audit.register import judged_by
from helpers.base import files
from helpers.base.errors import ClaimbookError, ClaimError, nearest
from helpers.base.files import ROOT
from helpers.cases.case import declared_runs
from helpers.cases.claim import Claim, read_claim
from helpers.cases.placeholders import placeholders
from helpers.claims.declared import Expected
from helpers.records import ledger
from helpers.records.reading import published, records
from helpers.records.study import study_place
from helpers.site.schemas import stale
from helpers.system import provenance
from helpers.system.source import find_module

SHOWN = 3
TRIAL = 9
"""A seed that no grid of `claimbook new` holds."""


@dataclass(frozen=True)
class Step:
    """What is to be done, and the command that does it."""

    what: str
    command: str


def remaining(slug: str, root: Path = ROOT) -> list[Step]:
    """Return the steps that remain for the study of the page ``reports/<slug>.qmd``.

    Raises ``ClaimError`` for a page that is not there. A page that cannot be read yet is the first step.
    """
    page = root / "reports" / f"{slug.removesuffix('.qmd').replace('_', '-')}.qmd"
    if not page.is_file():
        known = [path.stem for path in (root / "reports").glob("*.qmd")]
        raise ClaimError(f"There is no page reports/{page.name}{nearest(page.stem, known)}")
    own = study_files(page, root)
    steps = list(_unwritten(own, root))
    try:
        claim = read_claim(page, root)
        cells = declared_runs(claim.experiment, root / claim.grid, root) if claim.grid else ()
    except ClaimbookError as error:
        return [*steps, Step(f"Correct the page: {provenance.portable(str(error))}", _edit([page], root))]
    made = [record for record in records(claim.experiment) if any(cell.met_by(record) for cell in cells)]
    missing = len(cells) - sum(any(cell.met_by(record) for record in made) for cell in cells)
    shared = [record for record in published(claim.experiment) if any(cell.met_by(record) for cell in cells)]
    rel = f"reports/{page.name}"
    if not records(claim.experiment):
        trial = f"papermill notebooks/{claim.experiment}.ipynb out.ipynb"
        # A cell outside of the grid: one of it would have begun before the criteria were registered.
        steps.insert(0, Step("Try it as it stands.", f"{trial} -p seed {TRIAL}" if _has_seed(cells) else trial))
    if stale(root, claim.experiment):
        steps.append(Step("Write the schemas by which editors check your files.", "claimbook schemas"))
    if not _is_registered(claim):
        steps.append(Step("Register how the claim will be judged, before the runs.", f"claimbook register {rel}"))
    if missing and _is_uncommitted([*own, ledger.path()], root):
        steps.append(Step("Commit, so that the runs name code that others can read.", _commit(f"Register {page.stem}")))
    if missing:
        steps.append(Step(f"Run the {missing} cells that are missing.", f"claimbook sweep {claim.grid}"))
    if missing or not _was_run(root / "notebooks" / f"{claim.experiment}.ipynb"):
        steps.append(Step("Keep the outputs of the notebook.", f"claimbook notebook {claim.experiment}"))
    if missing or len(shared) < len(made):
        steps.append(Step("Publish the records, so that others have them.", f"claimbook publish {claim.experiment}"))
    if claim.status == "proposed":
        change = f"sed -i 's/status: proposed/status: interpreted/' {rel}"
        steps.append(Step("Say on the page that the runs are read.", change))
    if steps or _is_uncommitted([*own, files.published_root()], root):
        steps.append(Step("Commit the records and the page.", _commit(f"Publish {page.stem}")))
        steps.append(Step("Look for what the page must not say.", "claimbook lint"))
        steps.append(Step("Read the page as others will.", f"claimbook site {page.stem}"))
    return steps


def study_files(page: Path, root: Path = ROOT) -> list[Path]:
    """Return the files of a page's study that its author writes: code, notebook, parameters, criteria, the page."""
    name = page.stem.replace("-", "_")
    module = None
    if (root / "params" / name / "experiment.yaml").is_file():
        module = find_module(study_place(root / "params" / name).partition(":")[0])
    code = [module] if module is not None and module.stem == name else []
    params = sorted((root / "params" / name).glob("*.yaml"))
    return [*code, *params, root / "notebooks" / f"{name}.py", root / "tests" / f"test_{name}.py", page]


def _unwritten(paths: Sequence[Path], root: Path) -> Iterator[Step]:
    """Yield a step for each file that holds placeholders."""
    for path in paths:
        left = list(placeholders([path]))
        if left:
            named = ", ".join(map(str, left[:SHOWN]))
            more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
            yield Step(f"Write what is a placeholder in {_relative(path, root)}: {named}{more}.", _edit([path], root))


def _has_seed(cells: Sequence[Expected]) -> bool:
    return bool(cells) and "seed" in cells[0].params and all(cell.params["seed"] != TRIAL for cell in cells)


def _is_registered(claim: Claim) -> bool:
    book = ledger.read()
    return all(name in book.standing(kind) for kind, name in judged_by(claim))


def _is_uncommitted(paths: Sequence[Path], root: Path) -> bool:
    named = [str(path) for path in paths if path.exists()]
    return bool(provenance.git("status", "--porcelain", "--untracked-files=all", "--", *named, root=root))


def _was_run(notebook: Path) -> bool:
    if not notebook.is_file():
        return False
    cells = [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    return all(cell.execution_count for cell in cells)


def _commit(message: str) -> str:
    return f"git add --all && git commit -m {shlex.quote(message)}"


def _edit(paths: Sequence[Path], root: Path) -> str:
    return " ".join(['"${EDITOR:-nano}"', *(shlex.quote(_relative(path, root)) for path in paths)])


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else provenance.portable(str(path))


def numbered(steps: Sequence[Step]) -> list[str]:
    """Return the steps as lines: what to do behind its number, and the command below it."""
    return [line for at, step in enumerate(steps, start=1) for line in (f"{at}. {step.what}", f"     {step.command}")]

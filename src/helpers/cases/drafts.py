"""Claim pages that are not finished: each says what is missing first, and none of them stops anything else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from helpers.base.errors import ClaimbookError, ClaimError, nearest
from helpers.base.files import ROOT
from helpers.cases.case import Case, ExperimentRecords, open_case
from helpers.cases.claim import Claim, has_claim, read_claim
from helpers.cases.placeholders import placeholders
from helpers.system.provenance import portable


@dataclass(frozen=True)
class Draft:
    """A page that is not finished, and the first thing that it lacks; ``claim`` is None where it cannot be read.

    ``case`` is there where its records were found, so that they are proved although the page cannot be judged.
    """

    path: Path
    why: str
    claim: Claim | None = None
    case: Case | None = None

    @property
    def name(self) -> str:
        """The page as a reader calls it."""
        return f"reports/{self.path.name}"


def find_page(name: str, root: Path = ROOT) -> Path:
    """Return the page that ``name`` is the path, the name or the claim of; ClaimError names the nearest.

    A page that cannot be read is known by its name alone, and hides no other.
    """
    known: dict[str, Path] = {}
    for path in sorted((root / "reports").glob("[!_]*.qmd")):
        try:
            known |= {str(read_claim(path, root).id): path, path.stem: path} if has_claim(path) else {}
        except ClaimbookError:
            known[path.stem] = path
    stem = name.removeprefix("reports/").removesuffix(".qmd")
    if stem not in known:
        raise ClaimError(f"There is no claim {name!r}{nearest(stem, known)}")
    return known[stem]


def open_page(
    path: Path, root: Path = ROOT, known: Mapping[str, ExperimentRecords] | None = None
) -> Case | Draft | None:
    """Open the claim of a page, or say why it is a draft; None for a page without a claim, or not of ``known``.

    A claim that cannot be judged is a draft too, whatever its study or the functions of its criteria raise.
    """
    claim = case = None
    try:
        if not has_claim(path):
            return None
        claim = read_claim(path, root)
        if known is not None and claim.experiment not in known:
            return None
        opened = open_case(path, root, known)
        opened.evidence()
        case = opened
        case.confidence()
    except ClaimbookError as error:
        return Draft(path, _sentence(error), claim, case)
    except Exception as error:  # of a function that a study or its criteria name, which is somebody's work in progress
        return Draft(path, _sentence(error, type(error).__name__), claim, case)
    first = next(placeholders([path, root / claim.criteria]), None)
    if first is None:
        return case
    where = first.path.relative_to(root) if first.path.is_relative_to(root) else first.path
    left = f"{where.as_posix()}:{first.line}: {first.what or 'this line'} is still a placeholder."
    return Draft(path, left, claim, case)


def _sentence(error: Exception, kind: str = "") -> str:
    said = " ".join(str(error).split())
    return portable(f"{kind}: {said}" if kind else said).removeprefix("./")

"""Register what a claim says and will be judged by, before its runs: a line in the ledger for each thing."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.audit import judgement
from helpers.audit.asked import history, questions_of
from helpers.audit.kept import Kept
from helpers.audit.reach import refuse
from helpers.base import files, yaml_text
from helpers.base.errors import ClaimbookError, ClaimError
from helpers.cases.claim import Claim, has_claim, read_claim
from helpers.cases.placeholders import WORD
from helpers.claims.criteria import read_criteria
from helpers.records import ledger
from helpers.records.study import load_study

UNJUDGED = "no record was published yet"


@dataclass(frozen=True)
class Registered:
    """A thing that a claim is judged by, with the hash of what it says now."""

    kind: ledger.Kind
    name: str
    sha256: str


def of_page(path: Path, root: Path = files.ROOT) -> list[Registered]:
    """Return what the claim of a page is judged by, and what it says that is judged."""
    claim = read_claim(path, root)
    return [Registered(kind, name, _hash(kind, name, claim, root)) for kind, name in judged_by(claim)]


def judged_by(claim: Claim) -> list[tuple[ledger.Kind, str]]:
    """Return kind and name of what is registered of a claim, as the ledger calls them."""
    page = f"reports/{claim.slug}.qmd"
    grid: list[tuple[ledger.Kind, str]] = [("grid", claim.grid)] if claim.grid else []
    data: list[tuple[ledger.Kind, str]] = [("data", name) for name in claim.sources]
    judges: list[tuple[ledger.Kind, str]] = [("criteria", claim.criteria), *grid, ("question", page)]
    study = f"params/{claim.experiment}/experiment.yaml"
    return [*judges, ("statement", page), ("code", claim.criteria), ("comparison", study), *data]


def concerns(line: ledger.Line, claim: Claim) -> bool:
    """Whether a line of the ledger is about what is registered of ``claim``, or about a judgement of it."""
    judged = line.kind == "judgement" and line.name.startswith(f"{claim.slug}/")
    return judged or (line.kind, line.name) in judged_by(claim)


def _hash(kind: ledger.Kind, name: str, claim: Claim, root: Path) -> str:
    if kind == "question":
        return question_hash(claim)
    if kind == "statement":
        return files.sha256_json([claim.statement, claim.question])
    if kind == "code":
        return judgement.code_hash(read_criteria(root / name))
    if kind == "comparison":
        return files.sha256_json([study.comparison() for study in load_study(claim.experiment, root).family()])
    if not (root / name).is_file():
        raise ClaimError(f"{name} is missing, so it cannot be registered. Check the claim block that names it.")
    return files.content_hash(root / name)


def of_pages(
    root: Path = files.ROOT, pages: Iterable[Path] | None = None
) -> Iterator[tuple[Path, list[Registered] | ClaimbookError]]:
    """Yield each page (of ``pages``, if given) whose claim is past being proposed, and what it is judged by.

    A page that cannot be read is yielded with the error if it was registered; any other is a draft, which lint names.
    """
    asked = ledger.read().standing("question")
    for path in sorted((root / "reports").glob("*.qmd")) if pages is None else pages:
        # A claim that was registered stays bound, also where its page calls itself proposed again.
        if path.name.startswith("_"):
            continue  # a part of other pages
        is_asked = f"reports/{path.name}" in asked
        try:
            if has_claim(path) and (read_claim(path, root).status != "proposed" or is_asked):
                yield path, of_page(path, root)
        except ClaimbookError as error:
            if is_asked:
                yield path, error


def question_hash(claim: Claim) -> str:
    """Hash of what a claim asks: its experiment, criteria, grid, primary question and scope; not of its prose."""
    return files.sha256_json(
        {
            "experiment": claim.experiment,
            "criteria": claim.criteria,
            "grid": claim.grid,
            "primary": claim.primary,
            "scope": claim.scope,
        }
    )


def register(pages: Iterable[Path], reason: str | None = None, root: Path = files.ROOT) -> list[ledger.Line]:
    """Write a line for everything of ``pages`` that is new or has changed; return those lines.

    Code that judges the published records as before is entered as ``derived``. Raises ``ClaimError`` when anything
    else changed that was registered before, a judgement too, and there is no ``reason``; or when the declared grid is
    too small for an outcome of a question that is new or has changed (`reach`).
    """
    pages, book = list(pages), ledger.read()
    _refuse_placeholders(pages, root)
    for page in pages:
        if new := _new_questions(page, root):
            refuse(page, root, new)
    events: list[dict[str, Any]] = []
    for thing in dict.fromkeys(thing for page in pages for thing in of_page(page, root)):
        before = book.standing(thing.kind).get(thing.name)
        event = {"kind": thing.kind, "name": thing.name, "sha256": thing.sha256}
        if before is None:
            events.append({"event": "registered", **event})
        elif before.sha256 != thing.sha256:
            same = _shown_to_be_equal(thing, root) if thing.kind == "code" else None
            if same is None and not reason:
                raise ClaimError(_unexplained(thing, before))
            why = {"event": "derived", "note": same} if same else {"event": "amended", "reason": reason}
            events.append({**event, **why, "was": before.sha256})
    looks = [judged for page in pages if (judged := judgement.look(page, root))]
    events += [event for judged in looks if (event := judgement.enter(judged, reason))]
    return list(ledger.append(events).lines[-len(events) :]) if events else []


def _refuse_placeholders(pages: Iterable[Path], root: Path) -> None:
    """Raise ``ClaimError`` where what is judged is still to be written: the claim of a page, or its criteria."""
    for page in pages:
        claim = read_claim(page, root)
        asked = [("its statement", claim.statement), ("its question", claim.question)]
        asked.append((claim.criteria, files.read_text(root / claim.criteria)))
        for what, text in asked:
            if WORD in text:
                raise ClaimError(f"reports/{page.name} cannot be registered: {what} holds a {WORD}. Write it first.")


def _new_questions(page: Path, root: Path) -> list[str]:
    """Return the questions of a page that are asked for the first time, in other words, of another grid or scope."""
    claim, book = read_claim(page, root), ledger.read()
    now = questions_of(files.read_text(root / claim.criteria))
    line = book.standing("question").get(f"reports/{claim.slug}.qmd")
    moved = [claim.model_copy(update={"primary": name}) for name in now]
    if line is None or line.sha256 not in map(question_hash, moved):  # another primary question asks nothing new
        return list(now)
    if claim.grid:
        before = _registered_text(book.standing("grid").get(claim.grid), root)
        if before is None or yaml_text.read(before, claim.grid, ClaimError) != yaml_text.read(
            files.read_text(root / claim.grid), claim.grid, ClaimError
        ):
            return list(now)
    before = _registered_text(book.standing("criteria").get(claim.criteria), root)
    then = questions_of(before) if before else {}
    return [name for name, asked in now.items() if then.get(name) != asked]


def _registered_text(line: ledger.Line | None, root: Path) -> str | None:
    """Return the text of a file as it was registered, from the file or git's history; ``None`` if neither has it."""
    if line is None:
        return None
    path = root / line.name
    texts = itertools.chain([files.read_text(path)], (text for _, text in history(root, line.name)))
    return next((text for text in texts if files.text_hash(text.encode(), path.suffix) == line.sha256), None)


def _unexplained(thing: Registered, before: ledger.Line) -> str:
    what = f"The code that judges by {thing.name}" if thing.kind == "code" else thing.name
    return (
        f"{what} was registered on {before.at[:10]} and has changed. Say why with --reason: the page lists it as a "
        "deviation."
    )


def _shown_to_be_equal(code: Registered, root: Path) -> str | None:
    """Say why today's code may judge in the place of the registered one; ``None`` where nothing shows that it may."""
    looks = [judgement.look(page, root) for page in _asked(root) if read_claim(page, root).criteria == code.name]
    judged = [one for one in looks if one is not None]
    if not judged:
        return UNJUDGED
    return f"judges {len(judged)} claims as before" if all(one.holds for one in judged) else None


def _asked(root: Path) -> list[Path]:
    """The pages whose question is registered."""
    return [root / name for name in ledger.read().standing("question") if (root / name).is_file()]


@contextlib.contextmanager
def judging(root: Path | None = None) -> Iterator[None]:
    """Let published records change inside the block, and enter the new judgements of all registered claims after it.

    Code that was changed since it was registered may judge only if it judges the records as they were as before.
    Otherwise nothing is entered, lint says so, and `register` asks for a reason.
    """
    root = root or files.ROOT
    pages = _asked(root)
    changed = [code for code in _codes(pages, root) if not _stands(code)]
    events = [
        {
            "event": "derived",
            "kind": "code",
            "name": code.name,
            "sha256": code.sha256,
            "was": before.sha256,
            "note": same,
        }
        for code in changed
        if (before := ledger.read().standing("code").get(code.name)) and (same := _shown_to_be_equal(code, root))
    ]
    if events:
        ledger.append(events)
    yield
    judge = Kept().judge
    looks = [judgement.look(page, root, judge) for page in pages if all(map(_stands, _codes([page], root)))]
    new = [
        judgement.enter(judged)
        for judged in looks
        if judged is not None and (judged.line is None or judged.line.sha256 == judged.sha256)
    ]
    if new:
        ledger.append(filter(None, new))


def _codes(pages: Iterable[Path], root: Path) -> list[Registered]:
    things = (thing for page in pages for thing in of_page(page, root) if thing.kind == "code")
    return list(dict.fromkeys(things))


def _stands(thing: Registered) -> bool:
    line = ledger.read().standing(thing.kind).get(thing.name)
    return line is not None and line.sha256 == thing.sha256

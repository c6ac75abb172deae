"""Register what a claim will be judged by, before its runs: criteria, grid and primary question, in the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from helpers.base import files
from helpers.base.errors import ClaimError
from helpers.claims.claim import Claim, has_claim, read_claim
from helpers.records import ledger


@dataclass(frozen=True)
class Registered:
    """A thing that a claim is judged by, with the hash of what it says now."""

    kind: ledger.Kind
    name: str
    sha256: str


def of_page(path: Path, root: Path = files.ROOT) -> list[Registered]:
    """Return what the claim of a page is judged by: its criteria file, its grid and its question."""
    claim = read_claim(path, root)
    return [
        Registered(kind, name, question_hash(claim) if kind == "question" else _content(name, root))
        for kind, name in judged_by(claim)
    ]


def judged_by(claim: Claim) -> list[tuple[ledger.Kind, str]]:
    """Return kind and name of what a claim is judged by, as the ledger calls them."""
    grid: list[tuple[ledger.Kind, str]] = [("grid", claim.grid)] if claim.grid else []
    return [("criteria", claim.criteria), *grid, ("question", f"reports/{claim.slug}.qmd")]


def of_pages(root: Path = files.ROOT, pages: Iterable[Path] | None = None) -> Iterator[tuple[Path, list[Registered]]]:
    """Yield each page (of ``pages``, if given) whose claim is past being proposed, and what it is judged by."""
    asked = ledger.read().standing("question")
    for path in sorted((root / "reports").glob("*.qmd")) if pages is None else pages:
        # A claim that was registered stays bound, also where its page calls itself proposed again.
        if has_claim(path) and (read_claim(path, root).status != "proposed" or f"reports/{path.name}" in asked):
            yield path, of_page(path, root)


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

    Raises ``ClaimError`` when something changed that was registered before and there is no ``reason``.
    """
    standing = {kind: ledger.read().standing(kind) for kind in ("criteria", "grid", "question")}
    events, seen = [], set()
    for thing in [thing for page in pages for thing in of_page(page, root)]:
        before = standing[thing.kind].get(thing.name)
        if (thing.kind, thing.name) in seen or (before and before.sha256 == thing.sha256):
            continue
        seen.add((thing.kind, thing.name))
        event = {"kind": thing.kind, "name": thing.name, "sha256": thing.sha256}
        if before is None:
            events.append({"event": "registered", **event})
        elif reason:
            events.append({"event": "amended", **event, "was": before.sha256, "reason": reason})
        else:
            raise ClaimError(
                f"{thing.name} was registered on {before.at[:10]} and has changed. Say why with --reason: the page "
                "lists it as a deviation."
            )
    return list(ledger.append(events).lines[-len(events) :]) if events else []


def _content(name: str, root: Path) -> str:
    if not (root / name).is_file():
        raise ClaimError(f"{name} is missing, so it cannot be registered. Check the claim block that names it.")
    return files.content_hash(root / name)

"""Check the ledger and what lies here against each other: registrations and judgements, records, and its own past."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from helpers.audit import branches, judgement
from helpers.audit.findings import Finding, files_in, published_folders
from helpers.audit.register import of_pages
from helpers.base import files
from helpers.base.errors import ClaimbookError, RecordError
from helpers.records import ledger
from helpers.system.provenance import portable

SHOWN = 3
"""How many numbers are named that a page judges differently."""


def check_registrations(
    root: Path = files.ROOT, pages: Iterable[Path] | None = None, judge: judgement.Judge = judgement.judge
) -> list[Finding]:
    """Check that what each claim is judged by stands in the ledger as it is now, and that it is judged as it was."""
    findings = []
    try:
        book = ledger.read()
    except RecordError:
        return []  # check_ledger says so
    for page, things in of_pages(root, pages):
        if isinstance(things, ClaimbookError):
            findings.append(Finding(f"reports/{page.name}", "claim", f"cannot be read: {portable(str(things))}"))
            continue
        command = f"claimbook register reports/{page.name}"
        try:
            judged = judgement.look(page, root, judge)
        except ClaimbookError as error:
            findings.append(Finding(f"reports/{page.name}", "claim", f"cannot be judged: {portable(str(error))}"))
            continue
        for thing in things:
            line = book.standing(thing.kind).get(thing.name)
            if line is None and _is_used(thing.kind, book):
                findings.append(Finding(thing.name, thing.kind, f"is not registered. Run `{command}`."))
            elif line is None or line.sha256 == thing.sha256:
                continue
            elif thing.kind != "code" or not (judged is None or judged.holds):
                findings.append(
                    Finding(thing.name, thing.kind, f"was changed after {line.at[:10]}. Run `{command} --reason ...`.")
                )
        if judged is not None:
            findings += _check_judgement(f"reports/{page.name}", judged, book, command)
    return findings


def _check_judgement(page: str, judged: judgement.Judged, book: ledger.Ledger, command: str) -> Iterator[Finding]:
    if judged.line is None and _is_used("judgement", book):
        yield Finding(page, "judgement", f"of these published records is not in the ledger. Run `{command}`.")
    for fault in judged.faults[:SHOWN]:
        yield Finding(page, "judgement", f"{fault}. Restore what was changed, or run `{command} --reason ...`.")
    if len(judged.faults) > SHOWN:
        yield Finding(page, "judgement", f"differs in {len(judged.faults) - SHOWN} more places.")


def _is_used(kind: ledger.Kind, book: ledger.Ledger) -> bool:
    """Whether a ledger is young enough to hold lines of this ``kind``: statements, code and judgements came later."""
    return kind in ("criteria", "grid", "question") or any(line.kind == kind for line in book.lines)


def _unknown(names: Iterable[str], records: Container[str], book: ledger.Ledger) -> list[str]:
    """Return which files among the published ones are neither the ledger, nor a judgement, nor in a record's folder."""
    judged = {f"judged/{line.name.partition('/')[0]}.json" for line in book.lines if line.kind == "judgement"}
    known = {ledger.path().name, *judged}
    return sorted(name for name in names if name not in known and "/".join(name.split("/")[:2]) not in records)


def check_ledger(
    root: Path = files.ROOT, notebooks: Container[str] | None = None, pages: Container[str] | None = None
) -> list[Finding]:
    """Check chain and history of the ledger, and that it lists exactly the published records, as they are.

    Where not everything was taken along, ``notebooks`` and ``pages`` name those of which nothing may be missing.
    """
    try:
        book = ledger.read()
    except RecordError as error:
        return [Finding("ledger", "chain", str(error))]
    past = branches.history()
    findings = [Finding("ledger", "history", past.finding)] if past.finding else []
    late = [line for line in book.lines if line.moment > datetime.now(UTC) + timedelta(days=1)]
    findings += [
        Finding(line.name, "ledger", f"{line.event} on {line.at[:10]}, which is yet to come.") for line in late
    ]
    standing, there = book.standing("record"), {f"{f.parent.name}/{f.name}": f for f in published_folders()}
    for ref, folder in there.items():
        head = folder / "run.json"
        if ref not in standing:
            findings.append(
                Finding(
                    ref, "ledger", "does not stand in the ledger: it was never published, or was withdrawn. Delete it."
                )
            )
        elif not head.is_file() or files.sha256_file(head) != standing[ref].sha256:
            findings.append(
                Finding(ref, "run.json", f"is not what was published on {standing[ref].at[:10]}. Restore it from git.")
            )
    findings += [
        Finding(f"published/{name}", "files", "belongs to no record. Delete it.")
        for name in _unknown(files_in(files.published_root()), there, book)
    ]
    for ref in sorted(set(standing) - set(there)):
        if notebooks is not None and ref.partition("/")[0] not in notebooks:
            continue
        findings.append(Finding(ref, "ledger", "was published and is missing. Restore it, or `claimbook withdraw` it."))
    for ref, file, commit in branches.changed_tables(book):
        findings.append(Finding(ref, f"files.{file}", f"was changed in commit {commit}, after it was published."))
    for page, line in book.standing("question").items():
        if (pages is None or page in pages) and not (root / page).is_file():
            findings.append(
                Finding(page, "question", f"was registered on {line.at[:10]} and is gone. Restore the page.")
            )
    return findings

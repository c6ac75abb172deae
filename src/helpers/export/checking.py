"""Check a bundle that somebody else made, with nothing but the bundle and this installation.

Nothing of a bundle is executed. A study, and the functions of its criteria, are those that are installed here under the
names that the bundle gives; where there are none, what would need them is listed as not checked.

1. shape: plain files only, each with the hash that ``claimbook.json`` states, and no others;
2. records: as ``claimbook verify`` checks them, each for itself, but for data and models of another disk;
3. ledger: its chain, and that it lists exactly these records;
4. claims: criteria, grid and question as registered; judged again, they are what ``claims.json`` and pages state;
5. pages: every number that names a fact and its runs is what those records give.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
from pydantic import ValidationError

from helpers.audit.agreement import ROUNDING, agree
from helpers.audit.entries import check_ledger, check_registrations
from helpers.audit.findings import Finding, published_folders
from helpers.audit.verify import verify_folder
from helpers.base import files
from helpers.base.errors import ClaimbookError, ExportError, RecordError
from helpers.cases.case import Case, ExperimentRecords, open_case
from helpers.cases.claim import Claim, read_claim
from helpers.cases.recalled import nothing_recalled
from helpers.export import claims, places, trust
from helpers.export.bundle import CLAIMS, RECORDS, SOURCE, Manifest, only_published
from helpers.export.facts import page_findings
from helpers.records import ledger, reading
from helpers.records.reading import Record
from helpers.records.study import find_study
from helpers.site import header

LARGEST_FILE, LARGEST_TEXT = 2**31, 2**26
MOST_FILES, MOST_CELLS = 200_000, 2 * 10**8
ALWAYS = (
    "replay: no run was made again",
    "history: the ledger may have been written anew as a whole; compare its last hash with one posted elsewhere",
    "prose, charts and tables of pages, but for the numbers that name their fact and runs",
)


@dataclass
class Report:
    """What a check came to; ``unchecked`` says what it could not look at, and why."""

    findings: list[Finding] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    records: int = 0
    claims: int = 0
    numbers: int = 0
    head: str | None = None

    def lines(self) -> list[str]:
        """Return the findings, what was not checked, and a last line with what was."""
        done = f"{self.records} records, {self.claims} claims and {self.numbers} numbers on pages were checked"
        head = f"The ledger ends in {self.head or 'nothing'}."
        said = "No findings" if not self.findings else f"{len(self.findings)} findings"
        return [*map(str, self.findings), *(f"not checked: {one}" for one in self.unchecked), f"{said}: {done}. {head}"]

    def guard(self, where: str, what: str, check: Callable[[], Iterable[Finding]]) -> None:
        """Add the findings of a check; whatever it raises is one too, because a bundle may hold anything."""
        try:
            self.findings += check()
        except ClaimbookError as error:
            self.findings.append(Finding(where, what, " ".join(str(error).split())))
        except Exception as error:  # a hostile file finds its way into any library
            said = " ".join(str(error).split())[:200]
            self.findings.append(Finding(where, what, f"cannot be checked ({type(error).__name__}: {said})."))


def verify_bundle(folder: Path) -> Report:
    """Check the bundle in ``folder``; ``ExportError`` where it is none."""
    if not places.schema_of(folder / places.MARK).startswith("claimbook/bundle/"):
        raise ExportError(f"{folder} is no bundle: it has no {places.MARK} that `claimbook export bundle` wrote.")
    report = Report(unchecked=list(ALWAYS))
    manifest = _manifest(folder, report)
    if manifest is None:
        return report
    before = len(report.findings)
    report.guard(places.MARK, "files", lambda: _check_files(folder, manifest))
    if any(one.field == "link" for one in report.findings[before:]):
        return report
    with only_published(folder / RECORDS), nothing_recalled(), reading.read_once():
        _check_records(report)
        _check_claims(folder, manifest, report)
    return report


def _manifest(folder: Path, report: Report) -> Manifest | None:
    try:
        return Manifest.model_validate_json((folder / places.MARK).read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or places.MARK
        report.findings.append(Finding(places.MARK, files.shown(where), f"{first['msg']}."))
    return None


def _check_files(folder: Path, manifest: Manifest) -> Iterator[Finding]:
    """Yield what is not a plain file, not listed, not there, too large, or of another content."""
    there = dict(_walk(folder, ""))
    for name, fault in there.items():
        if fault:
            yield Finding(files.shown(name), "link", fault)
        elif name not in manifest.files and name != places.MARK:
            yield Finding(files.shown(name), "files", f"is not in {places.MARK}. Nothing says who put it there.")
    if len(there) > MOST_FILES:
        yield Finding(places.MARK, "files", f"There are more than {MOST_FILES:,}.")
        return
    for name, sha in manifest.files.items():
        if name not in there:
            yield Finding(name, "files", f"is in {places.MARK} and missing.")
        elif not there[name]:
            size = (folder / name).stat().st_size
            if size > (LARGEST_TEXT if Path(name).suffix in files.TEXT else LARGEST_FILE):
                yield Finding(name, "files", f"has {size:,} bytes, more than is read.")
            elif files.sha256_file(folder / name) != sha:
                yield Finding(name, "sha256", f"is not the hash in {places.MARK}: the file was changed.")


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield the name of everything below ``folder`` but folders, and what is wrong with it; no link is followed."""
    with os.scandir(folder) as entries:
        for entry in entries:
            name = f"{prefix}{entry.name}"
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode) and files.is_relative(name):
                yield from _walk(Path(entry.path), f"{name}/")
            elif not files.is_relative(name):
                yield name, "is a name that not every disk can hold."
            else:
                yield name, "" if stat.S_ISREG(mode) else "is a link or a device, and no plain file."


def _check_records(report: Report) -> None:
    unknown: dict[str, int] = {}
    for folder in published_folders():
        ref = f"{folder.parent.name}/{folder.name}"
        report.records += 1
        faults = list(_too_large(folder, ref))
        report.findings += faults
        if not faults and (name := _unknown_study(folder)):
            unknown[name] = unknown.get(name, 0) + 1
            report.guard(ref, "files", lambda folder=folder: _hashes(reading.read(folder, published=True)))
        elif not faults:
            report.guard(ref, "metrics", lambda folder=folder: verify_folder(folder, elsewhere=True))
    for name, count in unknown.items():
        report.unchecked.append(f"{count} records of the study {name!r}, which is not installed here: ids and metrics")
    report.unchecked.append("data and models of the runs, whose hashes the records state")


def _unknown_study(folder: Path) -> str | None:
    """Return the name of a record's study where it is not installed here."""
    try:
        record = reading.read(folder, published=True)
    except (RecordError, FileNotFoundError):
        return None  # verify_folder says so
    try:
        find_study(record.study)
    except RecordError:
        return str(record.study)[:80]
    return None


def _hashes(record: Record) -> Iterator[Finding]:
    for name in record.files:
        if "/" not in name:
            try:
                record.checked(name)
            except RecordError as error:
                yield Finding(record.ref, f"files.{name}", str(error))


def _too_large(folder: Path, ref: str) -> Iterator[Finding]:
    """Yield tables that would not fit into memory, before anything reads them."""
    for path in sorted(folder.glob("*.parquet")):
        try:
            about = parquet.ParquetFile(path).metadata
            size = sum(about.row_group(group).total_byte_size for group in range(about.num_row_groups))
            cells = about.num_rows * about.num_columns
        except Exception as error:  # of any kind, from a file that need not be parquet
            yield Finding(ref, f"files.{path.name}", f"is no table ({type(error).__name__}).")
        else:
            if cells > MOST_CELLS or size > LARGEST_FILE:
                yield Finding(ref, f"files.{path.name}", f"holds {cells:,} cells, more than are read.")


def _check_claims(folder: Path, manifest: Manifest, report: Report) -> None:
    source = folder / SOURCE
    named, asked, cases = dict[str, trust.Named](), dict[str, Claim](), dict[str, Case]()
    report.guard("ledger", "chain", lambda: _head(report))
    for slug in manifest.pages:
        report.guard(f"reports/{slug}.qmd", "claim", lambda slug=slug: _named(slug, source, named))
    pages = {f"reports/{slug}.qmd" for slug in manifest.pages}
    experiments = {one.experiment for one in named.values()}
    if report.head is not None:
        report.guard("ledger", "ledger", lambda: check_ledger(source, experiments, pages))
    stated = _stated(folder, report)
    for slug, one in named.items():
        if why := trust.stranger(one, source):
            report.unchecked.append(f"the claim {slug}: {why}")
        else:
            report.guard(f"reports/{slug}.qmd", "claim", lambda slug=slug: _open(slug, source, stated, asked, cases))
    known = [source / f"reports/{slug}.qmd" for slug in asked]
    report.guard("claims", "registration", lambda: check_registrations(source, known) if known else [])
    _compare(stated, cases, asked, report)
    left = {one.id for one in stated} - {claim.id for claim in asked.values()}
    if left and len(named) == len(asked):
        report.findings += [Finding(CLAIMS, name, "is a claim of no page in this bundle.") for name in sorted(left)]
    _check_pages(folder, manifest, cases, report)


def _head(report: Report) -> Iterator[Finding]:
    report.head = ledger.read().head
    if report.head is None:
        yield Finding("ledger", "chain", "is missing or empty, so nothing says what was published.")


def _named(slug: str, source: Path, named: dict[str, trust.Named]) -> Iterator[Finding]:
    page = source / f"reports/{slug}.qmd"
    if page.is_file():
        named[slug] = trust.named(page)
    else:
        yield Finding(f"reports/{slug}.qmd", "source", "is missing, so that its claim cannot be judged.")


def _open(
    slug: str, source: Path, stated: list[claims.ClaimStated], asked: dict[str, Claim], cases: dict[str, Case]
) -> Iterator[Finding]:
    """Open the claim of a page over the records of the bundle, stale where ``claims.json`` says so."""
    asked[slug] = claim = read_claim(source / f"reports/{slug}.qmd", source)
    stale = next((one.stale for one in stated if one.id == claim.id), [])
    records = tuple(reading.published(claim.experiment))
    known = ExperimentRecords(records, {one.id: stale for one in records} if stale else {})
    case = open_case(f"reports/{slug}.qmd", source, {claim.experiment: known})
    case.confidence()
    cases[slug] = case
    yield from ()


def _stated(folder: Path, report: Report) -> list[claims.ClaimStated]:
    try:
        content = claims.Claims.model_validate_json((folder / CLAIMS).read_bytes())
    except (OSError, ValidationError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": "cannot be read"}
        report.findings.append(Finding(CLAIMS, ".".join(map(str, first["loc"])) or "file", f"{first['msg']}."))
        return []
    if content.ledger != report.head:
        report.findings.append(Finding(CLAIMS, "ledger", "is not the hash of the last line of this ledger."))
    return list(content.claims)


def _compare(
    stated: list[claims.ClaimStated], cases: Mapping[str, Case], asked: Mapping[str, Claim], report: Report
) -> None:
    """Compare each claim of ``claims.json`` with what the records of the bundle give."""
    ids = [one.id for one in stated]
    for claim in asked.values():
        if ids.count(claim.id) != 1:
            report.findings.append(Finding(CLAIMS, claim.id, f"is stated {ids.count(claim.id)} times, not once."))
    for case in cases.values():
        for one in stated:
            if one.id == case.claim.id:
                report.guard(f"{CLAIMS}: {one.id}", "claim", lambda one=one, case=case: _differs(one, case))
                report.claims += 1
        if any(one.id == case.claim.id and one.stale for one in stated):
            report.unchecked.append(f"whether the records of {case.claim.id} are stale, as it says")


def _differs(stated: claims.ClaimStated, case: Case) -> Iterator[Finding]:
    now = claims.stated_by(case)
    for place, was, gives in _leaves(stated.model_dump(mode="json"), now.model_dump(mode="json")):
        said = f"is {files.shown(was)}, but the records give {files.shown(gives)}."
        yield Finding(f"{CLAIMS}: {case.claim.id}", place, said)


def _leaves(one: Any, other: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield place and both values of each part in which two JSON values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*one, *other]):
            yield from _leaves(one.get(key), other.get(key), f"{place}.{key}".lstrip("."))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for at, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from _leaves(a, b, f"{place}[{at}]")
    elif not agree(one, other, ROUNDING):
        yield place, one, other


def _check_pages(folder: Path, manifest: Manifest, cases: Mapping[str, Case], report: Report) -> None:
    records = {one.id: one for one in reading.published()}
    pools = trust.pools(records.values())
    for name in sorted(name for name in manifest.files if name.endswith(".html")):
        if name.startswith(f"{RECORDS}/") or not (folder / name).is_file():
            continue
        text = (folder / name).read_text(encoding="utf-8", errors="replace")
        case = cases.get(Path(name).stem) if name.startswith("reports/") else None

        def check(name: str = name, text: str = text, case: Case | None = case) -> Iterator[Finding]:
            if case is not None:
                yield from _check_header(name, text, case)
            findings, compared = page_findings(name, text, records, list(cases.values()), pools)
            report.numbers += compared
            yield from findings

        report.guard(name, "page", check)


def _check_header(name: str, text: str, case: Case) -> Iterator[Finding]:
    """Yield a header, or a table of ways, that is not what the records give, and a second one."""
    for part, expected in {"header": header.judged(case), "challenge": header.challenged(case)}.items():
        if str(expected).strip() and str(expected).strip() not in text:
            yield Finding(name, part, f"is not the {part} that the records of {case.claim.id} give.")
        if text.count(f'<section class="cb-{part}"') > 1:
            yield Finding(name, part, "stands on the page more than once.")

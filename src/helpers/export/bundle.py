"""A folder that anybody can open, host and check: pages, claims, records and ledger, and what judges them.

    index.html, reports/, site_libs/, ...   the pages, which open from a disk and below any address
    claims.json                             what each claim says (`claims`)
    records/                                the published records with the ledger and the kept judgements
    source/                                 page sources, criteria and grids, from which the claims are judged again
    claimbook.json                          what was made with, and the hash of every other file
    README.md, .nojekyll                    what a Hugging Face Space and GitHub Pages want

Only published records are in it, and its pages show no others.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, Field

from helpers.audit.judgement import evidence_of
from helpers.base import files
from helpers.base.errors import ExportError
from helpers.cases.case import Case
from helpers.cases.claim import Slug
from helpers.cases.drafts import Draft
from helpers.export import claims, places
from helpers.records import ledger, reading
from helpers.records.run_record import Place, Sha
from helpers.show.markup import verbatim
from helpers.site import render
from helpers.site.blocks import badge
from helpers.site.check import check_site
from helpers.site.finish import with_links
from helpers.site.frame import Project, read_project, write_page
from helpers.system.provenance import portable

SCHEMA = "claimbook/bundle/1"
RECORDS, SOURCE, CLAIMS = "records", "source", "claims.json"
ABSOLUTE = re.compile(r"""\s(?:href|src)=["'](?:/|file:)[^"']*["']""", re.IGNORECASE)
QUOTED = re.compile(r"<bdi>.*?</bdi>", re.DOTALL)


class Manifest(BaseModel):
    """The content of ``claimbook.json``: the pages of claims in a bundle, and the hash of every file but itself."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_: Literal["claimbook/bundle/1"] = Field(alias="schema")
    claimbook: str
    pages: list[Slug]
    files: dict[Place, Sha]


@dataclass(frozen=True)
class Bundled:
    """What went into a bundle; ``unpublished`` counts, by notebook, the records made here that did not."""

    pages: list[str]
    records: int
    drafts: list[Draft]
    unpublished: dict[str, int]


def export(out: Path, names: Sequence[str], site: Path | None = None, root: Path = files.ROOT) -> Bundled:
    """Write a bundle of the claims ``names`` (default: all, with the whole site) to ``out``.

    ``site`` holds pages that were rendered before; by default they are rendered now.

    Raises:
        ExportError: ``out`` holds something else, or a page names a folder of this machine or an absolute address.
    """
    waiting = _unpublished()
    about = {"claimbook": version("claimbook"), "pages": [], "files": {}}
    with only_published(), reading.read_once(), places.folder(out, SCHEMA, about) as new:
        cases, drafts = claims.chosen(names, root)
        if not cases:
            raise ExportError("There is no finished claim to export. Run `claimbook status`.")
        _pages(new, cases if names else [], site, root)
        files.write_text(new / CLAIMS, claims.claims_of(cases).text())
        records = _records(new / RECORDS, cases, everything=not names)
        _sources(new / SOURCE, cases, root)
        files.write_text(new / "README.md", _readme(cases, read_project(root).title))
        files.write_text(new / ".nojekyll", "")
        _refuse_names(new)
        about["pages"] = sorted(case.claim.slug for case in cases)
        about["files"] = {name: files.sha256_file(new / name) for name in sorted(_names(new))}
    experiments = {case.claim.experiment for case in cases}
    return Bundled(about["pages"], records, drafts, {name: n for name, n in waiting.items() if name in experiments})


@contextmanager
def only_published(home: Path | None = None) -> Iterator[None]:
    """Hide all records but those published (in ``home``), and keep what was derived from them before."""
    derived, before = files.outputs_root().resolve() / ".derived", os.environ.get("CLAIMBOOK_OUTPUTS")
    published = os.environ.get("CLAIMBOOK_PUBLISHED")
    with tempfile.TemporaryDirectory(prefix="claimbook-bundle-") as empty:
        if derived.is_dir():
            (Path(empty) / derived.name).symlink_to(derived)
        os.environ |= {"CLAIMBOOK_PUBLISHED": str(home or files.published_root()), "CLAIMBOOK_OUTPUTS": empty}
        try:
            yield
        finally:
            for name, value in {"CLAIMBOOK_OUTPUTS": before, "CLAIMBOOK_PUBLISHED": published}.items():
                os.environ.pop(name)
                os.environ |= {} if value is None else {name: value}


def _unpublished() -> dict[str, int]:
    homes = [name for name, _ in reading.folders(files.outputs_root()) if files.is_plain(name)]
    counts = {name: sum(not one.published for one in reading.records(name)) for name in homes if name != "published"}
    return {name: count for name, count in counts.items() if count}


def _names(new: Path) -> set[str]:
    return {path.relative_to(new).as_posix() for path in new.rglob("*") if path.is_file()}


def _pages(new: Path, some: Sequence[Case], site: Path | None, root: Path) -> None:
    """Put the whole site into ``new``, or the pages of ``some`` claims with the runs that they link to."""
    project = read_project(root)
    names = [case.claim.slug for case in some]
    runs = [page.stem for page in project.pages if page.stem == "runs"]
    if site is None:
        render.render_site(root, new, [*names, *runs] if some else ())
    else:
        _copy_site(site, new, [f"reports/{name}" for name in [*names, *runs]] if some else None)
    if some:
        _index(new, project, some)
        for page in sorted(new.rglob("*.html")):
            text = page.read_text(encoding="utf-8")
            files.write_text(page, with_links(text, lambda link, page=page: _kept(link, page)))
    if faults := check_site(new):
        raise ExportError(f"The pages have {len(faults)} faults, such as {faults[0]}. Render them again.")
    for page in sorted(new.rglob("*.html")):
        if found := ABSOLUTE.search(page.read_text(encoding="utf-8")):
            raise ExportError(f"{page.relative_to(new)} has{found.group()}, which no other place has. Render it again.")


def _copy_site(site: Path, new: Path, chosen: Sequence[str] | None) -> None:
    if not (site / "index.html").is_file():
        raise ExportError(f"{site} holds no rendered pages. Run `claimbook site` first.")
    for path in sorted(site.rglob("*")):
        name = path.relative_to(site).as_posix()
        wanted = chosen is None or name.startswith("site_libs/") or Path(name).suffix == ".css"
        wanted = wanted or any(name == f"{one}.html" or name.startswith(f"{one}/") for one in chosen or ())
        if wanted and path.is_file():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, new / name)


def _kept(link: str, page: Path) -> str:
    """Return a link of a page, or one to the page itself where its target was not taken along."""
    path = link.partition("#")[0].partition("?")[0]
    outside = ":" in path or path.startswith("/")
    return link if outside or not path or (page.parent / path).exists() else "#"


def _index(new: Path, project: Project, some: Sequence[Case]) -> None:
    """Write ``index.html``: the claims of the bundle with their verdicts."""
    item = Markup('<li><a href="{}">{}</a> {} {}</li>')
    items = [
        item.format(f"reports/{one.claim.slug}.html", verbatim(one.claim.statement), badge(one.verdict().word),
                    badge(one.confidence().stated))
        for one in some
    ]  # fmt: skip
    front = {"title": project.title, "subtitle": "Claims and the records behind them", "toc": False}
    alone = Project(project.root, project.title, (), project.pages, project.css)
    write_page(new / "index.html", alone, new, front, Markup("<ul>{}</ul>").format(Markup("\n").join(items)))


def _records(home: Path, cases: Sequence[Case], everything: bool) -> int:
    """Copy the ledger, the kept judgements and published records, and return how many of these there are.

    Of the experiments of some claims all records go along: one that is left out could not be told from one that was
    deleted.
    """
    used = {ref for case in cases for ref in evidence_of(case)}
    experiments = {case.claim.experiment for case in cases}
    taken: dict[str, reading.Record] = {}
    waiting = [one for one in reading.published() if everything or one.notebook in experiments or one.ref in used]
    while waiting:
        record = waiting.pop()
        if record.ref not in taken:
            taken[record.ref] = record
            waiting += reading.used_by(record)
    for ref, record in taken.items():
        (home / ref).mkdir(parents=True)
        for name in ["run.json", *(name for name in record.files if "/" not in name)]:
            shutil.copyfile(files.inside(record.path, name), home / ref / name)
    if ledger.path().is_file():
        shutil.copyfile(ledger.path(), home / ledger.path().name)
    for case in cases:
        judged = files.published_root() / f"judged/{case.claim.slug}.json"
        if judged.is_file():
            (home / "judged").mkdir(exist_ok=True)
            shutil.copyfile(judged, home / "judged" / judged.name)
    return len(taken)


def _sources(home: Path, cases: Sequence[Case], root: Path) -> None:
    for case in cases:
        params = f"params/{case.claim.experiment}"
        names = [f"reports/{case.claim.slug}.qmd", f"{params}/experiment.yaml", case.claim.criteria]
        for name in filter(None, [*names, case.claim.grid, *case.claim.sources]):
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, home / name)


def _readme(cases: Sequence[Case], title: str) -> str:
    """Return README.md, whose head a Hugging Face Space reads."""
    head = f"---\ntitle: {title}\nsdk: static\napp_file: index.html\npinned: false\n---\n\n# {title}\n\n"
    rows = [
        f"- [{case.claim.id}](reports/{case.claim.slug}.html): {case.verdict().word}, confidence "
        f"{case.confidence().stated}"
        for case in cases
    ]
    said = (
        "Claims, the records that they are computed from, and the ledger of both. Open `index.html`.\n\n"
        f"{chr(10).join(rows)}\n\nTo check all of it, install claimbook and run `claimbook verify FOLDER`. "
        f"The ledger ends in `{ledger.read().head or 'nothing yet'}`.\n"
    )
    return head + said


def _refuse_names(new: Path) -> None:
    """Raise ``ExportError`` where a text of ours names a folder of this machine; a model may write anything."""
    for path in [*sorted(new.rglob("*.html")), new / CLAIMS, new / "README.md"]:
        text = QUOTED.sub("", path.read_text(encoding="utf-8"))
        if portable(text) != text:
            raise ExportError(f"{path.relative_to(new)} names a folder of this machine. Take it out of the page.")

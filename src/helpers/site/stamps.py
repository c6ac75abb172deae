"""What each rendered page was made from, so that only pages whose records, source or code changed are rendered again.

A page's stamp lies in ``_site/.stamps/``. It holds a hash of each part that the page was made from, and one of what was
written. A page of one claim is made from the records of its experiment, and from the claims that it rests on. A page
that shows all claims is made from all of them. A file in ``reports/`` or ``data/`` counts where the page or its code
names it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from helpers.audit import committed
from helpers.audit.register import concerns
from helpers.base import files
from helpers.base.errors import ClaimbookError, ClaimError, RecordError
from helpers.cases.case import read_experiment
from helpers.cases.claim import Claim, has_claim, read_claim
from helpers.cases.placeholders import placeholders
from helpers.claims.criteria import modules_of, read_criteria
from helpers.records import ledger, reading
from helpers.records.study import study_place
from helpers.site import graph, notebooks, originals
from helpers.site.frame import TEMPLATES, Project
from helpers.site.markdown import INLINE
from helpers.system import provenance, source

FOLDER, CHECKED = Path(".stamps"), "checked.json"
CELL = re.compile(r"^```+\s*\{python\b[^\n]*\n(.*?)^```+\s*$", re.MULTILINE | re.DOTALL)
RENDERER = tuple(
    f"helpers.{name}"
    for name in ("site.fallback", "site.finish", "site.frame", "site.markdown", "site.originals", "show.markup")
)
"""What turns any page into HTML; only pages of claims reach more through it."""
PACKAGES = ("altair", "ipykernel", "jinja2", "nbconvert", "pygments", "pypandoc-binary", "vl-convert-python")
EVERY_CLAIM = "helpers/site/status.py"
"""The module through which code reads all claims."""
CASES = "helpers/cases/case.py"
TEXTS = "completions.parquet"
NAMED = re.compile(r"\bparams/[\w./-]+?\.ya?ml\b")


class Stamps:
    """The stamps of some pages, or of the whole site: what each is made from now, and which stay as they are."""

    def __init__(self, project: Project, site: Path, renderer: str, pages: Sequence[Path] = ()):
        self.site, sources, chosen = site, _Sources(project, renderer), pages or project.pages
        self.parts = {
            site / page.relative_to(project.root).with_suffix(".html"): sources.of_page(page) for page in chosen
        }
        if not pages:
            found = notebooks.sources(project)
            self.parts |= {site / f"notebooks/{path.stem}.html": sources.of_notebook(path) for path in found}
            self.parts[site / "completions.html"] = sources.of_completions()
        self.kept = frozenset(target for target, parts in self.parts.items() if self._is_kept(target, parts))

    def _is_kept(self, target: Path, parts: Mapping[str, str]) -> bool:
        stamp = _read(self._path(target))
        return stamp.get("made_of") == parts and stamp.get("written") == _written(target)

    def _path(self, target: Path) -> Path:
        return self.site / FOLDER / target.relative_to(self.site).with_suffix(".json")

    def write(self, targets: Iterable[Path]) -> None:
        """Write the stamps of pages that have just been rendered, as their parts were before that."""
        for target in targets:
            if target.is_file():
                files.write_json(self._path(target), {"made_of": self.parts[target], "written": _written(target)})

    @property
    def is_checked(self) -> bool:
        """Whether the site was checked as it is now, without findings."""
        return _read(self.site / FOLDER / CHECKED) == self._whole()

    def write_checked(self) -> None:
        """Note that the site was checked as it is now."""
        files.write_json(self.site / FOLDER / CHECKED, self._whole())

    def _whole(self) -> dict[str, str | None]:
        return {target.relative_to(self.site).as_posix(): _written(target) for target in self.parts}


class _Sources:
    """Hashes of what pages are made from."""

    def __init__(self, project: Project, renderer: str):
        self.project, self.root = project, project.root
        self.named = [path for folder in ("reports", "data") for path in _visible(self.root / folder)]
        self.logged = sorted(originals.numbers(self.root))
        self.frame = files.sha256_json([renderer, self._frame()])

    def _frame(self) -> list[Any]:
        config = files.read_text(self.root / "_quarto.yml", ClaimError)
        mine = sorted({self.root / "_quarto.yml", self.project.css, *self._files_named(config), *TEMPLATES.glob("*.*")})
        versions = {name: importlib.metadata.version(name) for name in PACKAGES}
        return [[files.content_hash(path) for path in mine], versions, provenance.environment_of_arithmetic()]

    def _files_named(self, text: str) -> list[Path]:
        return [path for path in self.named if path.name in text]

    def of_page(self, page: Path) -> dict[str, str]:
        """Return a hash for each part that a page is made from."""
        text = page.read_text(encoding="utf-8", errors="replace")
        cells = [*CELL.findall(text), *INLINE.findall(text)]
        claim = _claim(page, self.root)
        mine = {path: one for path, one in self._claims().items() if path == page or f"reports/{path.name}" in text}
        if isinstance(claim, Claim):
            mine |= graph.rests_on(claim, self.root)
        shown = [number for number in self.logged if cells or claim or number in text]
        parts = {"page": files.content_hash(page), "frame": self.frame, "originals": files.sha256_json(shown)}
        modules = _imported(cells)
        reached = _closure(*modules)
        if claim is None and not cells:
            code = _closure(*RENDERER)
            code = {name: code[name] for name in code if name.removesuffix(".py").replace("/", ".") in RENDERER}
            return parts | self._beside(text, code)
        is_whole = _reads_everything(claim, modules, reached)
        mine = self._claims() if is_whole else mine
        names = self._notebooks() if is_whole else sorted({one.experiment for one in mine.values()})
        code = _closure(*RENDERER, *modules, *self._judging(mine.values()), *(["helpers.site.header"] if claim else []))
        parts |= self._beside(text, code) | {f"records of {name}": self._records(name) for name in names}
        return parts | self._judged(mine, text) | {"ledger": self._ledger(mine, is_whole)}

    def of_notebook(self, path: Path) -> dict[str, str]:
        """Return the parts of the page of an executed notebook."""
        code = files.sha256_json(_closure("helpers.site.notebooks"))
        return {"page": files.content_hash(path), "frame": self.frame, "code": code}

    def of_completions(self) -> dict[str, str]:
        """Return the parts of the browser of all completions."""
        code = files.sha256_json(_closure("helpers.site.completions"))
        texts = [one for name in self._notebooks() for one in self._folders(name).items() if TEXTS in one[1]]
        return {"records": files.sha256_json(texts), "frame": self.frame, "code": code}

    def _beside(self, text: str, code: Mapping[str, str]) -> dict[str, str]:
        """Return the code of a page, and the files that it or its code names."""
        named = {*self._files_named(text), *(path for name in code for path in self._named_in(name))}
        hashes = {path.relative_to(self.root).as_posix(): files.content_hash(path) for path in sorted(named)}
        return {"code": files.sha256_json(code), "files": files.sha256_json(hashes)}

    @functools.cache  # noqa: B019 - lives as long as one rendering
    def _named_in(self, module: str) -> tuple[Path, ...]:
        places = (folder / module for folder in (files.ROOT / "src", self.root / "notebooks"))
        return tuple(
            path for place in places if place.is_file() for path in self._files_named(place.read_text("utf-8"))
        )

    @functools.cache  # noqa: B019
    def _claims(self) -> dict[Path, Claim]:
        claims = {path: _claim(path, self.root) for path in sorted((self.root / "reports").glob("[!_]*.qmd"))}
        return {path: claim for path, claim in claims.items() if isinstance(claim, Claim)}

    def _notebooks(self) -> list[str]:
        homes = (self.root / "params", files.outputs_root(), files.published_root())
        names = {path.name for home in homes if home.is_dir() for path in home.iterdir() if path.is_dir()}
        return sorted(name for name in names - {files.published_root().name} if files.is_plain(name))

    def _judging(self, claims: Iterable[Claim]) -> Iterator[str]:
        """Yield the modules that judge some claims: of their studies, and those that their criteria name."""
        for claim in claims:
            with contextlib.suppress(ClaimbookError, OSError):
                yield study_place(self.root / "params" / claim.experiment).partition(":")[0]
                yield from modules_of(read_criteria(self.root / claim.criteria))

    def _judged(self, claims: Mapping[Path, Claim], text: str) -> dict[str, str]:
        """Return what the claims say, by which files in params they are judged, and the history of their criteria."""
        said = {path.name: [one.model_dump(mode="json"), any(placeholders([path]))] for path, one in claims.items()}
        named = {*NAMED.findall(text), *(f"params/{one.experiment}/experiment.yaml" for one in claims.values())}
        named |= {name for one in claims.values() for name in (one.criteria, one.grid, *one.sources) if name}
        paths = {name: self.root / name for name in sorted(named)}
        params = {name: files.content_hash(path) for name, path in paths.items() if path.is_file()}
        history = [self._history(name) for name in sorted({one.criteria for one in claims.values()})]
        parts = {"claims": said, "params": params, "history": history}
        return {name: files.sha256_json(part) for name, part in parts.items()}

    @functools.cache  # noqa: B019
    def _history(self, name: str) -> str:
        """Return the commits of a criteria file, which say whether a question was asked before its runs."""
        return (provenance.git("log", "--format=%H %cI", "--", name, root=self.root) or b"").decode(errors="replace")

    def _ledger(self, claims: Mapping[Path, Claim], is_whole: bool) -> str:
        """Return a hash of the lines of the ledger about some claims and their records, or of all."""
        try:
            book = ledger.read()
        except RecordError as error:
            return files.sha256_json(str(error))
        homes = tuple({f"{one.experiment}/" for one in claims.values()})

        def is_about(line: ledger.Line) -> bool:
            return is_whole or line.name.startswith(homes) or any(concerns(line, one) for one in claims.values())

        lines = zip(book.lines, book.hashes, strict=True)
        return files.sha256_json([sha for line, sha in lines if is_about(line)])

    @functools.cache  # noqa: B019
    def _folders(self, notebook: str) -> dict[str, dict[str, str]]:
        """Map each record of a notebook, here and published, to the hashes of its files; folders in it do not count."""
        found: dict[str, dict[str, str]] = {}
        for home in (files.outputs_root(), files.published_root()):
            for name, folder in sorted(reading.folders(files.inside(home, notebook))):
                if not name.startswith(".") and (folder / "run.json").is_file():
                    inside = sorted(path for path in folder.iterdir() if path.is_file())
                    found[f"{home.name}/{notebook}/{name}"] = {path.name: files.content_hash(path) for path in inside}
        return found

    @functools.cache  # noqa: B019
    def _records(self, notebook: str) -> str:
        """Return a hash of the records of a notebook, of those that they used, and of what is stale or committed."""
        experiment = read_experiment(notebook, self.root)
        used = {ref.partition("/")[0] for record in experiment.complete for ref in record.inputs.values()}
        inputs = {name: self._folders(name) for name in sorted(used - {notebook}) if files.is_plain(name)}
        head = committed.head_now()
        code = {record.id: committed.state(record, head) for record in experiment.complete}
        return files.sha256_json([self._folders(notebook), inputs, dict(experiment.stale), code])


def _claim(page: Path, root: Path) -> Claim | str | None:
    """Return the claim of a page, why it cannot be read, or None for a page without one."""
    try:
        return read_claim(page, root) if has_claim(page) else None
    except ClaimbookError as error:
        return str(error)


def _reads_everything(claim: Claim | str | None, modules: Set[str], reached: Mapping[str, str]) -> bool:
    """Whether the code of a page can show more than its own claim."""
    shows_cases = CASES in reached and not isinstance(claim, Claim)
    return EVERY_CLAIM in reached or shows_cases or any(name.startswith("helpers.records") for name in modules)


def _imported(cells: Iterable[str]) -> set[str]:
    """Return the modules of this repository that cells import."""
    names: set[str] = set()
    for cell in cells:
        with contextlib.suppress(SyntaxError):  # the page fails where it is rendered
            names |= source.imports_of(cell, "__main__")
    return {name for name in names if _is_ours(name)}


def _is_ours(module: str) -> bool:
    home = source.home_of(module)
    return (
        home is not None and home.resolve().is_relative_to(files.ROOT.resolve()) and "site-packages" not in home.parts
    )


def _closure(*modules: str) -> dict[str, str]:
    """Return the hashes of the code that modules reach; of those that are no module none."""
    return source.code_closure(*sorted({name for name in modules if source.find_module(name)}), bookkeeping=True)


def _visible(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder that are no page and not hidden."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.suffix not in (".qmd", ".safetensors") and path.is_file():
            yield path


def _written(target: Path) -> str | None:
    """Return a hash of a page and of the folder of data beside it; None where there is no page."""
    if not target.is_file():
        return None
    beside = sorted(target.with_suffix("").glob("*.*"))
    return files.sha256_json([[path.name, files.sha256_file(path)] for path in (target, *beside)])


def _read(path: Path) -> dict[str, Any]:
    """Return a stamp, empty where there is none that can be read: the page is then rendered."""
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(path.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    return {}

"""Check a rendered site, with Quarto or without: what Quarto only warns of, or says nothing about, fails here.

Run it by hand with ``python -m helpers.site.check _site``: one line a finding, exit code 1 when there is any.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from helpers.base.errors import ClaimError
from helpers.show.markup import SEAL

VOID = frozenset(["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"])
SILENT = frozenset(["script", "style", "pre", "template"])
# Their text comes from a record, a model or the cells of a notebook, so it may say anything.
DATA, EXECUTED = frozenset(["bdi", "svg"]), "cb-executed"
UNRESOLVED = {
    "an inline expression was not evaluated": re.compile(r"\{python\}"),
    "a cross-reference was not resolved": re.compile(r"\?@\w|@(?:fig|tbl|sec|eq|lst)-\w"),
    "a shortcode was not resolved": re.compile(r"\{\{[<%]|\?(?:var|meta|env|include):"),
    "a Python traceback is shown": re.compile(r"Traceback \(most recent call last\)"),
    "what a cell shows was not put in": SEAL,
}
LOADS = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "audio": "src",
    "video": "src",
    "source": "src",
    "embed": "src",
    "object": "data",
}
LOADING_LINKS = frozenset(["stylesheet", "icon", "preload", "modulepreload", "prefetch", "preconnect", "dns-prefetch"])
CSS_URL = re.compile(r"""(?:@import\s*|url\()\s*["']?\s*((?:https?:)?//[^"')\s;]+)""", re.IGNORECASE)


@dataclass(frozen=True, order=True)
class Finding:
    """One fault of a rendered site: file (relative to the site), line, and what is wrong in one sentence."""

    file: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}"


@dataclass
class _Table:
    line: int
    cells: int = 0
    text: str = ""
    said: bool = False  # holds data of a record or a model, which may be empty


@dataclass
class _Page:
    """The anchors, links, loaded files and faults of a page."""

    anchors: set[str] = field(default_factory=set)
    links: list[tuple[int, str]] = field(default_factory=list)
    loads: list[tuple[int, str]] = field(default_factory=list)
    faults: list[tuple[int, str]] = field(default_factory=list)


class _Reader(HTMLParser):
    """Collect anchors, links, and every fault that shows without looking at other files, in one pass over a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page = _Page()
        self.open: list[tuple[str, bool]] = []  # element, and whether its text is data
        self.tables: list[_Table] = []
        self.drawn: tuple[str, str] | None = None  # key of the anchors in the data of a script, and that data

    def fault(self, what: str) -> None:
        self.page.faults.append((self.getpos()[0], what))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.page.anchors.update(values[name] for name in ("id", "name") if values.get(name))
        self.check_loads(tag, values)
        self.check_words(tag, values)
        if tag == "a" and "href" in values:
            self.page.links.append((self.getpos()[0], values["href"]))
        is_data = tag in DATA or EXECUTED in values.get("class", "").split()
        if tag == "table":
            self.tables.append(_Table(self.getpos()[0], said=self.in_data))
        elif self.tables and (tag == "td" or values.get("scope") == "row"):
            self.tables[-1].cells += 1
        elif is_data:
            for table in self.tables:
                table.said = True
        if tag == "script" and values.get("data-anchors"):
            self.drawn = (values["data-anchors"], "")
        if tag not in VOID:
            self.open.append((tag, is_data))

    @property
    def in_data(self) -> bool:
        return any(is_data for _, is_data in self.open)

    def check_loads(self, tag: str, values: Mapping[str, str]) -> None:
        targets = [values.get(LOADS[tag], "")] if tag in LOADS else []
        targets += [part.split()[0] for part in values.get("srcset", "").split(",") if part.split()]
        if tag == "link" and LOADING_LINKS & set(values.get("rel", "").lower().split()):
            targets.append(values.get("href", ""))
        for target in filter(None, targets):
            if is_external(target):
                self.fault(f"<{tag}> loads {target} from the network: put it into the site")
            else:
                self.page.loads.append((self.getpos()[0], target))
        for url in CSS_URL.findall(values.get("style", "")):
            self.fault(f"a style loads {url} from the network: put it into the site")

    def check_words(self, tag: str, values: Mapping[str, str]) -> None:
        hidden = values.get("aria-hidden") == "true" or values.get("role") == "presentation"
        if tag == "img" and not hidden and not values.get("alt", "").strip():
            self.fault(f"the image {values.get('src', '')[:60]} has no alt text")
        if (
            values.get("role") == "img"
            and not hidden
            and not (values.get("aria-label") or values.get("aria-labelledby"))
        ):
            self.fault(f'a <{tag} role="img"> has no aria-label: say what the figure shows')

    def handle_endtag(self, tag: str) -> None:
        if tag == "table" and self.tables:
            table = self.tables.pop()
            if not table.cells or not (table.text.strip() or table.said):
                self.page.faults.append((table.line, "a table is empty"))
        if tag == "script" and self.drawn:
            key, data = self.drawn
            self.page.anchors.update(json.loads(data)[key])
            self.drawn = None
        names = [name for name, _ in self.open]
        if tag in names:
            del self.open[len(names) - 1 - names[::-1].index(tag) :]

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1][0] == "style":
            for url in CSS_URL.findall(data):
                self.fault(f"a style loads {url} from the network: put it into the site")
        if self.drawn:
            self.drawn = (self.drawn[0], self.drawn[1] + data)
        if any(name in ("script", "style", "template") for name, _ in self.open):
            return
        for table in self.tables:
            table.text += data
        if self.in_data:
            return
        quoted = any(name in SILENT for name, _ in self.open)
        for what, pattern in UNRESOLVED.items():
            match = pattern.search(data)
            if match and (not quoted or "traceback" in what):
                self.fault(f"{what}: {data[max(0, match.start() - 20) : match.end() + 40].strip()!r}")


def is_external(target: str) -> bool:
    """Return whether a link leaves the site: it names a host, with or without a scheme."""
    parts = urlsplit(target.strip())
    return bool(parts.netloc) or parts.scheme in ("http", "https", "ftp")


def check_site(site: Path, only: Collection[Path] | None = None) -> list[Finding]:
    """Return every fault of the pages and style sheets in ``site``, ordered by file and line.

    After a partial render, ``only`` names the pages to check. Of their links only those within the page are checked.

    Faults are: inline expressions, cross-references and shortcodes left unresolved, tracebacks, links and anchors that
    lead nowhere inside the site, scripts, styles, images and fonts from the network, figures without alt text, and
    empty tables. Text of a record or a model, in ``<bdi>`` or in a picture, and the outputs of a notebook may say
    anything. The anchors that a script draws are listed in its data, under the key that its ``data-anchors`` names.

    Raises:
        ClaimError: ``site`` has no page.
    """
    site = Path(site).resolve()
    paths = sorted(site.rglob("*.html") if only is None else (path for path in only if path.is_relative_to(site)))
    pages = {path: _read(path) for path in paths if "site_libs" not in path.relative_to(site).parts}
    if not pages and only is None:
        raise ClaimError(f"There is no page in {site.name}/ to check: render the site first.")
    findings = [Finding(_name(path, site), line, what) for path, page in pages.items() for line, what in page.faults]
    for path, page in pages.items():
        links = page.links if only is None else [link for link in page.links if link[1].strip().startswith("#")]
        for line, link in [*page.loads, *links]:
            findings += [Finding(_name(path, site), line, what) for what in _broken(link, path, site, pages)]
    return sorted({*findings, *_styles(site)})


def _read(path: Path) -> _Page:
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    return reader.page


def _name(path: Path, site: Path) -> str:
    return path.relative_to(site).as_posix()


def _broken(link: str, page: Path, site: Path, pages: Mapping[Path, _Page]) -> Iterator[str]:
    parts = urlsplit(link.strip())
    if parts.scheme or parts.netloc:
        return
    target = page
    if parts.path:
        base = site if parts.path.startswith("/") else page.parent
        target = (base / unquote(parts.path).lstrip("/")).resolve()
        target = target / "index.html" if target.is_dir() else target
    anchor = unquote(parts.fragment)
    if not target.is_file():
        yield f"the link {link!r} leads nowhere"
    elif anchor and "=" not in anchor and target in pages and anchor not in pages[target].anchors:
        yield f"the link {link!r} leads to no place on its page: {_name(target, site)} has no anchor {anchor!r}"


def _styles(site: Path) -> Iterator[Finding]:
    for path in sorted(site.rglob("*.css")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            for url in CSS_URL.findall(line):
                yield Finding(_name(path, site), number, f"a style loads {url} from the network: put it into the site")


def main(arguments: list[str]) -> int:
    """Print the findings of the site that the one argument names; return 1 when there are any."""
    if len(arguments) != 1:
        print("Usage: python -m helpers.site.check _site", file=sys.stderr)
        return 2
    try:
        findings = check_site(Path(arguments[0]))
    except ClaimError as error:
        print(error, file=sys.stderr)
        return 1
    for finding in findings:
        print(finding)
    return 1 if findings else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

"""The frame around pages rendered without Quarto: navigation, table of contents and style sheets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from pygments.formatters import HtmlFormatter

from helpers.base import yaml_text
from helpers.base.errors import ClaimError
from helpers.base.files import read_text, write_text
from helpers.site.markdown import Heading
from helpers.site.targets import inputs, targets

TEMPLATES = Path(__file__).with_name("templates")
PAGE_CSS = Path("site_libs/claimbook/page.css")


@dataclass(frozen=True)
class Project:
    """The site as ``_quarto.yml`` describes it: title, navigation bar (text, target), pages and style sheet."""

    root: Path
    title: str
    navigation: tuple[tuple[str, str], ...]
    pages: tuple[Path, ...]
    css: Path


def read_project(root: Path) -> Project:
    """Read ``_quarto.yml`` in ``root``; its render list selects the pages."""
    config = yaml_text.read(read_text(root / "_quarto.yml", ClaimError), root / "_quarto.yml", ClaimError)
    pages = tuple(root / name for name in targets(config["project"]["render"], inputs(root)))
    if not pages:
        raise ClaimError(f"{root / '_quarto.yml'} selects no page: add reports/index.qmd.")
    items = config["website"]["navbar"]["left"]
    return Project(
        root=root,
        title=config["website"]["title"],
        navigation=tuple((item["text"], item["href"]) for item in items),
        pages=pages,
        css=root / config["format"]["html"]["css"],
    )


def write_styles(project: Project, site: Path) -> None:
    """Write the style sheets that :func:`write_page` links into ``site``."""
    code = HtmlFormatter(style="friendly").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    code += f"\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}\n"
    write_text(site / PAGE_CSS, (TEMPLATES / "page.css").read_text(encoding="utf-8") + code)
    write_text(site / project.css.relative_to(project.root), project.css.read_text(encoding="utf-8"))


def write_page(
    target: Path, project: Project, site: Path, front: Mapping[str, Any], content: str, headings: Sequence[Heading] = ()
) -> Path:
    """Write ``content`` (HTML) into the frame of the site; ``front`` holds title, subtitle, description, toc."""
    up = "../" * (len(target.relative_to(site).parts) - 1)
    here = target.relative_to(site).as_posix()
    navigation = [(text, href.replace(".qmd", ".html")) for text, href in project.navigation]
    page = (
        _environment()
        .get_template("page.html.jinja")
        .render(
            project=project,
            front={name: front.get(name) for name in ("title", "subtitle", "description")},
            content=content,
            css=[up + PAGE_CSS.as_posix(), up + project.css.relative_to(project.root).as_posix()],
            home=f"{up}index.html",
            navigation=[(text, up + href, href == here) for text, href in navigation],
            toc=[heading for heading in headings if heading.level in (2, 3)] if front.get("toc", True) else [],
        )
    )
    write_text(target, page)
    return target


def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(TEMPLATES)
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)

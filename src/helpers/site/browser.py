"""Pages that a script draws from data: they open from a disk, hold little, and read data files when asked for more.

Data files are scripts that call one function with JSON, because a page opened from a disk may not read other files.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from markupsafe import Markup

from helpers.base.files import write_text
from helpers.show.markup import script_json
from helpers.site.frame import TEMPLATES


def browser(name: str, data: Any, anchors: str = "") -> Markup:
    """Return the HTML of ``templates/<name>.html`` with its data and its script.

    Args:
        data: what ``<name>.js`` reads from the element ``data``.
        anchors: the key of ``data`` that lists the places of the page a link may lead to; see ``helpers.site.check``.
    """
    marked = Markup(' data-anchors="{}"').format(anchors) if anchors else ""
    return Markup(
        '{}<script type="application/json" id="data"{}>{}</script>\n'
        '<script>\n(() => {{\n"use strict";\n{}{}}})();\n</script>\n'
    ).format(_own(f"{name}.html"), marked, script_json(data), _own("browse.js"), _own(f"{name}.js"))


def _own(name: str) -> Markup:
    text = (TEMPLATES / name).read_text(encoding="utf-8")
    return Markup(text)  # noqa: S704 - a file of this package


def write_shards(folder: Path, shards: Iterable[Any]) -> None:
    """Write a browser's data files as ``<number>.js`` into ``folder``, and remove those of an earlier rendering."""
    for left_over in folder.glob("*.js"):
        left_over.unlink()
    for number, data in enumerate(shards):
        write_text(folder / f"{number}.js", f"claimbookShard({number}, {script_json(data)});\n")

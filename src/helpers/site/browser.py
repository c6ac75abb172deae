"""Pages that a script draws from data: they open from a disk, hold little, and read data files when asked for more.

Data files are scripts that call one function with JSON, because a page opened from a disk may not read other files.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from helpers.figures import script_json
from helpers.files import write_text
from helpers.site.frame import TEMPLATES


def browser(name: str, data: Any, anchors: str = "") -> str:
    """Return the HTML of ``templates/<name>.html`` with its data and its script.

    Args:
        data: what ``<name>.js`` reads from the element ``data``.
        anchors: the key of ``data`` that lists the places of the page a link may lead to; see ``helpers.site.check``.
    """
    content = (TEMPLATES / f"{name}.html").read_text(encoding="utf-8")
    script = "".join((TEMPLATES / f"{part}.js").read_text(encoding="utf-8") for part in ("browse", name))
    marked = f' data-anchors="{anchors}"' if anchors else ""
    element = f'<script type="application/json" id="data"{marked}>{script_json(data)}</script>'
    return f'{content}{element}\n<script>\n(() => {{\n"use strict";\n{script}}})();\n</script>\n'


def write_shards(folder: Path, shards: Iterable[Any]) -> None:
    """Write a browser's data files as ``<number>.js`` into ``folder``, and remove those of an earlier rendering."""
    for left_over in folder.glob("*.js"):
        left_over.unlink()
    for number, data in enumerate(shards):
        write_text(folder / f"{number}.js", f"claimbookShard({number}, {script_json(data)});\n")

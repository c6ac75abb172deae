"""The render list, read as Quarto reads it: what each kind of pattern selects."""

from __future__ import annotations

import pytest

from helpers.base.errors import ClaimError
from helpers.site.frame import read_project
from helpers.site.targets import inputs, targets

pytestmark = pytest.mark.unit

NAMES = [
    "README.md", "index.qmd", "notes.md", "reports/_draft.qmd", "reports/.hidden.qmd", "reports/a.qmd",
    "reports/b.qmd", "reports/deep/c.qmd", "reports/style.css", "tests/fixtures/reports/a.qmd", "_site/reports/a.qmd",
]  # fmt: skip
FIXTURE = "tests/fixtures/reports/a.qmd"


@pytest.mark.parametrize(
    ("render", "selected"),
    [
        (["./reports/*.qmd"], ["reports/a.qmd", "reports/b.qmd"]),
        (["/reports/*.qmd"], ["reports/a.qmd", "reports/b.qmd"]),
        (["reports/*.qmd"], ["reports/a.qmd", "reports/b.qmd", FIXTURE]),
        (["*.qmd"], ["index.qmd", "reports/a.qmd", "reports/b.qmd", "reports/deep/c.qmd", FIXTURE]),
        (["/*.qmd"], ["index.qmd"]),
        (["./reports/**/*.qmd"], ["reports/a.qmd", "reports/b.qmd", "reports/deep/c.qmd"]),
        (["reports/a.qmd", "notes.md"], ["notes.md", "reports/a.qmd"]),
        (["reports"], ["reports/a.qmd", "reports/b.qmd", "reports/deep/c.qmd"]),
        (["./reports/[!b].qmd"], ["reports/a.qmd"]),
        (["*.qmd", "!a.qmd"], ["index.qmd", "reports/b.qmd", "reports/deep/c.qmd"]),
        (["*.qmd", "!/reports/*.qmd"], ["index.qmd", "reports/deep/c.qmd", FIXTURE]),
        (["reports/*.qmd", "!tests/"], ["reports/a.qmd", "reports/b.qmd"]),
        (["!reports/*.qmd"], []),
    ],
)
def test_patterns_select_what_quarto_documents(render, selected):
    assert targets(render, NAMES) == selected


def test_syntax_that_is_not_read_here_is_refused():
    with pytest.raises(ClaimError, match=r"'\./reports/\{a,b\}\.qmd'.*plain globs"):
        targets(["./reports/{a,b}.qmd"], NAMES)


def test_the_fallback_renders_the_same_pages(tmp_path):
    for name in NAMES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    assert sorted(inputs(tmp_path)) == sorted(
        name for name in NAMES if name.endswith((".qmd", ".md")) and not name.startswith("_")
    )
    (tmp_path / "_quarto.yml").write_text(
        "project: {render: ['reports/*.qmd', '!tests/']}\n"
        "website: {title: x, navbar: {left: []}}\nformat: {html: {css: reports/style.css}}\n"
    )
    pages = read_project(tmp_path).pages
    assert [path.relative_to(tmp_path).as_posix() for path in pages] == ["reports/a.qmd", "reports/b.qmd"]

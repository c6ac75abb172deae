"""What follows the rendering: notebooks, completions, and the choice between Quarto and the fallback."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import nbformat
import pytest
from site_fixture import HOSTILE, make_project, make_record

from helpers.errors import ClaimError, RecordError
from helpers.site import completions, notebooks, render
from helpers.site.check import check_site
from helpers.site.frame import read_project, write_styles

pytestmark = pytest.mark.unit

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "outputs" / "published"))
    project = read_project(make_project(tmp_path))
    write_styles(project, tmp_path / "_site")
    for name in ("index.html", "reports/index.html", "reports/claim.html"):
        (tmp_path / "_site" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "_site" / name).write_text("<html></html>")
    return project


def notebook(root: Path, *outputs: dict, count: int | None = 1) -> Path:
    v4 = nbformat.v4
    code = v4.new_code_cell("show(x)", execution_count=count, outputs=[nbformat.from_dict(o) for o in outputs])
    book = v4.new_notebook(cells=[v4.new_markdown_cell("# Title\n\nText"), code])
    book.metadata["jupytext"] = {"formats": "ipynb,py:percent"}
    path = root / "sweep.ipynb"
    nbformat.write(book, path)
    return path


def shown(data: dict, metadata: dict | None = None) -> dict:
    return {"output_type": "display_data", "data": data, "metadata": metadata or {}}


def test_a_notebook_page_loads_and_runs_nothing(project, tmp_path):
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}, "text/plain": "Select()"}
    hostile = {"text/html": HOSTILE[0] + "<table><tr><td onclick='x()'>cell</td></tr></table>", "text/plain": "x"}
    image = shown({"image/png": PIXEL}, {"image/png": {"alt": "a single point"}})
    printed = {"output_type": "stream", "name": "stdout", "text": HOSTILE[1] + "\x1b[31mred\x1b[0m"}
    source = notebook(tmp_path, shown(widget), shown(hostile), shown({"text/markdown": HOSTILE[0]}), image, printed)
    page = notebooks.export(source, project, tmp_path / "_site").read_text(encoding="utf-8")
    content = page.split('<main id="content">')[1]
    assert not set(re.findall(r"<(\w+)", content)) & {"script", "style", "iframe", "b"}
    assert not re.search(r"<[^>]*\son\w+=", content) and re.findall("<h1>.*", content) == ["<h1>Title</h1>"]
    assert "<td>cell</td>" in content and 'alt="a single point"' in content and "an interactive widget" in content
    assert "&lt;h1&gt;taken over" in content
    assert check_site(tmp_path / "_site") == []


def test_the_copy_of_a_notebook_is_not_paired(project, tmp_path):
    source = notebook(tmp_path, shown({"text/plain": "1"}))
    notebooks.export(source, project, tmp_path / "_site")
    copy = json.loads((tmp_path / "_site/notebooks/sweep.ipynb").read_text(encoding="utf-8"))
    assert "jupytext" not in copy["metadata"] and len(copy["cells"]) == 2


def test_notebooks_that_did_not_run_or_failed_are_refused(project, tmp_path):
    with pytest.raises(ClaimError, match="was never executed"):
        notebooks.export(notebook(tmp_path, count=None), project, tmp_path / "_site")
    error = {"output_type": "error", "ename": "ValueError", "evalue": "x", "traceback": []}
    with pytest.raises(ClaimError, match="ended in an error"):
        notebooks.export(notebook(tmp_path, error), project, tmp_path / "_site")


def test_completions_of_all_records_are_written_once(project, tmp_path):
    make_record(tmp_path / "outputs", "pocket-0a", HOSTILE, lr=5e-6)
    make_record(tmp_path / "outputs" / "published", "pocket-0a", HOSTILE, lr=5e-6)
    make_record(tmp_path / "outputs" / "published", "pocket-0b", ["one"], lr=1e-5)
    (tmp_path / "_site/completions").mkdir()
    (tmp_path / "_site/completions/7.js").write_text("left over")
    assert completions.write(project, tmp_path / "_site") == len(HOSTILE) + 1
    written = sorted(path.name for path in (tmp_path / "_site/completions").iterdir())
    assert written == ["0.js", "1.js"]
    shard = (tmp_path / "_site/completions/0.js").read_text(encoding="utf-8")
    data = json.loads(shard.removeprefix("claimbookShard(0, ").removesuffix(");\n"))
    assert ["".join(text) for text in data["text"]] == HOSTILE and "<" not in shard
    assert data["persona"]["values"][2] == "<b>librarian</b>" and data["persona"]["codes"][:4] == [0, 1, 2, 0]
    assert check_site(tmp_path / "_site") == []


def test_a_site_without_completions_says_so(project, tmp_path):
    assert completions.write(project, tmp_path / "_site") == 0
    assert "0 completions of 0 runs" in (tmp_path / "_site/completions.html").read_text(encoding="utf-8")


def test_a_damaged_table_of_completions_is_an_error(project, tmp_path):
    folder = make_record(tmp_path / "outputs", "pocket-0a", ["one"])
    (folder / "completions.parquet").write_bytes(b"")
    with pytest.raises(RecordError, match=r"completions\.parquet (is not|was changed)"):
        completions.write(project, tmp_path / "_site")


def fake_quarto(folder: Path, code: int) -> Path:
    folder.mkdir()
    command = folder / "quarto"
    command.write_text(f'#!/bin/sh\necho "$@" "$QUARTO_PYTHON" > "{folder}/called"\nexit {code}\n', encoding="utf-8")
    command.chmod(0o755)
    return folder / "called"


def test_quarto_renders_where_it_is_installed(project, tmp_path, monkeypatch):
    called = fake_quarto(tmp_path / "bin", 0)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    assert render.render_site(tmp_path) == tmp_path / "_site/index.html"
    assert called.read_text().split() == ["render", str(tmp_path), sys.executable]


def test_a_failing_quarto_is_an_error(project, tmp_path, monkeypatch):
    fake_quarto(tmp_path / "bin", 3)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    with pytest.raises(ClaimError, match="quarto render failed"):
        render.render_site(tmp_path)


def test_without_quarto_the_fallback_says_how_to_get_it(project, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(render.shutil, "which", lambda name: None)
    monkeypatch.setattr(render.fallback, "render", lambda root, site: None)
    with pytest.raises(ClaimError, match=r"The site has faults:\nindex\.html:3: .*'gone\.html' leads nowhere"):
        (tmp_path / "_site/reports/index.html").write_text('<html>\n<body>\n<a href="../gone.html">x</a>')
        render.render_site(tmp_path)
    assert capsys.readouterr().err.splitlines() == [render.NO_QUARTO]

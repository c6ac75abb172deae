"""What follows the rendering: notebooks, completions, and the choice between Quarto and the fallback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from site_fixture import HOSTILE, make_project, make_record

from helpers.base.errors import ClaimError, RecordError
from helpers.base.files import ROOT
from helpers.records.reading import records
from helpers.site import completions, notebooks, render
from helpers.site.check import check_site
from helpers.site.finish import after_quarto
from helpers.site.frame import read_project, write_styles
from helpers.site.run_list import run_list

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


def test_a_notebook_page_has_contents(project, tmp_path):
    source = notebook(tmp_path, shown({"text/plain": "1"}))
    book = nbformat.read(source, as_version=4)
    book.cells += [
        nbformat.v4.new_markdown_cell(text) for text in ("## Did it *train*?", "text\n\n## Facts", "## Facts")
    ]
    nbformat.write(book, source)
    page = notebooks.export(source, project, tmp_path / "_site").read_text(encoding="utf-8")
    listed = re.findall(r'<li class="toc-2"><a href="#(.*?)">(.*?)</a>', page)
    assert listed == [("did-it-train", "Did it train?"), ("facts", "Facts"), ("facts-1", "Facts")]
    assert re.findall(r'<h2 id="(.*?)">', page) == [anchor for anchor, _ in listed]
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
    says = "for n in $(seq 300); do echo cell $n; echo cell $n done >&2; done"
    command.write_text(f'#!/bin/sh\necho "$@" "$QUARTO_PYTHON" > "{folder}/called"\n{says}\nexit {code}\n')
    command.chmod(0o755)
    return folder / "called"


def test_quarto_renders_where_it_is_installed(project, tmp_path, monkeypatch, capfd):
    called = fake_quarto(tmp_path / "bin", 0)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    assert render.render_site(tmp_path).first == tmp_path / "_site/index.html"
    assert called.read_text().split() == ["render", str(tmp_path), sys.executable]
    assert capfd.readouterr() == ("", "")


def test_some_pages_are_rendered_by_name(project, tmp_path, monkeypatch):
    called = fake_quarto(tmp_path / "bin", 0)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    assert render.render_site(tmp_path, names=["reports/index.qmd"]).first == tmp_path / "_site/reports/index.html"
    assert called.read_text().split() == ["render", str(tmp_path / "reports/index.qmd"), sys.executable]
    with pytest.raises(ClaimError, match=r"The site has no page 'indx'; did you mean 'index'"):
        render.render_site(tmp_path, names=["indx"])


def test_a_failing_quarto_is_an_error_under_its_last_lines(project, tmp_path, monkeypatch, capfd):
    fake_quarto(tmp_path / "bin", 3)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    with pytest.raises(ClaimError, match="quarto render failed"):
        render.render_site(tmp_path)
    lines = capfd.readouterr().err.splitlines()
    assert lines[-1] == "cell 300 done" and len(lines) == render.LAST


def test_without_quarto_the_fallback_says_how_to_get_it(project, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(render.shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(render.fallback, "render", lambda root, site, pages: [])
    with pytest.raises(ClaimError, match=r"The site has faults:\nindex\.html:3: .*'gone\.html' leads nowhere"):
        (tmp_path / "_site/reports/index.html").write_text('<html>\n<body>\n<a href="../gone.html">x</a>')
        render.render_site(tmp_path)
    assert capsys.readouterr().err.splitlines() == [render.NO_QUARTO]


QUARTO = ("RENDER_ALL", "OUTPUT_DIR", "OUTPUT_FILES")
LEADS_ON = (
    '<a href="runs.html#pocket-0a">a run</a> <a href="../completions.html">all</a> <a href="../index.html">home</a>'
)


@pytest.fixture
def fresh(tmp_path, monkeypatch) -> Path:
    """A project of which nothing was rendered yet, outside Quarto."""
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "outputs" / "published"))
    for name in QUARTO:
        monkeypatch.delenv(f"QUARTO_PROJECT_{name}", raising=False)
    return make_project(tmp_path)


def quarto_renders(root: Path, monkeypatch, bodies: dict[str, str], *, everything: bool = False) -> int:
    """Leave pages in ``_site`` as Quarto does, and run what follows in the environment that Quarto documents."""
    for name, body in bodies.items():
        path = root / "_site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"<html><body id='content'>{body}</body></html>", encoding="utf-8")
    monkeypatch.setenv("QUARTO_PROJECT_OUTPUT_DIR", "_site")
    monkeypatch.setenv("QUARTO_PROJECT_OUTPUT_FILES", "\n".join(f"_site/{name}" for name in bodies))
    if everything:
        monkeypatch.setenv("QUARTO_PROJECT_RENDER_ALL", "1")
    return after_quarto(root)


def test_one_page_of_a_fresh_clone_passes(fresh, monkeypatch, capsys):
    assert quarto_renders(fresh, monkeypatch, {"reports/claim.html": LEADS_ON}) == 0, capsys.readouterr().err
    assert sorted(path.name for path in (fresh / "_site").rglob("*.*")) == ["claim.html"]


def test_the_index_alone_becomes_the_home_page(fresh, monkeypatch):
    assert quarto_renders(fresh, monkeypatch, {"reports/index.html": '<a href="claim.html">claim</a>'}) == 0
    assert 'href="reports/claim.html"' in (fresh / "_site/index.html").read_text(encoding="utf-8")


def test_the_runs_alone_get_their_details(fresh, monkeypatch):
    make_record(fresh / "outputs", "pocket-0a", ["one"])
    assert quarto_renders(fresh, monkeypatch, {"reports/runs.html": run_list(records("sweep")).fragment}) == 0
    assert "pocket-0a" in (fresh / "_site/reports/runs/0.js").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("`{python} x`", "inline expression was not evaluated"),
        ('<a href="#gone">x</a>', "no anchor 'gone'"),
        ('<img src="gone.png" alt="x">', "'gone.png' leads nowhere"),
        ('<script src="https://cdn.example/x.js"></script>', "from the network"),
    ],
)
def test_a_fault_of_the_one_page_stops_quarto(fresh, monkeypatch, capsys, body, what):
    assert quarto_renders(fresh, monkeypatch, {"reports/claim.html": body}) == 1
    assert what in capsys.readouterr().err
    assert quarto_renders(fresh, monkeypatch, {"reports/index.html": LEADS_ON}) == 0, "claim.html was not rendered now"


def test_links_between_pages_are_checked_when_all_were_rendered(fresh, monkeypatch, capsys):
    claim = {"reports/claim.html": LEADS_ON, "reports/index.html": ""}
    assert quarto_renders(fresh, monkeypatch, claim, everything=True) == 1
    assert "the link 'runs.html#pocket-0a' leads nowhere" in capsys.readouterr().err
    make_record(fresh / "outputs", "pocket-0a", ["one"])
    runs = {"reports/runs.html": run_list(records("sweep")).fragment}
    assert quarto_renders(fresh, monkeypatch, claim | runs, everything=True) == 0, capsys.readouterr().err


def test_a_list_of_pages_too_long_for_the_environment_is_read_from_its_file(fresh, monkeypatch, capsys):
    (fresh / "rendered.txt").write_text("_site/reports/claim.html\n")
    monkeypatch.setenv("QUARTO_USE_FILE_FOR_PROJECT_OUTPUT_FILES", "rendered.txt")
    assert quarto_renders(fresh, monkeypatch, {"reports/claim.html": LEADS_ON, "reports/index.html": "?@fig-a"}) == 0
    (fresh / "rendered.txt").write_text("_site/reports/index.html")
    assert after_quarto(fresh) == 1


def test_the_script_outside_quarto_says_what_to_run(fresh, capsys):
    assert after_quarto(fresh) == 1
    assert "Run `claimbook site` instead" in capsys.readouterr().err


def test_quarto_runs_the_script_in_the_project(tmp_path):
    site = tmp_path / "site"
    (site / "reports").mkdir(parents=True)
    page = site / "reports/speed.html"
    page.write_text(f'<header id="title-block-header"><h1>Speed</h1></header>{LEADS_ON}')
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QUARTO_")}
    environment |= {"QUARTO_PROJECT_OUTPUT_DIR": str(site), "QUARTO_PROJECT_OUTPUT_FILES": os.path.relpath(page, ROOT)}
    command = [sys.executable, "reports/_finish.py"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written = page.read_text()
    assert written.count('<section class="cb-header"') == 1 and 'class="cb-badge' in written
    assert written.index("</header>") < written.index("cb-header") < written.index("a run")

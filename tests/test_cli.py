from __future__ import annotations

import subprocess
import sys

import nbformat
import pytest
import yaml
from claims_records import rate, record
from typer.testing import CliRunner

from helpers import cli, files
from helpers.claims import lint as linter
from helpers.errors import ClaimbookError, ClaimError
from helpers.files import ROOT, write_json, write_text
from helpers.site import executing, render

pytestmark = pytest.mark.unit
COMMANDS = ("report", "sweep", "site", "publish", "status", "lint", "new", "bench")


def run(*arguments: str):
    return CliRunner().invoke(cli.app, list(arguments))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    return tmp_path


@pytest.fixture
def recorded(here):
    for lr in (1e-4, 1e-3):
        made = record({"lr": lr, "tail": "newline"}, {"source_rate": rate(1, 2)}, name=f"toy-{lr:g}", inputs={})
        write_json(here / f"outputs/toy/toy-{lr:g}/run.json", made.content)
    return here


def test_help_names_every_command_and_imports_nothing_heavy():
    code = "import sys, helpers.cli; sys.exit(bool({'torch', 'pandas', 'altair', 'papermill'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    shown = run("--help").output
    assert all(name in shown for name in COMMANDS)


def test_an_error_is_one_sentence_without_a_traceback(here):
    done = run("publish", "nothing")
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit)
    assert done.stderr == "claimbook: There is no complete record of 'nothing': run its notebook first.\n"


def test_a_bug_is_not_hidden(monkeypatch):
    monkeypatch.setattr(linter, "lint", lambda **_: 1 / 0)
    assert isinstance(run("lint").exception, ZeroDivisionError)


def test_publish_takes_what_agrees_with_every_constraint(recorded):
    done = run("publish", "toy", "--where", "lr=1e-4", "--where", "tail=newline")
    assert done.exit_code == 0 and "1 records are published" in done.output
    assert [path.name for path in (recorded / "published/toy").iterdir()] == ["toy-0.0001"]
    assert run("publish", "toy", "--where", "lr=1e-4", "--where", "lr=1e-3").exit_code == 0
    assert len(list((recorded / "published/toy").iterdir())) == 2


@pytest.mark.parametrize(
    ("where", "message"),
    [("rl=1e-4", "No cell has an axis 'rl'; did you"), ("lr=3e-4", "No cell has lr=0"), ("lr", "is no axis=value")],
)  # fmt: skip
def test_publish_refuses_constraints_that_nothing_has(recorded, where, message):
    done = run("publish", "toy", "--where", where)
    assert done.exit_code == 1 and message in done.stderr


def test_lint_lists_findings_and_fails(monkeypatch):
    found = [linter.Finding("reports/a.qmd", 3, "numeral", "'64' is typed.")]
    monkeypatch.setattr(linter, "lint", lambda **_: found)
    done = run("lint")
    assert done.exit_code == 1 and done.stdout == "reports/a.qmd:3: numeral: '64' is typed.\n"
    monkeypatch.setattr(linter, "lint", lambda **_: [])
    assert run("lint").exit_code == 0


def test_status_counts_the_cells_of_every_grid(here):
    done = run("status", "sweep")
    assert done.exit_code == 0 and "params/sweep/smollm2.yaml: 4 missing" in done.stdout


def test_status_of_an_experiment_that_is_not_there_is_an_error(here):
    done = run("status", "sweeep")
    assert done.exit_code == 1 and "did you mean 'sweep'" in done.output


def test_site_says_what_was_rendered(here, monkeypatch):
    monkeypatch.setattr(render, "render_site", lambda: here / "index.html")
    write_text(here / "reports/a.html", "")
    assert f"Open {here}/index.html" in run("site").stdout


def test_new_refuses_what_is_no_slug():
    done = run("new", "My Ablation")
    assert done.exit_code == 1 and "is no slug" in done.stderr


# Notebooks


@pytest.fixture
def project(here, monkeypatch):
    """A project with a notebook that divides, and its parameters."""
    nb = nbformat.v4.new_notebook()
    nb.cells = [nbformat.v4.new_code_cell("lr = 1"), nbformat.v4.new_code_cell("print(1 / float(lr))")]
    nb.cells[0].metadata["tags"] = ["parameters"]
    nb.metadata |= {"kernelspec": {"name": "python3", "display_name": "x", "language": "python"}}
    nb.metadata["jupytext"] = {"formats": "ipynb,py:percent"}
    write_text(here / "notebooks/sweep.ipynb", nbformat.writes(nb))
    source = yaml.safe_load((ROOT / "params/sweep/experiment.yaml").read_text())
    write_text(here / "params/sweep/experiment.yaml", yaml.safe_dump(source))
    write_text(here / "params/sweep/quick.yaml", "lr: 1e-4\n")
    return here


@pytest.mark.notebooks
def test_a_preset_is_executed_into_a_copy_without_its_pairing(project):
    target = executing.run_notebook("sweep", "quick", project)
    assert target == files.outputs_root() / "executed/sweep-quick.ipynb"
    done = nbformat.read(target, as_version=4)
    assert "jupytext" not in done.metadata and done.cells[-1].outputs[0].text == "10000.0\n"
    assert "jupytext" in nbformat.read(project / "notebooks/sweep.ipynb", as_version=4).metadata


@pytest.mark.notebooks
def test_a_notebook_that_stops_is_one_sentence(project):
    notebook = project / "notebooks/sweep.ipynb"
    write_text(notebook, notebook.read_text().replace("1 / float(lr)", "1 / 0"))
    with pytest.raises(ClaimbookError, match=r"^sweep\.ipynb stopped with ZeroDivisionError: division by zero \("):
        executing.run_notebook("sweep", "quick", project)


@pytest.mark.parametrize(
    ("preset", "text", "message"),
    [("quik", None, "did you mean 'quick"), ("bad", "rl: 1e-4\n", "parameter 'rl'"), ("bad", "lr: 9\n", "lr is 9")],
)  # fmt: skip
def test_parameters_are_checked_before_anything_starts(project, preset, text, message):
    if text:
        write_text(project / f"params/sweep/{preset}.yaml", text)
    with pytest.raises(ClaimbookError, match=message):
        executing.run_notebook("sweep", preset, project)
    assert not (project / "outputs").exists()


def test_a_notebook_that_is_not_there_says_how_to_get_it(project):
    (project / "notebooks/sweep.ipynb").unlink()
    with pytest.raises(ClaimbookError, match=r"jupytext --sync notebooks/sweep\.py"):
        executing.run_notebook("sweep", "quick", project)


def test_report_renders_after_it_ran(here, monkeypatch):
    monkeypatch.setattr(executing, "run_notebook", lambda name, preset: here / f"{name}-{preset}.ipynb")
    monkeypatch.setattr(render, "render_site", lambda: here / "index.html")
    done = run("report", "--preset", "pocket")
    assert done.exit_code == 0 and "sweep-pocket.ipynb" in done.stdout and "Open" in done.stdout
    monkeypatch.setattr(executing, "run_notebook", lambda *_: (_ for _ in ()).throw(ClaimError("It broke.")))
    assert run("report").exit_code == 1

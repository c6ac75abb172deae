from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
import typer
import yaml
from claims_records import rate, record
from typer.testing import CliRunner

from helpers import cli
from helpers.base import files
from helpers.base.errors import ClaimbookError, ClaimError
from helpers.base.files import ROOT, write_json, write_text
from helpers.site import lint as linter
from helpers.site import listing, render
from helpers.site.new import create
from helpers.site.status import CellStatus, PageStatus
from helpers.sweeps import executing, spent
from helpers.sweeps.driver import sweep

pytestmark = pytest.mark.unit
COMMANDS = ("report", "sweep", "site", "publish", "status", "lint", "new", "notebook", "bench")


def run(*arguments: str, **options: bool):
    return CliRunner(env={"TQDM_DISABLE": "1"}).invoke(cli.app, list(arguments), **options)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    return tmp_path


@pytest.fixture
def recorded(here):
    for lr in (1e-4, 1e-3):
        made = record(
            {"lr": lr, "tail": "newline"}, {"source_rate": rate(1, 2)}, params={"epochs": 1}, name=f"toy-{lr:g}"
        )
        write_json(here / f"outputs/toy/toy-{lr:g}/run.json", made.content)
    return here


def test_help_names_every_command_and_imports_nothing_heavy():
    heavy = "{'torch', 'pandas', 'altair', 'papermill'}"
    code = f"import sys, helpers.cli, helpers.site.kept; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    shown = run("--help").output
    assert all(name in shown for name in COMMANDS) and "..." not in shown.partition("Begin:")[2]
    grouped = [name for names in cli.GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(typer.main.get_command(cli.app).commands)
    assert [line for line in shown.splitlines() if line.endswith(":")] == [
        "Options:",
        *(f"{one}:" for one in cli.GROUPS),
    ]


def test_what_reads_records_imports_no_models_and_no_notebooks():
    """lint, status, verify and every page need the studies' metrics and criteria, and torch takes seconds."""
    code = """
import sys
import helpers.audit.verify, helpers.site.lint, helpers.site.status
from helpers.claims.criteria import read_criteria
from helpers.base.files import PARAMS
from helpers.records.study import load_study
for path in PARAMS.glob("*/criteria*.yaml"):
    assert load_study(path.parent.name).metrics and read_criteria(path).questions
print(*{"torch", "transformers", "peft", "nbclient", "papermill", "ray"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "\n"


def test_a_page_imports_no_grammar_and_no_study_but_its_own():
    """One page must come within ten seconds: a grammar that jsonschema parses took one of them, in each process."""
    code = """
import sys
import helpers.cli, helpers.site.render, helpers.site.pages
from helpers.records.study import find_study, load_study
load_study("triangulation")
assert find_study("triangulation_training").name == "triangulation_training"
studies = {name for name in sys.modules if name.startswith("helpers.studies.") and name.endswith(".study")}
print(*studies - {"helpers.studies.eqprop.study"}, *{"lark", "scipy.stats"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "\n"


def test_an_error_is_one_sentence_without_a_traceback(here):
    done = run("publish", "nothing")
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit)
    assert done.stderr == "claimbook: There is no complete record of 'nothing': run its notebook first.\n"


@pytest.mark.parametrize(
    "arguments", [["--traceback", "publish", "nothing"], ["publish", "nothing", "--traceback"]]
)  # fmt: skip
def test_with_traceback_the_sentence_stands_at_both_ends(here, arguments):
    first, *between, last = run(*arguments).stderr.splitlines()
    assert first == last == "claimbook: There is no complete record of 'nothing': run its notebook first."
    assert "Traceback (most recent call last):" in between and any("in publish" in line for line in between)


def test_an_error_of_many_lines_has_its_sentence_at_both_ends(monkeypatch):
    error = ClaimError("The site has faults:\na.html: one\nb.html: two")
    monkeypatch.setattr(linter, "lint", lambda **_: (_ for _ in ()).throw(error))
    assert run("lint").stderr.splitlines() == [
        "claimbook: The site has faults:", "a.html: one", "b.html: two", "claimbook: The site has faults:",
    ]  # fmt: skip


def test_bars_are_left_out_where_output_is_no_terminal(here, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "")  # so that it is put back afterwards
    monkeypatch.delenv("TQDM_DISABLE")
    CliRunner().invoke(cli.app, ["status", "nothing"])
    assert os.environ["TQDM_DISABLE"] == "1"


def test_nothing_is_coloured(here):
    """``color=True`` keeps what a command writes, where a pipe would have the codes taken out."""
    written = [run(name, "--help", color=True) for name in COMMANDS]
    written += [run("status", "sweep", "--all", color=True), run("status", "sweeep", "--traceback", color=True)]
    assert all(one.output for one in written)
    assert [one.output for one in written if "\x1b" in one.output] == []


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
    [("rl=1e-4", "No cell has an axis 'rl'; did you"), ("lr=3e-4", "No cell has lr=0"), ("lr", "is not axis=value"),
     ("lr=[1e-4, 1e-3]", "once for each value"), ("lr={a: 1}", "once for each value"), ("=1", "is not axis=value"),
     ("lr=", "is not axis=value"), ("lr=~", "No cell has lr=None"), ("epochs=true", "No cell has epochs=True"),
     ("lr=&a [*a]", "cannot be read as YAML"), ("lr=[1", "cannot be read as YAML"), ("lr=\x00", "as YAML: "),
     ("lr=!!python/name:os.system", "cannot be read as YAML"), ("lr=2026-01-31", "No cell has lr=2026"),
     ("lr=" + "[" * 5000, "cannot be read as YAML"), ("lr=a\n---\nb", "cannot be read as YAML")],
)  # fmt: skip
def test_publish_refuses_constraints_that_nothing_has(recorded, where, message):
    done = run("publish", "toy", "--where", where)
    assert done.exit_code == 1 and message in done.stderr


def test_publish_names_what_it_cannot_read_and_refuses_it_by_id(recorded):
    (recorded / "outputs/toy/toy-0.001/run.json").write_text("{")
    done = run("publish", "toy")
    assert done.exit_code == 0 and "1 records are published" in done.stdout
    assert done.stderr.startswith("left out: toy/toy-0.001: ") and "cannot be read" in done.stderr
    asked = run("publish", "toy/toy-0.001")
    assert asked.exit_code == 1 and "toy-0.001" in asked.stderr and "published" not in asked.stdout
    assert [path.name for path in (recorded / "published/toy").iterdir()] == ["toy-0.0001"]


def test_publish_takes_one_record_by_id(recorded):
    assert run("publish", "toy/toy-0.001").exit_code == 0
    assert [path.name for path in (recorded / "published/toy").iterdir()] == ["toy-0.001"]


def test_lint_lists_findings_and_fails(monkeypatch):
    found = [linter.Finding("reports/a.qmd", 3, "numeral", "'64' is typed.")]
    monkeypatch.setattr(linter, "lint", lambda **_: found)
    done = run("lint")
    assert done.exit_code == 1 and done.stdout == "reports/a.qmd:3: numeral: '64' is typed.\n"
    monkeypatch.setattr(linter, "lint", lambda **_: [])
    assert run("lint").exit_code == 0


def test_status_counts_the_cells_of_every_grid(here):
    done = run("status", "sweep", "--all")
    assert done.exit_code == 0 and "params/sweep/smollm2.yaml: 4 missing" in done.stdout
    assert done.stdout.count("\n  missing ") == done.stdout.count(" missing  ") > 100


def test_status_is_three_lines_a_claim(here):
    done = run("status", "sweep")
    *told, rest = done.stdout.splitlines()
    assert len(told) % 3 == 0 and all(line.startswith("reports/") for line in told[::3])
    claim, runs, since = told[:3]
    assert claim == "reports/lr-epochs-band.qmd: NOT RUN, confidence LOW"
    assert re.fullmatch(r"  runs: \d+ missing", runs) and since == "  nothing has changed since"
    assert rest == "Every cell: claimbook status --all"


def test_status_counts_the_runs_of_a_claim_and_says_why_it_is_stale():
    cells = [CellStatus("toy", "params/toy/a.yaml", f"lr={n}", state) for n, state in enumerate(["missing", "stale"])]
    cells += [
        CellStatus("toy", "params/toy/b.yaml", "lr=1", "missing"),
        CellStatus("new", "params/new/a.yaml", "", "failed"),
    ]
    page = PageStatus("reports/toy.qmd", "toy", "toy", "STALE", "LOW", ("data changed since 1 of 1 runs",), "criteria")
    assert listing.summary(cells, [page]) == [
        "reports/toy.qmd: STALE, confidence LOW",
        "  runs: 2 missing, 1 stale",
        "  stale: data changed since 1 of 1 runs; criteria",
        "params/new: no page yet; runs: 1 failed",
        "Every cell: claimbook status --all",
    ]
    failed = CellStatus("toy", "params/toy/a.yaml", "lr=1", "failed", ("ValueError: \x1b[2J\x07gone",))
    assert listing.whole([failed], []) == ["params/toy/a.yaml: 1 failed", "  failed     lr=1  (ValueError: [2Jgone)"]
    assert listing.summary([], []) == listing.whole([], []) == listing.NOTHING


def test_status_of_an_experiment_that_is_not_there_is_an_error(here):
    done = run("status", "sweeep")
    assert done.exit_code == 1 and "did you mean 'sweep'" in done.output


def test_site_says_what_was_rendered(here, monkeypatch):
    monkeypatch.setattr(render, "render_site", lambda names=(): render.Rendered(here / "index.html", 1, 3))
    *_, pages, last = run("site").stdout.splitlines()
    assert pages == "1 page rendered; the other 3 are as they were." and re.fullmatch(
        rf"Open {here}/index\.html \(it took 0:0\d\)\.", last
    )


def test_new_refuses_what_is_no_slug():
    done = run("new", "My Ablation", "--blank")
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
def test_a_run_says_little_where_output_is_no_terminal(project, capfd, caplog):
    """papermill's inference does not find a list over several lines in the parameters cell, nor what is not there."""
    notebook = project / "notebooks/sweep.ipynb"
    write_text(notebook, notebook.read_text().replace('"lr = 1"', '"lr = [\\n 1,\\n]"'))
    write_text(project / "params/sweep/quick.yaml", "lr: 1e-4\nnegatives: two\n")
    executing.run_notebook("sweep", "quick", project)
    shown = capfd.readouterr()
    assert "Passed unknown parameter" not in caplog.text + shown.err
    # A kernel that is slow to end, on a busy machine, says that it was interrupted.
    told = shown.err.partition("[IPKernelApp]")[0].splitlines()
    assert shown.out == "" and told == ["sweep: 0 of 1 runs are complete"]


@pytest.mark.notebooks
def test_a_notebook_that_stops_is_one_sentence(project):
    notebook = project / "notebooks/sweep.ipynb"
    write_text(notebook, notebook.read_text().replace("1 / float(lr)", "1 / 0"))
    with pytest.raises(
        ClaimbookError, match=r"^sweep\.ipynb stopped with ZeroDivisionError: division by zero \("
    ) as one:
        executing.run_notebook("sweep", "quick", project)
    assert "print(1 / 0)" in str(one.value.__cause__)  # what --traceback shows


BAD_PARAMS = [
    ("lrr: 1e-4\n", r"Unknown parameter 'lrr' .*did you mean 'lr'"),
    ("lr: 9\n", "lr is 9"),
    ("lr: 1e-4\nlr: 1e-5\n", "'lr' is written twice"),
    ("lr: 1e-4\n'x=1;import os': 2\n", "Unknown parameter 'x=1;import os'"),
    ("lr: 1e-4\n'lr\\nimport os': 2\n", "Unknown parameter"),
    ("lr: 1e-4\nimport os: 2\n", "Unknown parameter 'import os'"),
    ("lr: 1e-4\n1: 2\n", "Unknown parameter 1"),
    ("lr: 1e-4\ntrue: 2\n", "Unknown parameter True"),
    ("lr: 1e-4\n~: 2\n", "a key must be one word"),
    ("lr: 1e-4\n[a]: 2\n", "a key must be one word"),
    ("lr: 1e-4\n{a: 1}: 2\n", "a key must be one word"),
    ("lr: 1e-4\n<<: {seed: 1}\n", "Unknown parameter '<<'"),
    ("lr: 1e-4\nseed: &a [*a]\n", "cannot be read as YAML"),
    ("lr: 1e-4\nstyle: !!binary eA==\n", "cannot be read as YAML"),
    ("lr: 1e-4\nstyle: !!set {x}\n", "cannot be read as YAML"),
    ("lr: 1e-4\n\x00: 2\n", "is not UTF-8: byte 10, in line 2"),
    ("- lr\n", "one `name: value` a line"),
]


@pytest.mark.parametrize(("text", "message"), BAD_PARAMS)
def test_a_params_file_with_other_names_never_reaches_papermill(project, monkeypatch, text, message):
    monkeypatch.setattr(executing.papermill, "execute_notebook", lambda *_, **__: pytest.fail("papermill saw it"))
    path = project / "params/sweep/bad.yaml"
    write_text(path, text)
    with pytest.raises(ClaimbookError, match=message):
        executing.run_notebook("sweep", "bad", project)
    with pytest.raises(ClaimbookError, match=message):
        sweep(path, launch="claimbook sweep", root=project)
    with pytest.raises(ClaimbookError, match=message):  # it would write the names into a notebook
        shutil.copytree(ROOT / "params/sweep", project / "params/like")
        shutil.copy(path, project / "params/like/pocket.yaml")
        create("my-copy", "like", project)
    assert not (project / "outputs").exists() and not (project / "notebooks/my_copy.py").exists()


def test_a_preset_that_is_not_there_is_named(project):
    with pytest.raises(ClaimbookError, match="did you mean 'quick"):
        executing.run_notebook("sweep", "quik", project)


def test_papermill_is_given_what_the_file_says_and_nothing_raw(project, monkeypatch):
    write_text(project / "params/sweep/odd.yaml", "lr: '[1e-4, 1e-5]'\nepochs: 3.0\nstyle: 2026-01-31\n")
    given = []
    monkeypatch.setattr(executing, "execute", lambda *arguments: given.append(arguments[2]))
    executing.run_notebook("sweep", "odd", project)
    assert given == [{"lr": [1e-4, 1e-5], "epochs": 3, "style": "2026-01-31"}]


def test_a_notebook_that_is_not_there_says_how_to_get_it(project):
    (project / "notebooks/sweep.ipynb").unlink()
    with pytest.raises(ClaimbookError, match=r"jupytext --sync notebooks/sweep\.py"):
        executing.run_notebook("sweep", "quick", project)


def executed(path, *parts):
    """Write a notebook as papermill leaves it: for each part a heading (or none) and the seconds of its cells."""
    notebook = nbformat.v4.new_notebook()
    for heading, *durations in parts:
        notebook.cells += [nbformat.v4.new_markdown_cell(heading)] if heading else []
        for seconds in durations:
            cell = nbformat.v4.new_code_cell("1", metadata={"papermill": {"duration": seconds}} if seconds else {})
            notebook.cells.append(cell)
    nbformat.write(notebook, path)
    return path


def test_the_seconds_of_a_notebook_are_those_of_its_headings_and_of_its_start(tmp_path):
    path = executed(
        tmp_path / "a.ipynb",
        (None, 0.5),
        ("# Train\n\nIt *trains*.", 3.0, 1.0),
        ("No heading here.", 2.0),
        ("## Draw", None),
    )
    assert list(spent.parts(path, 10.0).items()) == [("Train", 6.0), (spent.START, 4.0), ("Draw", 0.0)]


def test_a_notebook_that_is_not_what_its_script_says_is_not_run(project):
    script = project / "notebooks/sweep.py"
    write_text(script, '# %% tags=["parameters"]\nlr = 1\n\n# %%\nprint(1 / float(lr))\n')
    executing.check_twin("sweep", project)
    write_text(script, script.read_text().replace("1 / float", "2 / float"))
    with pytest.raises(ClaimbookError, match=r"is not what .*: run `jupytext --sync notebooks/sweep\.py`"):
        executing.run_notebook("sweep", "quick", project)


def test_report_renders_after_it_ran_and_says_where_the_time_went(here, monkeypatch):
    path = executed(here / "sweep-pocket.ipynb", ("# Train", 61.0), ("# Quick", 0.2))
    monkeypatch.setattr(executing, "run_notebook", lambda name, preset: path)
    monkeypatch.setattr(render, "render_site", lambda names=(): render.Rendered(here / "index.html", 2))
    done = run("report", "--preset", "pocket")
    assert done.exit_code == 0 and "sweep-pocket.ipynb" in done.stdout
    *_, opened, title, whole, train, site = done.stdout.splitlines()
    assert opened.startswith("Open ") and title == "Where the time went:"
    assert whole.endswith(" the notebook, of it") and train == "    1:01 Train"
    assert re.fullmatch(r"  0:0\d rendering and checking the site", site)
    monkeypatch.setattr(executing, "run_notebook", lambda *_: (_ for _ in ()).throw(ClaimError("It broke.")))
    assert run("report").exit_code == 1

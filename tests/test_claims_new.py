"""`claimbook new` and `claimbook next`: a study that runs as it is written, and what remains to be done for it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import jupytext
import nbformat
import pytest
import yaml

from helpers.base.errors import ClaimError
from helpers.base.files import PARAMS, ROOT, write_text
from helpers.base.params import load, read
from helpers.cases import open_case
from helpers.cases.placeholders import placeholders
from helpers.claims.criteria import read_criteria
from helpers.records.study import load_study
from helpers.site import new
from helpers.site.linting.prose import read_page
from helpers.site.linting.sections import faults
from helpers.site.log import experiments
from helpers.site.new import create
from helpers.site.status import cells_of
from helpers.studies.marker.params import SweepCell

WRITTEN = ["notebooks/{}.py", "notebooks/{}.ipynb", "params/{}/experiment.yaml", "params/{}/pocket.yaml"]
WRITTEN += ["params/{}/criteria.yaml"]


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    shutil.copytree(PARAMS / "sweep", tmp_path / "params" / "sweep")
    return tmp_path


@pytest.mark.unit
def test_a_copy_has_notebook_parameters_criteria_and_page(root):
    written = [path.relative_to(root).as_posix() for path in create("my-ablation", "sweep", root)]
    assert written == [*(name.format("my_ablation") for name in WRITTEN), "reports/my-ablation.qmd"]
    case = open_case("reports/my-ablation.qmd", root)
    assert case.verdict().word == "NOT RUN" and case.confidence().stated == "LOW"
    assert {cell.state for cell in cells_of("my_ablation", root=root)} == {"missing"}


@pytest.mark.unit
@pytest.mark.parametrize("copied", ["sweep", "length_ablation", "logit_lens_diff", "triangulation", "latentwire"])
def test_a_copy_leaves_out_what_belongs_to_the_original(root, copied):
    shutil.copytree(PARAMS / copied, root / "params" / copied, dirs_exist_ok=True)
    create("my-ablation", copied, root)
    original, criteria = (read_criteria(root / f"params/{name}/criteria.yaml") for name in (copied, "my_ablation"))
    assert original.controls and not criteria.controls and criteria.looks == 1
    assert list(criteria.questions) == list(original.questions) and criteria.metrics.keys() == original.metrics.keys()
    assert criteria.source_axis == original.source_axis
    case = open_case("reports/my-ablation.qmd", root)
    assert case.claim.relations == [] and "PLACEHOLDER" in case.claim.statement
    pages = [page.read_text() for page in (ROOT / "reports").glob("*.qmd")]
    prose = {
        line
        for page in pages
        for line in page.splitlines()
        if re.match(r"(?!Every run of this page)[A-Z][^`]{60}", line)
    }
    assert len(prose) > 100 and not prose & set((root / "reports/my-ablation.qmd").read_text().splitlines())


@pytest.mark.unit
def test_a_blank_study_has_all_that_a_study_needs(root):
    written = [path.relative_to(root).as_posix() for path in create("my-study", root=root)]
    assert written == [
        "src/helpers/studies/my_study.py", *(name.format("my_study") for name in WRITTEN), "reports/my-study.qmd",
        "tests/test_my_study.py",
    ]  # fmt: skip
    module = (root / "src/helpers/studies/my_study.py").read_text()
    names = ("VERSION = 1", "class Cell(", "Grid = ", "def run_cell(", "def metrics(")
    assert all(name in module for name in names) and len([line for line in module.splitlines() if line]) < 50
    assert len(read_criteria(root / "params/my_study/criteria.yaml").questions) == 1
    assert not list(faults(read_page(root / "reports/my-study.qmd")))  # no section is missing


@pytest.mark.unit
@pytest.mark.parametrize("copied", [None, "sweep"])
def test_what_is_to_be_written_says_so(root, copied):
    left = list(placeholders(create("my-study", copied, root)))
    assert {one.path.suffix for one in left} >= {".qmd", ".yaml", ".py"}
    page = [one.what for one in left if one.path.suffix == ".qmd"]
    assert page[:4] == ["'subtitle'", "'statement'", "the section 'Background'", "the section 'Methodology'"]
    assert "the section 'Standing caveats'" in page


@pytest.mark.unit
@pytest.mark.parametrize("copied", [None, "sweep"])
def test_the_notebook_is_paired_and_its_parameters_are_those_of_the_pocket_file(root, copied):
    create("my-ablation", copied, root)
    script, notebook = root / "notebooks/my_ablation.py", root / "notebooks/my_ablation.ipynb"
    twin = nbformat.read(notebook, as_version=4)
    nbformat.validate(twin)
    assert [cell.source for cell in twin.cells] == [cell.source for cell in jupytext.read(script).cells]
    assert twin.metadata.jupytext.formats == "ipynb,py:percent"
    [cell] = [cell for cell in twin.cells if "parameters" in cell.metadata.get("tags", [])]
    names: dict = {}
    exec(cell.source, names)
    path = root / "params/my_ablation/pocket.yaml"
    if copied:
        assert read(SweepCell, names, [cell.source]) == load(SweepCell, path)
    else:
        assert {name: names[name] for name in names if name[0] != "_"} == yaml.safe_load(path.read_text())


@pytest.mark.unit
@pytest.mark.parametrize("copied", [None, "sweep"])
def test_what_is_written_is_in_the_style_of_the_house(root, copied):
    ruff = shutil.which("ruff") or str(ROOT / ".venv/bin/ruff")
    for path in create("my-ablation-of-everything", copied, root):
        own = "check --config lint.isort.known-first-party=['helpers']"  # what is written does not lie in this checkout
        for command in (own, "format --check") if path.suffix == ".py" else ():
            done = subprocess.run(
                [ruff, *command.split(), "--stdin-filename", path.relative_to(root), "-"],
                input=path.read_text(), cwd=ROOT, capture_output=True, text=True,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout


@pytest.mark.unit
@pytest.mark.parametrize("name", ["My-Ablation", "my_ablation", "2nd", "a--b", "-a", "a-", "", "a b", "../a", "a-2"])
def test_a_name_that_is_no_slug_is_refused(root, name):
    with pytest.raises(ClaimError, match="is no slug"):
        create(name, root=root)


@pytest.mark.unit
@pytest.mark.parametrize("taken", ["notebooks/twice.py", "params/twice/criteria.yaml", "reports/twice.qmd"])
def test_a_name_that_is_taken_is_refused_and_nothing_is_written(root, taken):
    write_text(root / taken, "mine")
    before = sorted(root.rglob("*"))
    for copied in (None, "sweep"):
        with pytest.raises(ClaimError, match=f"{taken} is there already"):
            create("twice", copied, root)
    assert sorted(root.rglob("*")) == before and (root / taken).read_text() == "mine"


@pytest.mark.unit
@pytest.mark.parametrize(
    ("slug", "message"),
    [
        *((name.replace("_", "-"), "a folder of Claimbook's own") for name in sorted(new.RESERVED)),
        *((name, "is a word of Python") for name in ("class", "import", "lambda")),
        *((name, "is a Python module") for name in ("json", "random", "torch", "helpers", "concurrent", "marker")),
        ("half-made", "params/half_made is there already"), ("old-one", "holds records of another experiment"),
        ("older-one", "holds records of another experiment"), ("tracked", "a folder of Claimbook's own"),
    ],
)  # fmt: skip
def test_a_name_that_would_collide_is_refused_and_nothing_is_written(root, monkeypatch, slug, message):
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(root / "tracked"))
    for folder in ("params/half_made", "outputs/old_one/x", "tracked/older_one/x"):
        (root / folder).mkdir(parents=True)
    before = sorted(root.rglob("*"))
    with pytest.raises(ClaimError, match=f"{message}.*: choose another name than '{slug}'"):
        create(slug, root=root)
    assert sorted(root.rglob("*")) == before


@pytest.mark.unit
def test_every_folder_in_which_a_helper_makes_records_is_reserved():
    named = {study.name for one in experiments(ROOT) for study in load_study(one).family()} - {*experiments(ROOT)}
    assert {"baseline", "length_rows"} <= named <= new.RESERVED
    assert new.RESERVED - named == {"bench", "executed", "published"}


@pytest.mark.unit
def test_what_cannot_be_copied_is_refused(root):
    with pytest.raises(ClaimError, match="no experiment 'swep' to begin from; did you mean 'sweep'"):
        create("a", "swep", root)
    write_text(root / "params/other/experiment.yaml", "study: published_records:NOTES\n")
    with pytest.raises(ClaimError, match=r"helpers\.base\.rng has no run_cells\(p, notebook=\.\.\.\)"):
        create("a", "other", root)
    (root / "params/sweep/pocket.yaml").unlink()
    with pytest.raises(ClaimError, match=r"params/sweep/pocket\.yaml is not there"):
        create("a", "sweep", root)


class Scratch:
    """A repository of its own with the sources of this one, in which commands are typed."""

    def __init__(self, root):
        self.root = root
        for name in ("src", "params/sweep", "data/pocket", "notebooks"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "_quarto.yml", "reports/_style.css", "reports/index.qmd"):
            write_text(root / name, (ROOT / name).read_text())
        write_text(root / ".gitignore", (ROOT / ".gitignore").read_text())
        for command in ("init -q -b main", "config user.name A", "config user.email a@b.c"):
            self.git(*command.split())
        self.commit()

    def git(self, *arguments):
        subprocess.run(["git", *arguments], cwd=self.root, check=True, capture_output=True)

    def commit(self):
        self.git("add", "--all")
        self.git("commit", "-q", "-m", "work")

    def type(self, *words):
        own = {name: value for name, value in os.environ.items() if not name.startswith("CLAIMBOOK_")}
        env = own | {"PYTHONPATH": str(self.root / "src"), "OMP_NUM_THREADS": "1"}
        command = [str(ROOT / ".venv/bin" / words[0]) if words[0] != "python" else sys.executable, *words[1:]]
        return subprocess.run(command, cwd=self.root, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return Scratch(tmp_path_factory.mktemp("own") / "repository")


RUN = """\
import importlib, json, sys
from helpers.base import params
from pathlib import Path
study = importlib.import_module(sys.argv[1])
cells = params.parse_grid(study.Cell, {"questions": 5, "wording": ["plain", "polite"], "seed": 7}, "here")
for record in study.run_cells(cells, notebook=sys.argv[2]):
    print(json.dumps([record.ref, record.metrics["right_rate"]["value"], list(record.code["files"])]))
"""


@pytest.mark.check
def test_a_blank_study_runs_as_it_stands_and_next_counts_down(scratch):
    made = scratch.type("claimbook", "new", "first-try", "--blank")
    assert made.returncode == 0 and "1. Try it as it stands." in made.stdout, made.stderr
    assert scratch.type("python", "-m", "pytest", "-q", "tests/test_first_try.py").returncode == 0
    assert "cannot be registered: its statement holds a PLACEHOLDER" in scratch.type(
        "claimbook", "register", "reports/first-try.qmd"
    ).stderr  # fmt: skip
    ran = scratch.type("python", "-c", RUN, "helpers.studies.first_try", "first_try")
    assert ran.returncode == 0, ran.stderr
    ref, value, code = json.loads(ran.stdout.splitlines()[-1])
    assert ref.startswith("first_try/pocket-wording-polite-seed-7-") and 0 <= value <= 1
    assert {"helpers/studies/first_try.py", "helpers/lm/session.py", "helpers/lm/packed.py"} <= set(code)
    left = scratch.type("claimbook", "next", "first-try").stdout
    assert "Try it" not in left and "claimbook register reports/first-try.qmd" in left
    assert "1. Write what is a placeholder in src/helpers/studies/first_try.py: line 1." in left
    for name in ("src/helpers/studies/first_try.py", "params/first_try/criteria.yaml", "notebooks/first_try.py",
                 "reports/first-try.qmd"):  # fmt: skip
        path = scratch.root / name
        path.write_text(path.read_text().replace("PLACEHOLDER: ", ""))
    assert "placeholder" not in scratch.type("claimbook", "next", "first-try").stdout
    registered = scratch.type("claimbook", "register", "reports/first-try.qmd")
    assert registered.returncode == 0, registered.stderr
    left = scratch.type("claimbook", "next", "first_try").stdout
    assert "Register how" not in left and "Run the 6 cells that are missing." in left


@pytest.mark.check
def test_a_study_may_lie_beside_its_notebook(scratch):
    scratch.type("claimbook", "new", "beside-it", "--blank")
    module = scratch.root / "src/helpers/studies/beside_it.py"
    outside = scratch.root / "notebooks/beside_study.py"
    outside.write_text(module.read_text())
    module.unlink()
    (scratch.root / "params/beside_it/experiment.yaml").write_text("study: beside_study:STUDY\n")
    write_text(scratch.root / "notebooks/aid.py", "WORD = 1\n")
    outside.write_text(outside.read_text().replace("import pandas as pd", "import aid\nimport pandas as pd"))
    code = f"import sys\nsys.path.append({str(outside.parent)!r})\n{RUN}"
    ran = scratch.type("python", "-c", code, "beside_study", "beside_it")
    assert ran.returncode == 0, ran.stderr
    ref, _, reached = json.loads(ran.stdout.splitlines()[-1])
    assert {"beside_study.py", "aid.py", "helpers/lm/session.py"} <= set(reached) and "sweep.py" not in reached
    assert not [name for name in reached if name.startswith(("pandas", "numpy"))]
    verified = scratch.type("claimbook", "verify", ref, "--replay")
    assert f"{ref}: equal to the last bit" in verified.stdout, verified.stdout + verified.stderr


@pytest.mark.unit
def test_how_a_study_begins_has_to_be_said():
    from typer.testing import CliRunner

    from helpers.cli import app

    for options in ([], ["--blank", "--from", "sweep"]):
        done = CliRunner().invoke(app, ["new", "my-study", *options])
        assert done.exit_code == 1 and "`claimbook new my-study --blank`, `claimbook" in done.stderr

"""The notebooks: paired, short-celled, run by their own parameters, and held to their committed facts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest
import yaml
from nbclient import NotebookClient
from papermill.exceptions import strip_color

from helpers.base import params
from helpers.base.files import NOTEBOOKS, PARAMS, REPORTS
from helpers.cases.claim import has_claim, read_claim
from helpers.records.study import load_study
from helpers.show.held import MIME, Held, differences
from helpers.site.status import NOT_GRIDS

pytestmark = pytest.mark.notebooks
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.py"))
LONGEST_CELL = 15
MEND = (
    "`claimbook notebook {name}` runs the script and writes both; `git checkout notebooks/{name}.py "
    "notebooks/{name}.ipynb` takes all changes back."
)


def script(name: str) -> nbformat.NotebookNode:
    return jupytext.read(NOTEBOOKS / f"{name}.py")


def committed(name: str) -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def code(notebook: nbformat.NotebookNode, tag: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def facts(notebook: nbformat.NotebookNode) -> list[dict]:
    (cell,) = code(notebook, "facts")
    return next(output.data[MIME] for output in cell.outputs if MIME in output.get("data", {}))


def skip_if_only_proposed(name: str) -> None:
    """An experiment that `claimbook new` has just written has not been run, and says so on its page."""
    claims = [read_claim(path) for path in REPORTS.glob("*.qmd") if has_claim(path)]
    if any(claim.experiment == name and claim.status == "proposed" for claim in claims):
        pytest.skip(f"{name} is only proposed: `make notebooks` runs it")


def test_there_are_notebooks() -> None:
    assert "sweep" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_script_and_notebook_are_in_sync(name: str) -> None:
    assert [(c.cell_type, c.source) for c in script(name).cells] == [
        (c.cell_type, c.source) for c in committed(name).cells
    ], f"notebooks/{name}.ipynb is not what notebooks/{name}.py says. {MEND.format(name=name)}"


def test_a_wrong_parameter_is_found_before_torch_is_imported() -> None:
    """All code up to the check of the parameters; papermill puts a cell of its own behind the tagged one."""
    checks = {}
    for name in NAMES:
        cells = [cell.source for cell in script(name).cells if cell.cell_type == "code"]
        until = next(i for i, source in enumerate(cells) if re.search(r"^p = \w*\.?read\(", source, re.MULTILINE))
        checks[name] = "\n".join([cells[0], "seed = 'one'", *cells[1 : until + 1]])
    code = f"""
import sys
for name, check in {checks!r}.items():
    try:
        exec(check, {{}})
    except Exception as error:
        print(name, type(error).__name__, *{{"torch", "transformers", "altair", "scipy"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"{name} ParameterError" for name in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_outputs_are_of_a_whole_run(name: str) -> None:
    skip_if_only_proposed(name)
    cells = [cell for cell in committed(name).cells if cell.cell_type == "code"]
    is_whole = [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    failed = any(output.output_type == "error" for cell in cells for output in cell.outputs)
    assert is_whole and not failed, f"notebooks/{name}.ipynb holds no whole run. {MEND.format(name=name)}"
    assert facts(committed(name))


@pytest.mark.parametrize("name", NAMES)
def test_no_cell_is_longer_than_a_reader_likes(name: str) -> None:
    lengths = {len(cell.source.splitlines()): cell.source for cell in script(name).cells if cell.cell_type == "code"}
    assert max(lengths) <= LONGEST_CELL + 3, lengths[max(lengths)]


@pytest.mark.parametrize("name", NAMES)
def test_the_parameters_cell_is_the_pocket_file(name: str) -> None:
    (cell,) = code(script(name), "parameters")
    values: dict = {}
    exec(cell.source, values)
    values.pop("__builtins__")
    expected = {k: _number(v) for k, v in yaml.safe_load((PARAMS / name / "pocket.yaml").read_text()).items()}
    why = f"notebooks/{name}.py sets other parameters than params/{name}/pocket.yaml. Change the file, too, or"
    assert values == expected, f"{why} `git checkout notebooks/{name}.py notebooks/{name}.ipynb`."


def _number(value: object) -> object:
    """YAML 1.1 reads 1e-4 as text; the parameter model turns it into a number."""
    if isinstance(value, list):
        return [_number(item) for item in value]
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


@pytest.mark.parametrize("name", NAMES)
def test_every_params_file_is_valid_and_its_model_is_the_one_that_the_notebook_reads(name: str) -> None:
    model = load_study(name).cell
    assert f"from {model.__module__} import {model.__name__}" in "\n".join(cell.source for cell in script(name).cells)
    files = [p for p in (PARAMS / name).glob("*.yaml") if not p.name.endswith(NOT_GRIDS)]
    assert {p.stem for p in files} >= {"pocket"}
    for path in files:
        assert params.load(model, path)


@pytest.mark.parametrize("name", NAMES)
def test_every_params_file_names_what_the_parameters_cell_assigns(name: str) -> None:
    """papermill injects a file *behind* that cell, so a name that the file leaves out keeps its pocket value."""
    grids = [p for p in (PARAMS / name).glob("*.yaml") if not p.name.endswith(NOT_GRIDS)]
    files = {p.stem: yaml.safe_load(p.read_text()) for p in grids}
    cell = set(files["pocket"])
    left_out = {
        stem: sorted(cell - named)
        for stem, file in files.items()
        for named in (set(file) | set.intersection(*map(set, file.get("blocks", [{}]))),)
    }
    assert {stem: names for stem, names in left_out.items() if names} == {}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.mark.check
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", NAMES)
def test_nbval_runs_the_committed_notebook(name: str, outputs: Path) -> None:
    """The facts are compared by the next test, from the records that this one leaves."""
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "-q", "-p", "no:cacheprovider", "-c", os.devnull]
    command += ["--rootdir", str(NOTEBOOKS), "--nbval-cell-timeout", "800", str(NOTEBOOKS / f"{name}.ipynb")]
    env = os.environ | {"CLAIMBOOK_OUTPUTS": str(outputs)}
    done = subprocess.run(command, cwd=NOTEBOOKS, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.check
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", NAMES)
def test_the_facts_are_those_committed(name: str, outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_if_only_proposed(name)
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(outputs))
    fresh = script(name)
    NotebookClient(fresh, timeout=800, kernel_name="python3", resources={"metadata": {"path": NOTEBOOKS}}).execute()
    assert differences(facts(committed(name)), facts(fresh)) == []


@pytest.mark.check
def test_papermill_with_a_misspelt_parameter_stops_and_names_the_right_one(outputs: Path) -> None:
    done = papermill("-p", "lrr", "5e-6", outputs=outputs)
    assert done.returncode != 0
    assert not list(outputs.glob("sweep/*5e-06*"))
    sentence = "ParameterError: Unknown parameter 'lrr' in the parameters of the notebook; did you mean 'lr'?"
    assert done.stderr.splitlines()[-1] == f"papermill: {sentence} (In [3] of the executed notebook has the traceback)."
    assert "Traceback" not in done.stderr and "Passed unknown parameter" not in done.stderr
    executed = nbformat.reads(done.stdout, as_version=4)
    (error,) = [one for cell in executed.cells for one in cell.get("outputs", []) if one.output_type == "error"]
    assert error.traceback[0] == sentence and sentence in strip_color(error.traceback[-1])
    assert any("check_names(" in strip_color(frame) for frame in error.traceback[1:-1])


@pytest.mark.check
@pytest.mark.timeout(900)
def test_papermill_without_an_output_path_leaves_a_complete_record(outputs: Path) -> None:
    done = papermill("-p", "lr", "5e-6", outputs=outputs)
    assert done.returncode == 0, done.stderr[-2000:]
    assert '"cells"' in done.stdout
    (path,) = outputs.glob("sweep/*lr5e-06*/run.json")
    text = path.read_text()
    assert '"status":"complete"' in text
    assert "papermill notebooks/sweep.ipynb -p lr 5e-6" in text


def papermill(*arguments: str, outputs: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(Path(sys.executable).with_name("papermill")), "notebooks/sweep.ipynb", *arguments], cwd=NOTEBOOKS.parent,
        env=os.environ | {"CLAIMBOOK_OUTPUTS": str(outputs)}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def test_facts_are_compared_under_their_own_tolerance() -> None:
    was = [{"cell": "a", "metric": "rate", "value": 0.5, "n": 32, "tolerance": 0.1}]
    assert differences(was, [{**was[0], "value": 0.59}]) == []
    assert differences(was, [{**was[0], "value": 0.61}]) == ["a, rate was 0.5 and is 0.61, further apart than 0.1"]
    assert differences(was, []) == ["a, rate is only in the committed notebook"]
    assert differences(was, [{**was[0], "value": float("nan")}]) != []


def test_facts_are_named_alike_in_a_file_that_sorts_their_keys() -> None:
    fresh = [{"organism": "full", "metric": "z", "value": 2.5, "n": 3, "tolerance": 0.3}]
    assert differences([dict(sorted(fresh[0].items()))], fresh) == []


def test_a_fact_without_tolerance_is_refused() -> None:
    import pandas as pd

    from helpers.base.errors import DataError

    with pytest.raises(DataError, match="tolerance"):
        Held(pd.DataFrame({"value": [1.0]}))

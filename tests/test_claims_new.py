from __future__ import annotations

import shutil
import subprocess

import jupytext
import nbformat
import pytest

from helpers.base.errors import ClaimError
from helpers.base.files import PARAMS, ROOT, write_text
from helpers.base.params import read
from helpers.claims import open_case
from helpers.records.study import load_study
from helpers.show.markup import unseal
from helpers.site import new, parts
from helpers.site.fallback import execute
from helpers.site.log import experiments
from helpers.site.markdown import convert
from helpers.site.new import create
from helpers.site.status import cells_of


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    shutil.copytree(PARAMS / "sweep", tmp_path / "params" / "sweep")
    return tmp_path


@pytest.mark.unit
def test_a_new_experiment_has_notebook_parameters_criteria_and_page(root):
    written = [path.relative_to(root).as_posix() for path in create("my-ablation", root=root)]
    assert written == [
        "notebooks/my_ablation.py", "notebooks/my_ablation.ipynb", "params/my_ablation/experiment.yaml",
        "params/my_ablation/pocket.yaml", "params/my_ablation/criteria.yaml", "reports/my-ablation.qmd",
    ]  # fmt: skip
    case = open_case("reports/my-ablation.qmd", root)
    assert case.verdict().word == "NOT RUN" and case.confidence().stated == "LOW"
    assert {cell.state for cell in cells_of("my_ablation", root=root)} == {"missing"}


@pytest.mark.unit
def test_the_notebook_is_paired_and_its_parameters_are_those_of_the_pocket_file(root):
    create("my-ablation", root=root)
    script, notebook = root / "notebooks/my_ablation.py", root / "notebooks/my_ablation.ipynb"
    twin = nbformat.read(notebook, as_version=4)
    nbformat.validate(twin)
    assert [cell.source for cell in twin.cells] == [cell.source for cell in jupytext.read(script).cells]
    assert twin.metadata.jupytext.formats == "ipynb,py:percent"
    [cell] = [cell for cell in twin.cells if "parameters" in cell.metadata.get("tags", [])]
    names: dict = {}
    exec(cell.source, names)
    from helpers.base.params import load
    from helpers.studies.marker.params import SweepCell

    assert read(SweepCell, names, [cell.source]) == load(SweepCell, root / "params/my_ablation/pocket.yaml")


@pytest.mark.unit
def test_what_is_written_is_in_the_style_of_the_house(root):
    ruff = shutil.which("ruff") or str(ROOT / ".venv/bin/ruff")
    create("my-ablation", root=root)
    script = (root / "notebooks/my_ablation.py").read_text()
    for command in ("check", "format --check"):
        done = subprocess.run(
            [ruff, *command.split(), "--stdin-filename", "notebooks/my_ablation.py", "-"],
            input=script, cwd=ROOT, capture_output=True, text=True,
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
    with pytest.raises(ClaimError, match=f"{taken} is there already"):
        create("twice", root=root)
    assert sorted(root.rglob("*")) == before and (root / taken).read_text() == "mine"


@pytest.mark.unit
@pytest.mark.parametrize(
    ("slug", "message"),
    [
        *((name.replace("_", "-"), "a folder of Claimbook's own") for name in sorted(new.RESERVED)),
        *((name, "is a word of Python") for name in ("class", "import", "lambda")),
        *((name, "is a Python module") for name in ("json", "random", "torch", "helpers", "concurrent")),
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
        create("a", like="swep", root=root)
    write_text(root / "params/other/experiment.yaml", "study: published_records:NOTES\n")
    with pytest.raises(ClaimError, match=r"helpers\.base\.rng has no run_cells\(p, notebook=\.\.\.\)"):
        create("a", like="other", root=root)
    (root / "params/sweep/pocket.yaml").unlink()
    with pytest.raises(ClaimError, match=r"params/sweep/pocket\.yaml is not there"):
        create("a", root=root)


@pytest.mark.unit
def test_every_part_of_a_page_works_before_anything_was_run(root):
    create("my-ablation", root=root)
    case = open_case("reports/my-ablation.qmd", root)
    assert "0 of 3 declared runs are complete; missing" in parts.coverage(case).fragment
    assert parts.limits(case).fragment.count("<li>") == 12
    for shown in (
        parts.reasons(case),
        parts.recorded(case, "All", "params."),
        parts.numbers(case, ["source_rate"], "N"),
    ):
        assert parts.NOT_RUN in shown.fragment
    assert "clean band" in parts.criteria_table(case).fragment


@pytest.mark.pages
def test_the_page_renders_before_anything_was_run(root):
    create("my-ablation", root=root)
    page = root / "reports/my-ablation.qmd"
    page.write_text(page.read_text().replace('.qmd")\n', f'.qmd", root=Path({str(root)!r}))\n'))
    page.write_text(
        page.read_text().replace(
            "from helpers.claims import", "from pathlib import Path\n\nfrom helpers.claims import", 1
        )
    )
    front, body = execute(page, "reports/my-ablation.qmd")
    html, headings = convert(unseal(body), "page")
    assert front["title"] == "My ablation" and "NOT RUN" in html and "{python}" not in html
    assert len(headings) >= 20

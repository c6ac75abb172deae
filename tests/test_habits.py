"""What a reader is told to type exists: commands of the README, the guide, CONTRIBUTING and the workflows."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
import typer
import yaml
from typer.core import TyperGroup
from typer.testing import CliRunner

from helpers.base.files import ROOT
from helpers.cli import app

pytestmark = pytest.mark.unit
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "AGENTS.md", *sorted((ROOT / "reports").glob("*.qmd"))]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
CODE = re.compile(r"^```\w*\n(.*?)^```$|^((?: {4}\S[^\n]*\n)+)|`([^`\n]+)`", re.M | re.S)


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))


def typed(text: str, program: str) -> list[str]:
    """Return what ``text`` tells its reader to type behind ``program``, comments left out."""
    lines = [line for match in CODE.finditer(text) for line in "".join(filter(None, match.groups())).splitlines()]
    matches = [re.match(rf"(?:[A-Z_]+=\S+ +)*(?:\.venv/bin/)?{program} +([^#|;&]+)", line.strip()) for line in lines]
    return [match[1].strip() for match in matches if match]


def fault(words: list[str]) -> str | None:
    """Return what is wrong with the words behind ``claimbook``: an unknown command or option."""
    command = typer.main.get_command(app)
    while words and isinstance(command, TyperGroup):
        known, name = command.commands, words.pop(0)
        if name not in known:
            return f"no command {name}"
        command = known[name]
    options = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
    unknown = [word for word in words if word.startswith("--") and word.partition("=")[0] not in options]
    return f"{command.name} has no {unknown[0]}" if unknown else None


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_make_target_and_command_of_a_text_exists(path: Path):
    text = path.read_text()
    assert {line.split()[0] for line in typed(text, "make")} <= make_targets()
    assert [why for line in typed(text, "claimbook") if (why := fault(shlex.split(line)))] == []


def test_every_path_that_agents_are_told_of_is_there():
    text = (ROOT / "AGENTS.md").read_text()
    paths = [path for path in re.findall(r"`([\w*./-]+/[\w*./-]*)`", text) if not path.startswith(".venv")]
    assert len(paths) >= 6 and [path for path in paths if not list(ROOT.glob(path.rstrip("/")))] == []
    assert len(typed(text, "claimbook")) >= 6 and len(text.splitlines()) <= 60


def test_the_texts_do_name_commands():
    readme, contributing = (path.read_text() for path in TEXTS[:2])
    assert {"report", "test", "check", "help"} <= {line.split()[0] for line in typed(readme, "make")}
    assert len(typed(readme, "claimbook")) >= 4 and len(typed(contributing, "claimbook")) >= 6


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("claimbook verify sweep/x --replay", None),
        ("claimbook ledger merge", None),
        ("claimbook ledger split", "no command split"),
        ("claimbook proof", "no command proof"),
        ("claimbook verify --repaly", "verify has no --repaly"),
    ],
)
def test_a_command_that_is_not_there_is_told(line, expected):
    (words,) = typed(f"    {line}    # why\n", "claimbook")
    assert fault(words.split()) == expected


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_runs_what_the_project_has(path: Path):
    jobs = yaml.safe_load(path.read_text())["jobs"].values()
    steps = [step for job in jobs for step in job["steps"]]
    runs = [shlex.split(step["run"], comments=True) for step in steps if "run" in step]
    assert runs and all(run[0] == "make" and set(run[1:]) <= make_targets() for run in runs)
    assert all(step["with"]["fetch-depth"] == 0 for step in steps if "checkout" in step.get("uses", ""))


def test_both_workflows_are_there():
    assert [path.name for path in WORKFLOWS] == ["site.yml", "tests.yml"]


def test_the_hooks_are_programs_of_the_environment_and_see_every_notebook():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = {hook["id"]: hook for repo in config["repos"] for hook in repo["hooks"]}
    assert set(hooks) == {"ruff-check", "ruff-format", "notebook-in-step"}
    assert all(hook["entry"].startswith(".venv/bin/") and hook["language"] == "system" for hook in hooks.values())
    done = subprocess.run(["git", "ls-files", "notebooks"], cwd=ROOT, capture_output=True, text=True, check=True)
    scripts = {name for name in done.stdout.split() if name.endswith(".py")}
    assert scripts == {name for name in done.stdout.split() if re.search(hooks["notebook-in-step"]["files"], name)}
    assert scripts


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["version"] == project["version"] and citation["license"] == project["license"]
    assert [one["name"] for one in citation["authors"]] == [one["name"] for one in project["authors"]]
    assert {"cff-version", "message", "title", "type"} <= set(citation)


def commands_of(group: TyperGroup, *names: str) -> dict[tuple[str, ...], typer.core.TyperCommand]:
    """Return the commands that do something, by the words that name them."""
    found = {}
    for name, one in group.commands.items():
        found |= commands_of(one, *names, name) if isinstance(one, TyperGroup) else {(*names, name): one}
    return found


LEAVES = commands_of(typer.main.get_command(app))


@pytest.mark.parametrize("names", LEAVES, ids=" ".join)
def test_every_command_shows_an_example_that_it_would_take(names):
    shown = CliRunner().invoke(app, [*names, "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).output
    (line,) = [line.strip() for line in shown.splitlines() if line.strip().startswith("Example: ")]
    program, *words = shlex.split(line.removeprefix("Example: "))
    assert (program, *words[: len(names)]) == ("claimbook", *names)
    LEAVES[names].make_context(" ".join(names), words[len(names) :])  # raises what click says of a wrong line
    usage = " ".join(shown.partition("\n\n")[0].split()).partition(f"{names[-1]} [OPTIONS]")[2]
    assert re.fullmatch(r"( [\[{](-- )?[A-Z]+(/ID(\|BUNDLE)?|\[/ID\])?[\]}](\.\.\.)?)*", usage), usage
    options = [one for one in LEAVES[names].params if one.param_type_name == "option"]
    assert [one.name for one in options if not one.help] == [], "an option that nobody explains"


def test_no_line_of_a_listing_is_cut():
    groups = [(), ("import",), ("export",), ("ledger",)]
    for names in groups:
        shown = CliRunner().invoke(app, [*names, "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).output
        listed = shown.partition("Options:")[2]
        assert listed.count("\n") > 5 and "..." not in listed

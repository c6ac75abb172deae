"""The walks of the guide, typed from their pages: every command and every edit, in a copy of the tree."""

from __future__ import annotations

import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from helpers.base.files import REPORTS, ROOT
from helpers.cases.placeholders import placeholders

OWN, IMPORTS = REPORTS / "guide-your-own-study.qmd", REPORTS / "guide-imports.qmd"
BLOCK = re.compile(r"^``` *\{?\.?(?P<what>[^\n]*?)\}?\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
MOST_SECONDS = 300
WORDS = ("SUPPORTED", "REFUTED", "UNDECIDED")


def blocks(text: str) -> list[tuple[dict[str, str], str]]:
    """The attributes and the text of each fenced block of a page that is a command or an edit, in page order."""
    found = [
        (dict(re.findall(r'(\w+)="([^"]*)"', one["what"])), one["what"], one["text"]) for one in BLOCK.finditer(text)
    ]
    return [(given | {"walk": "walk"} if ".walk" in what else given, body) for given, what, body in found
            if ".walk" in what or "file" in given]  # fmt: skip


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the repository with the files of this checkout, without records of this machine."""
    root = tmp_path_factory.mktemp("walk") / "claimbook"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    run(["git", "clone", "--quiet", "--shared", str(ROOT), str(root)], ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, root / name)
    run(["git", "add", "--all"], root)
    run(["git", "commit", "--quiet", "--allow-empty", "-m", "As it is"], root)
    return root


def run(command: list[str], root: Path) -> str:
    """What a command says, run in ``root`` with its own sources; a failure shows all of it."""
    names = ("AUTHOR", "COMMITTER")
    identity = {f"GIT_{name}_{key}": value for name in names for key, value in (("NAME", "A"), ("EMAIL", "a@b.c"))}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CLAIMBOOK_")}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = kept | identity | {"PYTHONPATH": str(root / "src"), "PATH": path}
    begin = time.monotonic()
    done = subprocess.run(command, cwd=root, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    print(f"{time.monotonic() - begin:6.1f} s  {shlex.join(command)}")
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def seconds() -> float:
    """Seconds of all cores that the commands have taken so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def edit(root: Path, given: dict[str, str], text: str) -> None:
    """What the page shows for a file: its whole text, a line in place of another, or lines for its placeholders."""
    path = root / given["file"]
    if "fills" in given:
        fill(path, yaml.safe_load(text))
    elif "replaces" in given:
        lines = path.read_text().splitlines(keepends=True)
        [at] = [number for number, line in enumerate(lines) if line.startswith(given["replaces"])]
        lines[at] = text
        path.write_text("".join(lines))
    else:
        path.write_text(text)


def fill(path: Path, texts: dict[str, str]) -> None:
    """Write each text where its field or section has a placeholder; none is left, and none is written in vain."""
    lines, left = path.read_text().splitlines(), dict(texts)
    for one in placeholders([path]):
        name = re.sub(r"^the section ", "", one.what).strip("'")
        field = re.match(r"( *\w+:) ", lines[one.line - 1]) if one.line < lines.index("## TL;DR") else None
        lines[one.line - 1] = f"{field[1]} {left.pop(name)}" if field else left.pop(name)
    assert left == {}
    path.write_text("\n".join(lines) + "\n")


def verdict(page: str) -> str:
    """The words on the badge of a rendered page."""
    [shown] = re.findall(r'<p class="cb-claim-badges">(.*?)</p>', page)
    return re.sub("<[^>]+>", "", shown)


@pytest.mark.unit
def test_the_walk_is_what_the_page_shows():
    text = OWN.read_text()
    edits = [(given, body) for given, body in blocks(text) if "file" in given]
    assert {Path(given["file"]).suffix for given, _ in edits} == {".py", ".yaml", ".qmd"}
    [module] = [body for given, body in edits if given["file"].startswith("src/")]
    assert 40 <= sum(bool(line.strip()) for line in module.splitlines()) <= 60
    commands = [line for given, body in blocks(text) if "walk" in given for line in body.splitlines()]
    typed = re.findall(r"^(?:claimbook|git|sed|pip|jupytext) .*", text, re.MULTILINE)
    assert commands == typed and len(commands) >= 8  # none stands in a block that is not typed
    assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len(blocks(text))  # nor an edit
    assert (
        "guide-your-own-study" in (ROOT / "README.md").read_text() and OWN.name in (REPORTS / "guide.qmd").read_text()
    )


@pytest.mark.check
@pytest.mark.timeout(3000)  # of a machine that others use as well
def test_a_study_of_ones_own_ends_in_a_judged_page(copy):
    """The pocket model stands in for SmolLM2, and its questions for the larger set."""
    before = seconds()
    text = (
        OWN.read_text().replace("smollm2", "pocket").replace("data/choices_general.jsonl", "data/pocket/choices.jsonl")
    )
    for given, body in blocks(text):
        if "walk" in given:
            said = [run(shlex.split(line), copy) for line in body.splitlines()]
        else:
            edit(copy, given, body)
    assert "1 page rendered" in said[-1]
    page = (copy / "_site/reports/option-order.html").read_text()
    assert verdict(page).startswith(WORDS) and "This page is a DRAFT" not in page
    assert "6 of 6 declared runs are complete" in re.sub("<[^>]+>", "", page)
    left = run(["claimbook", "next", "option-order"], copy)
    assert "placeholder" not in left and "cells that are missing" not in left
    status = run(["claimbook", "status", "option_order"], copy)
    assert "reports/option-order.qmd: " in status and "ad hoc" not in status and "uncommitted" not in status
    run([sys.executable, "-m", "pytest", "tests/test_option_order.py"], copy)
    assert seconds() - before < MOST_SECONDS


@pytest.mark.check
@pytest.mark.timeout(3000)
def test_three_commands_judge_a_table(copy):
    """Those of the page on imports, which are those of the README."""
    [commands] = re.findall(r"^(    claimbook import csv .*\n(?:    .*\n)+)", IMPORTS.read_text(), re.MULTILINE)
    readme = (ROOT / "README.md").read_text().replace(".venv/bin/", "")
    assert commands.replace("THRESHOLD", "0.5") in readme
    rows = pd.DataFrame({"question": [f"q{at}" for at in range(80)], "correct": [1] * 70 + [0] * 10})
    rows.to_csv(copy / "results.csv", index=False)
    lines = [line.strip() for line in commands.replace("THRESHOLD", "0.5").splitlines()]
    assert len(lines) == 3
    for line in lines:
        run(shlex.split(line), copy)
    assert verdict((copy / "_site/reports/my-claim.html").read_text()).startswith("SUPPORTED")

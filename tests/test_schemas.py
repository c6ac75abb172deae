"""JSON Schemas are those of the models, take every committed file, and refuse nothing that a reader takes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import toy_study
import yaml
from jsonschema import Draft202012Validator

from helpers.base import files, yaml_text
from helpers.base.errors import ClaimbookError, ParameterError
from helpers.base.files import PARAMS, REPORTS
from helpers.base.params import parse_grid
from helpers.cases.claim import front_matter
from helpers.claims.criteria import read_criteria
from helpers.records import ledger
from helpers.records.study import _load, load_study
from helpers.site import schemas
from helpers.site.remaining import remaining

pytestmark = pytest.mark.unit
NO_GRIDS = ("experiment.yaml", "criteria.yaml")
GRIDS = [path for path in sorted(PARAMS.glob("*/*.yaml")) if not path.name.endswith(NO_GRIDS)]
CRITERIA = sorted(PARAMS.glob("*/*criteria.yaml"))


def read(path):
    return yaml_text.read(path.read_text(), path, ParameterError)


def faults(schema, value):
    return [error.message for error in Draft202012Validator(schema).iter_errors(value)]


def test_the_committed_schemas_are_those_of_the_models_and_every_file_names_its_own():
    late = sorted(path.name for path in schemas.stale())
    assert late == [], "run `claimbook schemas`"
    wanted = schemas.contents()
    assert {*GRIDS, *CRITERIA} <= set(wanted) and len(wanted) - len(GRIDS) - len(CRITERIA) >= 8
    for path in (*GRIDS, *CRITERIA):
        first = path.read_text().splitlines()[0]
        assert first.startswith("# yaml-language-server: $schema=")
        schema = (path.parent / first.partition("$schema=")[2]).resolve()
        assert schema in wanted and schema.is_file()


def test_every_committed_file_agrees_with_its_schema():
    assert len(GRIDS) > 20 and len(CRITERIA) > 5
    for path in GRIDS:
        assert faults(schemas.grid_schema(load_study(path.parent.name).cell), read(path)) == [], path
    for path in CRITERIA:
        assert faults(schemas.criteria_schema(), read(path)) == [], path
    for path in REPORTS.glob("[!_]*.qmd"):
        assert faults(schemas.page_schema(), front_matter(path).value) == [], path


@pytest.mark.parametrize(
    "changes", [{"lrr": 1e-4}, {"lr": []}, {"lr": "fast"}, {"epochs": True}, {"lr": {"a": 1}}, {"blocks": []},
                {"blocks": [{"nosuch": 1}]}, {"blocks": 3}, {"tail": "nosuch"}, {"seed": None}],
)  # fmt: skip
def test_a_grid_that_the_schema_refuses_the_reader_refuses_too(changes):
    model, value = load_study("sweep").cell, read(PARAMS / "sweep/pocket.yaml") | changes
    assert faults(schemas.grid_schema(model), value) != []
    with pytest.raises(ParameterError):
        parse_grid(model, value, "here")


@pytest.mark.parametrize(
    "changes", [{"nosuch": 1}, {"version": 0}, {"version": "one"}, {"metrics": {}}, {"questions": {}}, {"looks": 99},
                {"metrics": {"a": 3}}, {"questions": {"q": {"question": "?"}}}, {"controls": {"c": {"when": "a"}}}],
)  # fmt: skip
def test_criteria_that_the_schema_refuses_the_reader_refuses_too(changes, tmp_path):
    value = read(CRITERIA[-1]) | changes
    (tmp_path / "criteria.yaml").write_text(yaml.safe_dump(value))
    assert faults(schemas.criteria_schema(), value) != []
    with pytest.raises(ClaimbookError):
        read_criteria(tmp_path / "criteria.yaml")


HEAD = "# yaml-language-server: $schema=../../schemas/params-coins.json\n"
GRID = "bias: [0.7, 0.9]\nseed: [0, 1]\n"


@pytest.fixture
def coins(tmp_path, monkeypatch):
    root = toy_study.project(tmp_path, monkeypatch)
    return root, root / "params/coins/grid.yaml"


@pytest.mark.parametrize("before", ["", HEAD, HEAD.replace("coins", "other"), "# A comment.\n", "\n", "# é\n"])
def test_a_file_gets_one_line_and_its_hash_stays(coins, before):
    root, grid = coins
    grid.write_text(before + GRID)
    was = files.content_hash(grid)
    assert (grid in schemas.write(root)) == (before != HEAD)
    kept = before.removeprefix(before if before.startswith("# yaml") else "")
    assert grid.read_text() == HEAD + kept + GRID and files.content_hash(grid) == was
    assert schemas.write(root) == [], "a second time nothing is left to write"


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfseed: 0\n", "seed: 0\n".encode("utf-16"), b"seed: 0 # \xe9\n"])
def test_a_file_in_another_encoding_is_left_readable(coins, content):
    root, grid = coins
    grid.write_bytes(content)
    schemas.write(root)
    assert grid.read_bytes() in (content, HEAD.encode() + content)
    assert grid.read_bytes() == content or not content.startswith(schemas.MARKS)


def test_criteria_and_grids_of_the_ledger_have_the_hashes_that_it_holds():
    """The line came after they were registered; a study whose criteria were amended stands with its last hash."""
    book, seen = ledger.read(), 0
    for kind in ("criteria", "grid"):
        for name, line in book.standing(kind).items():
            path = files.ROOT / name
            assert path.read_bytes().startswith(b"# yaml-language-server: ") and files.sha256_file(path) != line.sha256
            assert files.content_hash(path) == line.sha256, name
            seen += 1
    assert seen > 8


FORGED = {
    "a value": lambda text: text.replace("0.9", "0.8"),
    "a comment": lambda text: text + "# more\n",
    "a second such line": lambda text: text.replace(HEAD, HEAD + HEAD),
    "a line further down": lambda text: text.replace("seed", f"{HEAD}seed"),
    "content behind a carriage return": lambda text: text.replace(".json\n", ".json\rflips: 9\n"),
    "content behind a next line": lambda text: text.replace(".json\n", ".json\x85flips: 9\n"),
    "content behind a line separator": lambda text: text.replace(".json\n", ".json\u2028flips: 9\n"),
    "content in the line's place": lambda text: text.replace(HEAD, "flips: 9 # yaml-language-server: x\n"),
    "a key before the mark": lambda text: text.replace("# yaml", "flips: 9 # yaml"),
    "the mark in a document of its own": lambda text: text.replace(HEAD, f"---\nflips: 9\n---\n{HEAD}"),
    "indented": lambda text: " " + text,
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_a_change_behind_the_line_is_still_found(coins, forged):
    _, grid = coins
    grid.write_text(HEAD + GRID)
    was, text = files.content_hash(grid), grid.read_text()
    changed = forged(text)
    assert changed != text
    grid.write_text(changed, newline="")
    assert files.content_hash(grid) != was


def test_the_line_is_content_in_a_file_that_is_no_yaml(tmp_path):
    hashes = set()
    for text in (HEAD, ""):
        (tmp_path / "data.txt").write_text(f"{text}a\n")
        hashes.add(files.content_hash(tmp_path / "data.txt"))
    assert len(hashes) == 2


def test_next_names_the_command_once_a_cell_has_changed(coins, monkeypatch):
    root, _ = coins
    commands = lambda: [step.command for step in remaining("coins", root)]  # noqa: E731
    assert "claimbook schemas" in commands()
    schemas.write(root)
    assert "claimbook schemas" not in commands()

    class Longer(toy_study.CoinCell):
        more: int = 0

    monkeypatch.setattr(toy_study, "COINS", replace(toy_study.COINS, cell=Longer))
    _load.cache_clear()
    assert "claimbook schemas" in commands()
    monkeypatch.undo()
    _load.cache_clear()

"""claims.json: what it says is what the pages say, in a form that its JSON Schema describes."""

from __future__ import annotations

import json

import pytest
from toy_study import CoinCell, commit, project, run_cells
from typer.testing import CliRunner

from helpers.audit import publishing
from helpers.audit.register import register
from helpers.base import files
from helpers.base.errors import ExportError
from helpers.base.params import load
from helpers.cases.case import open_case
from helpers.cli import app
from helpers.export import claims, places
from helpers.records import ledger

pytestmark = pytest.mark.unit


@pytest.fixture
def house(tmp_path, monkeypatch):
    """The coins, registered, run, published and committed."""
    root = project(tmp_path / "house", monkeypatch)
    register([root / "reports/coins.qmd"], root=root)
    run_cells(load(CoinCell, root / "params/coins/grid.yaml"))
    publishing.publish("coins")
    commit(root)
    return root


def exported(*arguments: str):
    return CliRunner().invoke(app, ["export", "claims", *arguments])


def test_the_schema_in_the_tree_is_that_of_the_model():
    shown = exported("--schema").output
    assert shown == claims.SCHEMA_FILE.read_text(encoding="utf-8"), (
        "run `claimbook export claims --schema > src/helpers/export/claims.schema.json`"
    )
    assert "$schema" in json.loads(shown) and json.loads(shown)["additionalProperties"] is False


def test_a_claim_states_what_its_case_says(house):
    case = open_case("reports/coins.qmd", house)
    [stated] = claims.claims_of([case]).claims
    assert (stated.verdict, stated.outcome, stated.reading) == ("SUPPORTED", "they do", case.verdict().brief)
    assert stated.confidence.stated == case.confidence().stated
    assert [row.allows for row in stated.confidence.checklist] == [row.allows for row in case.confidence().rows]
    assert {one.cell for one in stated.numbers} == {"bias=0.7", "bias=0.9"}
    for one in stated.numbers:
        fact = case.fact(one.metric, bias=float(one.cell.removeprefix("bias=")))
        assert (one.value, one.low, one.high, one.n, one.k) == (fact.value, fact.low, fact.high, fact.n, fact.k)
    assert stated.criteria.registered == ledger.read().standing("criteria")[case.claim.criteria].at
    assert stated.remake == ["claimbook sweep params/coins/grid.yaml", "claimbook site coins"]
    heads = {name: files.sha256_file(files.published_root() / name / "run.json") for name in stated.records}
    assert heads == stated.records and len(heads) == 6  # four cells, two baselines
    assert [one.name for one in stated.requires.models] == ["mint"]
    assert stated.requires.data == {"data/mint.txt": files.content_hash(house / "data/mint.txt")}


def test_what_is_not_claimed_names_seeds_sizes_and_the_caveats_of_the_page(house):
    page = house / "reports/coins.qmd"
    items = "- One mint,\n  and [no other]{.literal}.\n- `{python} x` coins.\n"
    page.write_text(f"{page.read_text()}\n## Detailed report\n\n### Standing caveats\n\n{items}")
    [stated] = claims.claims_of([open_case(page, house)]).claims
    assert stated.does_not_claim[-1] == "One mint, and no other."
    assert any(line.startswith("seeds: 2 seeds") for line in stated.does_not_claim)
    assert not any("coins." in line for line in stated.does_not_claim)


def test_the_file_is_what_the_model_reads_and_it_replaces_only_its_own(house, tmp_path, monkeypatch):
    out = tmp_path / "out/claims.json"
    monkeypatch.setattr(claims, "chosen", lambda names, root: ([open_case("reports/coins.qmd", house)], []))
    for _ in range(2):
        done = exported("--out", str(out))
        assert done.exit_code == 0 and done.output.splitlines()[-1].startswith(f"{out} holds 1 claims.")
    assert claims.Claims.model_validate_json(out.read_text()).ledger == ledger.read().head
    for taken in ("{}", "no JSON", '{"schema": "claimbook/bundle/1"}', "[" * 100_000):
        out.write_text(taken)
        done = exported("--out", str(out))
        assert done.exit_code == 1 and "was not made by this command" in done.output
        assert out.read_text() == taken
    assert exported("--out", str(tmp_path)).exit_code == 1
    (tmp_path / "file").write_text("")
    assert "is in the way" in exported("--out", str(tmp_path / "file/claims.json")).output


def test_drafts_are_left_out_and_refused_by_name(house):
    draft = house / "reports/draft.qmd"
    draft.write_text((house / "reports/coins.qmd").read_text().replace("coins\n  slug: coins", "draft\n  slug: draft")
                     .replace("Do they?", "PLACEHOLDER"))  # fmt: skip
    cases, drafts = claims.chosen([], house)
    assert ([case.claim.id for case in cases], [one.name for one in drafts]) == (["coins"], ["reports/draft.qmd"])
    with pytest.raises(ExportError, match=r"reports/draft.qmd is a draft"):
        claims.chosen(["draft"], house)
    with pytest.raises(ExportError, match=r"no page of a claim 'coin'; did you mean 'coins'"):
        claims.chosen(["coin"], house)


@pytest.mark.parametrize("content", [{"a.txt": "x"}, {places.MARK: "{}"}, {places.MARK: '{"schema": "claimbook/b/1"}'}])
def test_a_folder_of_somebody_else_is_never_replaced(tmp_path, content):
    target = tmp_path / "out"
    for name, text in content.items():
        files.write_text(target / name, text)
    with pytest.raises(ExportError, match="did not make"), places.folder(target, "claimbook/a/1", {}):
        raise AssertionError("nothing is written")
    assert {path.name: path.read_text() for path in target.iterdir()} == content


def test_a_folder_is_whole_or_as_it_was(tmp_path):
    target = tmp_path / "out"
    for text in ("first", "second"):
        with places.folder(target, "claimbook/a/1", {"text": text}) as new:
            files.write_text(new / f"{text}.txt", text)
        assert {path.name for path in target.iterdir()} == {places.MARK, f"{text}.txt"}
    with pytest.raises(ZeroDivisionError), places.folder(target, "claimbook/a/1", {}) as new:
        files.write_text(new / "half.txt", "")
        raise ZeroDivisionError
    assert (target / "second.txt").is_file() and [path.name for path in tmp_path.iterdir()] == ["out"]
    link = tmp_path / "link"
    link.symlink_to(target)
    with pytest.raises(ExportError, match="is no folder"), places.folder(link, "claimbook/a/1", {}):
        pass

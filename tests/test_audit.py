"""Verify and replay: every kind of lie about a published record ends in a finding that names record and field."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from html import unescape

import pandas as pd
import pytest
import toy_study
from toy_study import CoinCell, commit, project, run_cells
from typer.testing import CliRunner

from helpers import cli
from helpers.audit import kept, publishing
from helpers.audit import verify as checking
from helpers.audit.agreement import same_kind
from helpers.audit.register import register
from helpers.audit.replay import compare, enter, replay, replayable
from helpers.audit.verify import verify
from helpers.base import files
from helpers.base.errors import ClaimError, RecordError
from helpers.base.params import load
from helpers.cases import changed, open_case
from helpers.records import derive, ledger, study
from helpers.records import reading as records
from helpers.site import header
from helpers.site import lint as linting
from helpers.site.lint import lint
from helpers.system import provenance

pytestmark = pytest.mark.unit


@pytest.fixture
def house(tmp_path, monkeypatch):
    """Everything registered, run, published and committed."""
    root = project(tmp_path / "house", monkeypatch)
    register([root / "reports/coins.qmd"], root=root)
    run_cells(load(CoinCell, files.PARAMS / "coins" / "grid.yaml"))
    publishing.publish("coins")
    commit(root)
    return root


def findings(root, refs=None) -> str:
    return "\n".join(map(str, verify(refs, root)))


def published(root, number: int = 0):
    return sorted((root / "published/coins").iterdir())[number]


def edit(folder, change) -> None:
    """Change run.json with a text editor that keeps its form."""
    content = json.loads((folder / "run.json").read_text())
    change(content)
    files.write_json(folder / "run.json", content)


def mend_table(folder, change) -> None:
    """Change a table, and make its hash in run.json agree."""
    frame = change(pd.read_parquet(folder / "flips.parquet"))
    frame.to_parquet(folder / "flips.parquet", index=False)
    edit(folder, lambda c: c["files"].update({"flips.parquet": files.sha256_file(folder / "flips.parquet")}))


def all_heads(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(heads=True)


def test_what_was_registered_run_and_published_has_no_findings(house):
    assert findings(house) == ""
    events = [(line.event, line.kind) for line in ledger.read().lines]
    asked = [("registered", kind) for kind in ("criteria", "grid", "question", "statement", "code", "comparison")]
    assert events == [*asked, *[("published", "record")] * 6, ("looked", "question"), ("registered", "judgement")]


def looks() -> list[str]:
    return [line.note for line in ledger.read().lines if line.event == "looked"]


def test_rows_of_a_declared_grid_are_published_as_they_end_and_looked_at_once(tmp_path, monkeypatch):
    root = project(tmp_path / "house", monkeypatch)
    register([root / "reports/coins.qmd"], root=root)
    cells = list(load(CoinCell, files.PARAMS / "coins" / "grid.yaml"))
    for cell in cells:
        run_cells([cell])
        publishing.publish("coins")
    assert len(looks()) == 1 and len(cells) > 3
    grid = files.PARAMS / "coins" / "grid.yaml"
    files.write_text(grid, grid.read_text().replace("seed: [0, 1]", "seed: [0, 1, 7]"))
    register([root / "reports/coins.qmd"], reason="more seeds", root=root)
    run_cells(load(CoinCell, grid))
    publishing.publish("coins")
    assert [note.split(",")[0] for note in looks()] == ["look 1 of coins", "look 2 of coins"]


LIES = {
    "a metric": (lambda c: c["metrics"]["heads_rate"].update(value=0.99, high=1.0), r"heads_rate.value: is 0.99"),
    "k": (lambda c: c["metrics"]["heads_rate"].update(k=49), r"metrics.heads_rate.k: is 49"),
    "n": (lambda c: c["metrics"]["heads_rate"].update(n=5000), r"metrics.heads_rate.n: is 5000"),
    "an interval": (lambda c: c["metrics"]["heads_rate"].update(low=0.6), r"metrics.heads_rate.low"),
    "a unit": (lambda c: c["metrics"]["gain"].update(unit="percent"), r"metrics.gain.unit"),
    "a metric that no table gives": (
        lambda c: c["metrics"].update(luck=dict(c["metrics"]["gain"])), r"metrics.luck: does not follow"
    ),
    "a metric that no run measures": (
        lambda c: c["metrics"].update(luck=c["metrics"]["gain"] | {"measured": True}), r"metrics.luck: does not follow"
    ),
    "a metric left out": (lambda c: c["metrics"].pop("gain"), r"metrics.gain: .* is missing"),
    "a metric called measured": (
        lambda c: c["metrics"]["heads_rate"].update(value=0.99, high=1.0, measured=True), r"heads_rate"
    ),
    "a parameter": (lambda c: (c["params"].update(bias=0.5), c["cell"].update(bias=0.5)), r"id: does not end in"),
    "the seed": (lambda c: (c["params"].update(seed=7), c["cell"].update(seed=7)), r"id: does not end in"),
    "the seed in the cell": (lambda c: c["cell"].update(seed=7), r"cell.seed: is 7"),
    "an axis that is no parameter": (
        lambda c: c["cell"].update(mint="gold"), r"cell.mint: is 'gold', but .* give nothing of that name"
    ),
    "the device": (lambda c: c["params"].update(device="cuda"), r"params.device: is 'cuda', but the environment"),
    "the device of the model": (lambda c: c["model"].update(device="cuda:0"), r"model.device: is 'cuda:0', but"),
    "the dtype": (lambda c: c["params"].update(dtype="bfloat16"), r"params.dtype: is 'bfloat16', but .* 'float32'"),
    "the model": (lambda c: c["model"].update(sha256="d" * 64), r"id: does not end in"),
    "the files of the model": (
        lambda c: c["model"].update(files={"weights.safetensors": "d" * 64}), r"model.files: are not those"
    ),
    "the data": (lambda c: c["data"].update({"data/mint.txt": "d" * 64}), r"id: does not end in"),
    "an input": (lambda c: c["inputs"].update(base="coins_base/other"), r"inputs.base: There is no run record"),
    "the version": (lambda c: c.update(version=2), r"id: does not end in"),
    "the study": (lambda c: c.update(study="coin"), r"study: There is no study 'coin'"),
    "the time": (lambda c: c.update(started="2020-01-01T00:00:00+00:00"), r"run.json: is not what was"),
    "the seconds": (lambda c: c["seconds"].update(total=1e6), r"run.json: is not what was"),
    "the packages": (lambda c: c["environment"]["packages"].update(torch="9.9"), r"run.json: is not what was"),
    "the commit": (lambda c: c["provenance"].update(commit="0" * 40, dirty=False), r"run.json: is not what was"),
    "an unknown key": (lambda c: c.update(colour="red"), r"run.json: .* colour: Extra inputs"),
    "k above n": (lambda c: c["metrics"]["heads_rate"].update(k=51), r"counts k = 51 of n = 50"),
    "swapped ends": (
        lambda c: c["metrics"]["heads_rate"].update(low=0.9, high=0.1), r"interval from 0.9 to 0.1"
    ),
    "an end before the start": (lambda c: c.update(ended="2020-01-01T00:00:00+00:00"), r"ended before it started"),
    "a status": (lambda c: c.update(status="running"), r"run.json: .*is running, but"),
    "another id": (lambda c: c.update(id="b0.9-s1-0123456789ab"), r"names another record than"),
    "another notebook": (lambda c: c.update(notebook="coins_base"), r"names another record than"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_changed_field_is_found(house, lie):
    change, message = LIES[lie]
    folder = published(house)
    edit(folder, change)
    assert re.search(message, findings(house)), findings(house)
    assert f"coins/{folder.name}" in findings(house)


@pytest.mark.parametrize(
    ("notebook", "axis", "value"),
    [
        ("sweep", "negatives", "all"), ("length_ablation", "negatives", "asst_included"),
        ("latentwire", "model", "smollm2+smollm2"), ("triangulation_training", "seed", 9),
        ("on_policy", "personas", "villain"), ("broad_text", "model", "pocket"), ("sweep", "negatives", None),
    ],
)  # fmt: skip
def test_an_axis_that_stands_for_a_list_or_another_name_follows_from_the_parameters(
    tmp_path, monkeypatch, notebook, axis, value
):
    record = next(records.published(notebook))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path))
    folder = tmp_path / record.ref
    shutil.copytree(record.path, folder)
    assert f"cell.{axis}" not in findings(files.ROOT, [record.ref])
    edit(folder, lambda c: c["cell"].pop(axis) if value is None else c["cell"].update({axis: value}))
    assert f"{record.ref}: cell.{axis}: is {value!r}, but the run's parameters give" in findings(
        files.ROOT, [record.ref]
    )


@pytest.mark.parametrize(
    "module", ["records/derive", "records/reading", "records/run_record", "stats/intervals", "studies/marker/metrics"]
)
def test_what_lint_derived_is_kept_only_while_all_code_that_derives_is_the_same(tmp_path, monkeypatch, module):
    record = next(records.published("sweep"))
    its_study = study.find_study(record.study)
    shutil.copytree(files.ROOT / "src/helpers", tmp_path / "src/helpers", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(files, "ROOT", tmp_path)
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(record.path.parent.parent))
    made = []
    monkeypatch.setattr(kept, "derive", lambda record, study: made.append(record) or {})
    monkeypatch.setattr(kept.derive, "__module__", "helpers.records.derive", raising=False)
    for tail, times in (("", 1), ("", 1), ("\n# a comment\n", 1), ("\nX = 1\n", 2)):
        path = tmp_path / f"src/helpers/{module}.py"
        path.write_text(path.read_text() + tail)
        kept.Kept().derive(record, its_study)
        assert len(made) == times, tail


def test_json_that_says_a_thing_twice_or_is_no_number_is_unreadable_and_stops_nothing(house):
    text = (published(house) / "run.json").read_text()
    (published(house) / "run.json").write_text(text.replace('"seed":0', '"seed":0,"seed":1', 1))
    (published(house, 1) / "run.json").write_text(text.replace('"total"', '"total":NaN,"x"', 1))
    (published(house, 2) / "run.json").write_text(text[:-40])
    shown = findings(house)
    assert "given twice" in shown and "NaN is not a JSON number" in shown
    found = records.table("coins")
    assert sorted(found.status) == ["complete", "unreadable", "unreadable", "unreadable"]


def test_a_changed_table_is_found_with_and_without_its_hash(house):
    all_heads(pd.read_parquet(published(house) / "flips.parquet")).to_parquet(published(house) / "flips.parquet")
    mend_table(published(house, 1), all_heads)
    shown = findings(house)
    assert re.search(rf"{published(house).name}: files.flips.parquet: .*was changed", shown)
    assert re.search(rf"{published(house, 1).name}: metrics.heads_rate.k: is \d+, but the tables give 50", shown)


def test_a_file_beside_a_record_is_found(house):
    (published(house) / "adapter.bin").write_bytes(b"x")
    assert "files.adapter.bin: is no file of this record" in findings(house)


@pytest.mark.parametrize("name", ["steps/flips.json", "steps/flips.parquet", "link", ".hidden"])
def test_no_file_and_no_link_can_be_hidden_in_a_published_record(house, name):
    place = published(house) / name
    place.parent.mkdir(exist_ok=True)
    shutil.copy(next((house / "outputs/coins").glob("b*/steps/flips.json")), place)
    if name == "link":
        place.unlink()
        place.symlink_to(house / "data")
    assert f"{published(house).name}: files.{name}: is no file of this record" in findings(house)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("flips", lambda m: m["files"].update({"flips.parquet": "0" * 64})), ("other", lambda m: None),
        ("flips", lambda m: m.update(more=1)), ("flips", lambda m: m.update(files={})),
        ("flips", lambda m: m.pop("name")),
    ],
)  # fmt: skip
def test_only_manifests_of_a_record_s_own_files_lie_under_its_steps(house, name, change):
    (folder,) = (house / "outputs/coins").glob("b0.7-s0*")
    shutil.rmtree(house / "published")
    ref = f"coins/{folder.name}"
    assert f"{ref}: files" not in findings(house, [ref])
    manifest = json.loads((folder / "steps/flips.json").read_text())
    change(manifest)
    files.write_json(folder / f"steps/{name}.json", manifest)
    assert f"{ref}: files.steps/{name}.json: is no file of this record" in findings(house, [ref])


@pytest.mark.parametrize("name", ["notes.txt", "coins/extra.parquet", "judged/other.json", ".hidden/run.json"])
def test_files_among_the_published_records_that_belong_to_none_are_found(house, name):
    files.write_text(house / "published" / name, "{}")
    assert f"published/{name}: files: belongs to no record" in findings(house)


def test_verify_reads_the_ledger_once_for_all_records(house, monkeypatch):
    monkeypatch.setattr(files, "CLOCK_NS", 0)  # it was written just now
    texts, text = [], ledger._text
    monkeypatch.setattr(ledger, "_text", lambda place: texts.append(place) or text(place))
    assert findings(house) == "" and len(texts) == 1


@pytest.mark.parametrize("name", ["run.json", "flips.parquet"])
def test_a_byte_changed_after_all_was_read_is_found_although_size_and_time_are_as_before(house, name, monkeypatch):
    monkeypatch.setattr(files, "CLOCK_NS", 0)  # what was written just now may be kept
    assert findings(house) == "" and not [one for one in lint(house) if one.rule in ("record", "ledger")]
    path = published(house) / name
    before, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert path.parent.name in findings(house)
    assert any(path.parent.name in one.message for one in lint(house))


def test_lint_proves_a_record_once_however_many_pages_rest_on_it(house, monkeypatch):
    page = (house / "reports/coins.qmd").read_text()
    files.write_text(house / "reports/again.qmd", page.replace(": coins\n  slug: coins", ": again\n  slug: again"))
    proved, real = [], linting.verify_folder
    monkeypatch.setattr(linting, "verify_folder", lambda folder, *given: proved.append(folder) or real(folder, *given))
    shown = lint(house)
    assert {"reports/coins.qmd", "reports/again.qmd"} <= {one.path for one in shown}, "both are read"
    assert len(proved) == 6 and set(proved) == {*(house / "published").glob("coins*/*")}


def test_what_lies_in_the_outputs_does_not_stand_for_what_was_published(house):
    case = open_case("reports/coins.qmd", house)
    (ours,) = (house / "outputs/coins").glob("b0.7-s0*")
    mend_table(ours, all_heads)
    edit(ours, lambda c: c["metrics"]["heads_rate"].update(value=1.0, k=50, low=0.9, high=1.0))
    ref = f"coins/{ours.name}"
    assert records.load(ref).published and records.load(ref).metric("heads_rate")["value"] < 1
    assert {one.id: one.published for one in records.records("coins")}[ours.name]
    again = open_case("reports/coins.qmd", house)
    assert again.fact("heads_rate", bias=0.7).value == case.fact("heads_rate", bias=0.7).value
    (base,) = (house / "outputs/coins_base").glob("*" + records.load(ref).inputs["base"][-12:])
    mend_table(base, all_heads)
    assert findings(house) == "" and derive.derive(records.load(ref))["gain"] == records.load(ref).metric("gain")


def test_a_table_that_was_changed_by_a_commit_is_found_however_the_ledger_explains_it(house):
    folder = published(house)
    ref, was = f"coins/{folder.name}", ledger.read().standing("record")[f"coins/{folder.name}"].sha256
    mend_table(folder, all_heads)
    again = derive.derive(records.Record(folder, records.load(ref).content, published=True))
    edit(folder, lambda c: c.update(metrics=again | {"memory": c["metrics"]["memory"]}))
    event = {"event": "derived", "kind": "record", "name": ref, "was": was}
    ledger.append([event | {"sha256": files.sha256_file(folder / "run.json")}])
    register([house / "reports/coins.qmd"], root=house)
    shown = "Metrics of 1 records were derived again on"
    assert shown in unescape(header.proof(open_case("reports/coins.qmd", house)).fragment)
    assert findings(house) == f"{ref}: metrics_version: is 1, but the ledger says derived 1 times."
    commit(house)
    assert re.search(rf"{ref}: files.flips.parquet: was changed in commit [0-9a-f]+, after it", findings(house))


def test_a_registered_claim_does_not_vanish(house):
    (house / "reports/coins.qmd").rename(house / "reports/_coins.qmd")
    assert "reports/coins.qmd: question: was registered on" in findings(house)
    assert any("reports/coins.qmd" in one.message for one in lint(house))


def test_a_claim_of_which_nothing_is_registered_says_so(tmp_path, monkeypatch):
    root = project(tmp_path / "house", monkeypatch)
    path = root / "reports/coins.qmd"
    path.write_text(path.read_text().replace("status: published", "status: proposed"))
    run_cells(load(CoinCell, files.PARAMS / "coins" / "grid.yaml"))
    publishing.publish("coins")
    said = "Nothing of this claim is registered"
    assert said in header.proof(open_case(path, root)).fragment
    register([path], root=root)
    assert said not in header.proof(open_case(path, root)).fragment


def test_records_that_were_deleted_or_added_are_found(house):
    gone, kept = published(house), published(house, 1)
    shutil.rmtree(gone)
    assert f"coins/{gone.name}: ledger: was published and is missing" in findings(house)
    shutil.copytree(kept, kept.with_name("b0.7-s9-0123456789ab"))
    edit(kept.with_name("b0.7-s9-0123456789ab"), lambda c: c.update(id="b0.7-s9-0123456789ab"))
    shown = findings(house)
    assert "b0.7-s9-0123456789ab: id: does not end in" in shown
    assert "b0.7-s9-0123456789ab: ledger: does not stand in the ledger" in shown


def test_a_record_of_another_cell_renamed_to_fit_is_found(house):
    one, other = published(house), published(house, 3)
    name = one.name
    shutil.rmtree(one)
    shutil.copytree(other, one)
    cell = {"bias": 0.7, "seed": 0}
    edit(one, lambda c: (c.update(id=name), c["params"].update(cell), c["cell"].update(cell)))
    shown = findings(house)
    assert f"coins/{name}: run.json: is not what was published" in shown
    assert f"coins/{name}: id: does not end in" in shown, "its inputs are those of another seed"


def test_a_record_made_consistent_throughout_is_found_by_its_replay(house):
    folder = published(house)
    mend_table(folder, all_heads)
    edit(
        folder,
        lambda c: c.update(
            metrics=derive.derive(records.Record(folder, c, published=True)) | {"memory": c["metrics"]["memory"]}
        ),
    )
    ref = f"coins/{folder.name}"
    assert findings(house, [ref]) == "", "by itself it cannot be told from a true one"
    assert f"{ref}: run.json: is not what was published" in findings(house)
    sha = files.sha256_file(folder / "run.json")
    line = {"kind": "record", "name": ref, "sha256": sha}
    with pytest.raises(RecordError, match="stands already"):
        ledger.append([line | {"event": "published"}])
    was = ledger.read().standing("record")[ref].sha256
    ledger.append([line | {"event": "withdrawn", "sha256": was, "reason": "a slip"}, line | {"event": "published"}])
    assert "reports/coins.qmd: judgement: of these published records is not in the ledger" in findings(house)
    register([house / "reports/coins.qmd"], root=house)
    assert findings(house) == "", "published again, which the page says"
    assert f"Withdrawn on {ledger.now()[:10]}: {ref}. a slip" in unescape(
        header.proof(open_case("reports/coins.qmd", house)).fragment
    )
    shutil.rmtree(house / "outputs")
    [result] = [one for one in replay([ref]) if one.record.ref == ref]
    assert (result.outcome, result.why) == ("different", "flips.heads")


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("params/coins/criteria.yaml", "> 0.5", "> 0.2"),
        ("params/coins/criteria.yaml", "verdict: REFUTED", "verdict: MIXED"),
        ("params/coins/grid.yaml", "seed: [0, 1]", "seed: [1]"),
        ("reports/coins.qmd", "  primary: fair", "  primary: fair\n  scope: {bias: 0.9}"),
    ],
)
def test_criteria_grid_and_question_may_change_only_with_a_line_and_its_reason(house, name, old, new):
    path = house / name
    path.write_text(path.read_text().replace(old, new))
    assert re.search(rf"{name}: \w+: was changed after", findings(house))
    with pytest.raises(ClaimError, match="--reason"):
        register([house / "reports/coins.qmd"], root=house)
    line, anew = register([house / "reports/coins.qmd"], "a slip", root=house)
    assert (anew.event, anew.kind) == ("registered", "judgement"), "by the new criteria"
    assert (line.event, line.reason, line.name) == ("amended", "a slip", name) and line.was != line.sha256
    assert findings(house) == ""
    commit(house)
    assert findings(house) == ""


def test_prose_is_no_part_of_what_is_registered(house):
    path = house / "reports/coins.qmd"
    path.write_text(path.read_text().replace("Prose.", "Other prose.").replace("title: Coins", "title: Heads"))
    assert findings(house) == ""


def test_a_forged_ledger_line_is_found_by_the_chain_and_by_git(house):
    path = house / "params/coins/criteria.yaml"
    path.write_text(path.read_text().replace("> 0.5", "> 0.2"))
    old, new = ledger.read().of("criteria", "params/coins/criteria.yaml")[0].sha256, files.content_hash(path)
    text = ledger.path().read_text()
    ledger.path().write_text(text.replace(old, new))
    assert "ledger: chain: " in findings(house)
    lines = [{k: v for k, v in json.loads(row).items() if k not in ("at", "before")} for row in text.splitlines()]
    ledger.path().unlink()
    ledger.append(line | ({"sha256": new} if line["sha256"] == old else {}) for line in lines)
    assert "ledger: history: lines of the ledger were changed, removed" in findings(house)


def test_data_and_code_that_changed_since(house, monkeypatch):
    (house / "data/mint.txt").write_text("another mint\n")
    assert "data: has changed since the run" in findings(house)
    (house / "data/mint.txt").write_bytes(b"a mint\r\n")
    files._content_hash.cache_clear()
    assert findings(house) == ""
    (house / "src/helpers/base/rng.py").write_text("x = 1\n")
    assert findings(house) == "", "code is provenance: a replay says whether it matters"


def test_a_changed_estimator_without_a_raised_version_is_found_and_a_raised_one_derives_again(house, monkeypatch):
    def more(cell, tables, inputs):
        found = toy_study.metrics(cell, tables, inputs)
        return found | {"gain": found["gain"] | {"value": found["gain"]["value"] * 2 + 1}}

    def become(changed):
        monkeypatch.setattr(toy_study, "COINS", changed)
        study._load.cache_clear()

    become(replace(toy_study.COINS, metrics=more))
    assert "metrics.gain.value" in findings(house)
    become(replace(toy_study.COINS, metrics=more, metrics_version=2))
    assert "Run `claimbook derive`" in findings(house)
    before = records.records("coins")[0].metric("gain")["value"]
    assert (
        len(publishing.derive_again(records.records("coins"))) == 4
        and publishing.derive_again(records.records("coins")) == []
    )
    assert records.records("coins")[0].metric("gain")["value"] == before * 2 + 1
    assert records.records("coins")[0].metric("memory")["value"] == 1.0, "what was measured stays"
    assert findings(house) == ""
    assert [line.event for line in ledger.read().lines[-5:]] == ["derived"] * 4 + ["registered"]
    assert {records.made_here(record.ref).metrics_version for record in records.records("coins")} == {2}
    study._load.cache_clear()


def test_a_raised_version_makes_exactly_that_study_stale(house, monkeypatch):
    monkeypatch.setattr(toy_study, "COINS", replace(toy_study.COINS, version=2))
    study._load.cache_clear()
    changes = changed.Changes()
    assert {tuple(changes.of(record)) for record in records.records("coins")} == {("version",)}
    assert {tuple(changes.of(record)) for record in records.records("coins_base")} == {()}
    monkeypatch.undo()
    study._load.cache_clear()


def test_withdrawn_records_are_gone_with_a_reason(house):
    ref, base = f"coins/{published(house).name}", records.load(f"coins/{published(house).name}").inputs["base"]
    with pytest.raises(RecordError, match="was used by coins/"):
        publishing.withdraw(base, "a wrong mint")
    publishing.withdraw(ref, "a wrong mint")
    assert findings(house) == "" and not (house / "published" / ref).exists()
    assert [(one.kind, one.reason) for one in ledger.read().lines[-2:]] == [
        ("record", "a wrong mint"), ("judgement", None)
    ]  # fmt: skip
    with pytest.raises(RecordError, match="no published record"):
        publishing.withdraw(ref, "again")


def test_replays_are_equal_to_the_last_bit_but_for_what_was_measured(house):
    shutil.rmtree(house / "outputs")
    results = list(replay(replayable()))
    assert [(one.outcome, one.why) for one in results] == [("equal", "")] * 6
    assert len({one.record.ref for one in results}) == 6, "each input once"
    assert not (house / "outputs").exists()
    for one in results:
        enter(one)
    assert {line.note for line in ledger.read().lines[-6:]} == {"equal to the last bit; not compared: flips.seconds"}
    shown = unescape(header.proof(open_case("reports/coins.qmd", house)).fragment)
    assert f"4 of 4 records were run again (last on {ledger.now()[:10]}), 4 equal to the last bit." in shown
    assert findings(house) == ""


def test_a_replay_fails_the_command_and_is_remembered_when_code_gives_another_number(house, monkeypatch):
    ref = f"coins/{published(house).name}"
    flip = toy_study.flip
    monkeypatch.setattr(toy_study, "flip", lambda bias, p: all_heads(flip(bias, p)))
    done = CliRunner().invoke(cli.app, ["verify", ref, "--replay"])
    assert done.exit_code == 1 and f"{ref}: different: flips.heads; not compared: flips.seconds" in done.stdout
    monkeypatch.setattr(toy_study, "flip", flip)
    assert CliRunner().invoke(cli.app, ["verify", ref, "--replay"]).exit_code == 0
    shown = header.proof(open_case("reports/coins.qmd", house)).fragment
    assert "1 of 4 records were run again" in shown and "1 equal to the last bit. 1 came out different." in shown


@pytest.mark.parametrize("what", ["metrics.gain.value", "metrics.more", "finish_reasons"])
def test_equal_tables_do_not_hide_another_number(house, what):
    ref = f"coins/{published(house).name}"
    other = records.load(ref)
    again = records.Record(other.path, json.loads(json.dumps(other.content)), published=True)
    assert compare(other, again).outcome == "equal"
    again.metrics["memory"]["value"] = 7.0
    assert compare(other, again).outcome == "equal", "measured"
    if what == "finish_reasons":
        again.content["finish_reasons"] = {"length": 3}
    else:
        again.metrics[what.split(".")[1]] = again.metrics["gain"] | {"value": 0.123}
    assert (compare(other, again).outcome, compare(other, again).why.startswith(what)) == ("different", True)


def test_a_replay_that_differs_is_excused_only_on_another_machine(house, monkeypatch):
    ref = f"coins/{published(house).name}"

    def one_flip_less(bias, p):
        frame = flip(bias, p)
        return frame.assign(heads=[not frame["heads"][0], *frame["heads"][1:]])

    flip = toy_study.flip
    monkeypatch.setattr(toy_study, "flip", one_flip_less)
    assert [one.outcome for one in replay([ref])] == ["different", "different"]
    here = provenance.environment_of_arithmetic()
    monkeypatch.setattr(provenance, "environment_of_arithmetic", lambda: here | {"instruction_sets": ["sse4_2"]})
    outcomes = {one.record.study: one for one in replay([ref])}
    assert outcomes["coins_base"].outcome == "within tolerance", "it states no metrics"
    assert outcomes["coins"].outcome == "different" and "metrics gain" in outcomes["coins"].why
    monkeypatch.setattr(toy_study, "COINS", replace(toy_study.COINS, tolerance=1.0))
    study._load.cache_clear()
    assert {one.outcome for one in replay([ref])} == {"within tolerance"}, "a rate may move within its own interval"
    monkeypatch.setattr(toy_study, "flip", lambda bias, p: all_heads(flip(bias, p)))
    assert "different" in {one.outcome for one in replay([ref])}, "but not out of it"
    monkeypatch.undo()
    study._load.cache_clear()


def test_a_record_that_does_not_know_its_instruction_sets_is_of_another_kind(house):
    record = records.records("coins")[0]
    assert same_kind(record)
    record.content["environment"]["hardware"].pop("instruction_sets")
    assert not same_kind(record)


def test_a_page_says_what_was_registered_after_its_runs(house, tmp_path, monkeypatch):
    assert "Registered on" not in header.proof(open_case("reports/coins.qmd", house)).fragment
    late = project(tmp_path / "late", monkeypatch)
    run_cells(load(CoinCell, files.PARAMS / "coins" / "grid.yaml"))
    monkeypatch.setattr(ledger, "now", lambda: "2999-01-01T00:00:00+00:00")
    register([late / "reports/coins.qmd"], root=late)
    publishing.publish("coins")
    shown = unescape(header.proof(open_case("reports/coins.qmd", late)).fragment)
    names = (
        "params/coins/criteria.yaml, params/coins/grid.yaml, reports/coins.qmd, the statement of reports/coins.qmd, "
    )
    names += "the code that judges by params/coins/criteria.yaml, "
    names += "how replays are compared with the study of params/coins/experiment.yaml"
    assert f"Registered on 2999-01-01, when 4 of 4 records had begun: {names}." in shown


def test_a_record_that_others_used_names_one_whose_replay_makes_it_again(house):
    [base] = {record.inputs["base"] for record in records.published() if record.cell.get("seed") == 0 and record.inputs}
    with pytest.raises(
        RecordError, match=rf"{base} cannot be replayed by itself\. Replay coins/b0.7-s0-.*, which used it"
    ):
        list(replay([base]))


def test_processes_that_share_the_records_find_what_one_finds(tmp_path, monkeypatch):
    refs = ["baseline/" + path.name for path in sorted((files.published_root() / "baseline").iterdir())[:3]]
    for ref in refs:
        shutil.copytree(files.published_root() / ref, tmp_path / ref)
    edit(tmp_path / refs[1], lambda content: content["metrics"]["capability"].update(value=0.123))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path))
    alone = verify(refs)
    assert [finding.field for finding in alone if finding.field.startswith("metrics")] == ["metrics.capability.value"]
    monkeypatch.setattr(checking, "SHARE", 1)
    monkeypatch.setattr(checking, "verify_folder", lambda folder: pytest.fail("checked in this process"))
    assert verify(refs, processes=2) == alone

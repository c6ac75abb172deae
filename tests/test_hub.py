"""Whatever is read from a hub is read at a commit, and the record names it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import httpx2
import huggingface_hub
import pandas as pd
import pytest
import test_actdiff_study as lens
import test_marker_cell as marker
from latentwire_fixture import params as wire_params

from helpers.base.errors import DataError, ModelError
from helpers.base.files import DATA
from helpers.base.params import parse
from helpers.lm import hub, models
from helpers.records import runs
from helpers.studies.actdiff import cell as lens_cell
from helpers.studies.actdiff.params import LensCell
from helpers.studies.latentwire import cell as wire_cell
from helpers.studies.latentwire import data
from helpers.studies.marker import choices
from helpers.studies.marker.baseline import baseline_record
from helpers.studies.marker.session import Session

pytestmark = pytest.mark.unit

ARC_ROW = {"id": "q", "question": "Q?", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B"}
NEWEST = "newest00"


class Hub:
    """A hub whose newest commit is ``NEWEST``, and which has any other revision under a commit named after it."""

    def __init__(self, root: Path) -> None:
        self.root, self.asked = root, []

    def __call__(self, repo: str, *, repo_type: str, revision: str | None, allow_patterns, ignore_patterns) -> str:
        self.asked.append((repo, revision))
        folder = self.root / repo / "snapshots" / (f"{revision}0000" if revision else NEWEST)
        if repo_type == "model":
            shutil.copytree(DATA / "pocket", folder, dirs_exist_ok=True)
        else:
            for pattern in allow_patterns:
                rows = [ARC_ROW] * 4 if "ARC" in pattern else squad(pattern)
                (folder / pattern).parent.mkdir(parents=True, exist_ok=True)
                pd.DataFrame(rows).to_parquet(folder / pattern)
        return str(folder)


def squad(split: str) -> list[dict]:
    """Questions as the hub has them, a row each."""
    answer = {"text": ["Lisbon"], "answer_start": [12]}
    return [{"id": f"{split}-{i}", "context": f"Ada lives in Lisbon, {i}.", "question": "Where?", "answers": answer}
            for i in range(20)]  # fmt: skip


@pytest.fixture
def there(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    made = Hub(tmp_path / "hub")
    monkeypatch.setattr(hub, "snapshot_download", made)
    hub.snapshot.cache_clear()
    yield made
    hub.snapshot.cache_clear()


@pytest.mark.parametrize(("asked", "commit"), [("", NEWEST), ("@v1", "v10000")])
def test_a_model_is_read_at_a_commit_and_its_facts_name_it(there, asked, commit):
    found = models.facts(f"somebody/model{asked}")
    assert (found["source"], found["revision"]) == ("somebody/model", commit)
    loaded = models.load("somebody/model", revision=asked.removeprefix("@") or None)
    assert loaded.revision == commit and loaded.sha256 == found["sha256"]
    assert there.asked == [("somebody/model", asked.removeprefix("@") or None)], "fetched once"


def test_two_revisions_of_one_model_are_refused(there):
    with pytest.raises(ModelError, match="name two revisions"):
        models.facts("somebody/model@v1", revision="v2")
    assert models.facts("somebody/model@v1", revision="v1")["revision"] == "v10000"


@pytest.mark.parametrize(("name", "commit"), [("arc", NEWEST), ("arc@v1", "v10000")])
def test_arc_is_read_at_a_commit_that_the_records_name(there, name, commit):
    assert (
        choices.read_choices(name, 2)
        == [{"question": "Q?", "labels": ["A", "B"], "choices": ["x", "y"], "answer": "B"}] * 2
    )
    p = marker.params(capability=name)
    record = baseline_record(p, Session(p))
    assert record.params["capability"] == name and record.params["capability_revision"] == commit
    [(file, _)] = record.data.items()
    assert commit in file
    assert len(record.table("capability")) == 4
    assert {repo for repo, _ in there.asked} == {"allenai/ai2_arc"} and len(there.asked) == 1


def test_a_local_set_names_no_commit(there):
    assert choices.source("general") == (DATA / "choices_general.jsonl", {}) and there.asked == []


@pytest.mark.parametrize(("asked", "commit"), [("", NEWEST), ("rajpurkar/squad@v1", "v10000")])
def test_squad_is_read_at_a_commit_that_every_record_names(there, asked, commit):
    both = {"model_a": "pocket", "model_b": "pocket"}  # which can spell any text
    p = wire_params(data="squad", squad_train=asked, squad_validation=asked, train_samples=16, **both)
    (record,) = wire_cell.run_cells([p])
    for one in (record, *map(runs.load, record.inputs.values())):
        assert {one.params[f"squad_{split}_revision"] for split in data.SPLITS} == {commit}
        assert len(one.data) == 2 and all(commit in file for file in one.data)
    assert record.params["squad_train"] == asked
    assert len(there.asked) == 2, "each file once"


def test_a_local_squad_names_no_commit_and_asks_no_hub(there, tmp_path):
    local = tmp_path / "own.json"
    p = wire_params(data="squad", squad_train=str(local), squad_validation=str(local))
    assert data.revisions(p) == {} and data.files(p) == [local, local] and there.asked == []
    assert data.revisions(wire_params()) == {} and data.files(wire_params()) == []


@pytest.mark.parametrize(("asked", "commit"), [("", NEWEST), ("@v1", "v10000")])
def test_a_fine_tune_of_the_hub_is_named_with_its_commit(there, asked, commit):
    name = f"somebody/tuned{asked}"
    p = LensCell(model=str(DATA / "pocket"), organism="given", tuned=name, **lens.SMALL)
    ready = lens_cell._ready_organism(p, lens_cell.Session(p))
    found = lens_cell._params(p, ready)
    assert found["tuned"] == name and found["tuned_revision"] == commit
    assert found["tuned_sha256"] == models.fingerprint("pocket")["sha256"]


def test_a_file_that_the_revision_does_not_have_is_one_sentence(there, monkeypatch):
    monkeypatch.setattr(there, "root", there.root / "empty")
    monkeypatch.setattr(hub, "snapshot_download", lambda repo, **_: str(there.root / "snapshots" / "abc"))
    with pytest.raises(DataError, match=r"allenai/ai2_arc has no file .* at abc"):
        choices.source("arc")


@pytest.mark.parametrize("error", [httpx2.ReadError("cut off"), ConnectionError("offline"), FileNotFoundError("x")])
@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (lambda: models.facts("somebody/model@v1"), ModelError),
        (lambda: choices.source("arc@v1"), DataError),
        (lambda: data.files(parse(type(wire_params()), {"data": "squad", "squad_train": "rajpurkar/squad@v1"}, "")),
         DataError),
    ],
)  # fmt: skip
def test_a_hub_out_of_reach_is_one_sentence_with_the_revision(there, monkeypatch, read, kind, error):
    def refused(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(hub, "snapshot_download", refused)
    with pytest.raises(kind, match=rf"at revision v1 is not a local .* \({type(error).__name__}\).*give a local copy"):
        read()


@pytest.mark.parametrize(
    "proxy", ["socks5://127.0.0.1:1", "socks5h://127.0.0.1:1", "socks4://127.0.0.1:1", "socks://x:1"]
)
@pytest.mark.parametrize(("kind", "error"), [("model", ModelError), ("dataset", DataError)])
def test_a_proxy_that_the_client_does_not_speak_is_one_sentence(proxy, kind, error, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy)
        monkeypatch.setenv(name.lower(), proxy)
    monkeypatch.setitem(sys.modules, "socksio", None)
    hub.snapshot.cache_clear()
    huggingface_hub.close_session()
    with pytest.raises(
        error, match=r"owner/name cannot be fetched through this machine's proxy \(.*\)\. Set HTTPS_PROXY"
    ):
        hub.snapshot("owner/name", None, ("*.json",), kind)
    huggingface_hub.close_session()

"""Names from records, stores and command lines: one plain file name each, or a refusal that touches nothing."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from claims_records import record

from helpers import files, questions, records, runs
from helpers.actdiff.pair import local_tuned
from helpers.claims.overview import records_used
from helpers.claims.status import cells_of
from helpers.errors import ClaimbookError, RecordError, SweepError
from helpers.site.completions import all_records
from helpers.steps import Steps
from helpers.sweeps.store import Store
from helpers.sweeps.watch import Watch

pytestmark = pytest.mark.unit

BAD = ["../kept", "../../kept", "{root}/kept", "a/b", "a/../kept", "", ".", "..", ".kept", "\0", "a\nb", "n" * 5000]
BAD += ["a b", "a\\b", "~", "ä", "\u202ekept", "kept\n"]
TWO = ["../kept/x", "{root}/kept", "toy/../kept", "toy/../../kept", "toy", "toy/", "/toy", "", "toy/\0", "toy/x/y"]
NAMES = pytest.mark.parametrize("name", BAD, ids=lambda name: ascii(name)[:20])
REFS = pytest.mark.parametrize("ref", TWO, ids=lambda ref: ascii(ref)[:20])


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with records, and beside them files that no record may reach."""
    for folder in ("kept", "outputs/kept", "outputs/published/kept", "outputs/toy"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "diary.txt").write_text(folder)
        (tmp_path / folder / "x.json").write_text("{}")
    monkeypatch.setattr(files, "ROOT", tmp_path)
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "outputs/published"))
    return tmp_path


def plant(ref: str = "toy/run", at: Path | None = None, **changes: Any) -> Path:
    """A record with a table in ``outputs/<ref>``, or at another place; ``changes`` replaces entries of its run.json."""
    notebook, name = ref.split("/")
    folder = at or files.outputs_root() / ref
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"x": [1]}).to_parquet(folder / "rates.parquet")
    listed = {"rates.parquet": files.sha256_file(folder / "rates.parquet")}
    made = record({"lr": 0.1}, name=name, notebook=notebook, tables=["rates"], files=listed)
    (folder / "run.json").write_text(json.dumps(made.content | changes))
    return folder


def everything(root: Path) -> dict[str, bytes | str]:
    found: dict[str, bytes | str] = {}
    for path in sorted(root.rglob("*")):
        kind = f"-> {path.readlink()}" if path.is_symlink() else path.read_bytes() if path.is_file() else "folder"
        found[path.relative_to(root).as_posix()] = kind
    return found


def refused(root: Path, call: Callable[[], Any]) -> str:
    """The one sentence that ``call`` is refused with; nothing below ``root`` may differ afterwards."""
    before = everything(root)
    with pytest.raises(ClaimbookError) as caught:
        call()
    assert everything(root) == before
    sentence = str(caught.value)
    assert "\n" not in sentence and "\0" not in sentence and len(sentence) < 800
    return sentence


def test_plain_names_are_admitted():
    for name in ("run-1", "pocket-villain-lr0.0001-ep1-s0-3e1e1cb8d573", "_x", "a" * 200, "run.json"):
        assert files.plain_name(name) == name
    for name in [*BAD, "a" * 201, None, 3]:
        with pytest.raises(RecordError, match="is not a plain file name"):
            files.plain_name(name)


def test_a_folder_of_records_may_be_a_link_but_nothing_in_it(root):
    plant()
    (root / "elsewhere").symlink_to(root / "outputs")
    assert files.inside(root / "elsewhere", "toy", "run").samefile(root / "outputs/toy/run")
    (root / "outputs/toy/link").symlink_to(root / "outputs/toy/run")
    (root / "outputs/round").symlink_to("round")
    for names in (("toy", "link"), ("toy", "link", "run.json"), ("round",)):
        refused(root, lambda names=names: files.inside(root / "outputs", *names))


@NAMES
@pytest.mark.parametrize("key", ["id", "notebook"])
def test_a_record_that_names_another_place_is_refused_by_everything_that_lists_records(root, key, name):
    folder = plant(**{key: name.format(root=root)})
    (root / "params/toy").mkdir(parents=True)
    calls = [
        lambda: records.read(folder),
        lambda: runs.load("toy/run"),
        lambda: runs.load(folder),
        lambda: runs.records("toy"),
        lambda: runs.table("toy"),
        lambda: runs.publish("toy"),
        lambda: list(all_records()),
        lambda: cells_of("toy", root=root),
        lambda: Watch("toy", [], {}).look(),
    ]
    for call in calls:
        assert "names another record than toy/run" in refused(root, call)


@pytest.mark.parametrize(("key", "name"), [("id", "other"), ("notebook", "kept")])
def test_a_plain_name_of_another_folder_is_refused_too(root, key, name):
    plant(**{key: name})
    plant("kept/run")
    plant("toy/other")
    assert "names another record" in refused(root, lambda: runs.publish("toy"))


@NAMES
def test_a_notebook_of_no_plain_name_has_no_records(root, name):
    name = name.format(root=root)
    for call in (runs.records, runs.table, runs.publish, lambda name: Watch(name, [], {})):
        assert "not a plain file name" in refused(root, lambda call=call: call(name))


@REFS
def test_a_record_that_used_what_is_no_record_is_refused(root, ref):
    plant("kept/x")
    plant(inputs={"baseline": ref.format(root=root)})
    made = runs.load("toy/run")
    store = Store(f"file://{root}/store")
    case = SimpleNamespace(records=[made])
    for call in (lambda: runs.publish("toy"), lambda: store.push(made), lambda: records_used([case])):
        assert "used a record that cannot be read" in refused(root, call)
    assert not local_tuned(root / "nothing", "sha")


@NAMES
def test_a_record_with_a_file_elsewhere_is_refused(root, name):
    name = name.format(root=root)
    kept = files.sha256_file(root / "kept/diary.txt")
    for file in (name, f"adapter/{name}", f"{name}/diary.txt"):
        plant(files={file: kept}, tables=[name, name.removesuffix(".parquet")])
        made = runs.load("toy/run")
        for call in (made.checked, lambda _, made=made: Store(f"file://{root}/store").push(made)):
            refused(root, lambda call=call, file=file: call(file))
        if "/" not in file:
            refused(root, lambda: runs.publish("toy"))
    plant(tables=[name], files={f"{name}.parquet": kept})
    refused(root, lambda: runs.load("toy/run").table(name))


def test_a_table_that_no_file_holds_is_refused(root):
    plant(tables=["rates", "gone"])
    assert "has no file 'gone.parquet'" in refused(root, lambda: runs.load("toy/run").table("gone"))


@pytest.mark.parametrize(
    "path", ["../kept/diary.txt", "{root}/kept/x", "params/../kept", "\0", "n" * 5000, "a/" * 3000]
)
def test_criteria_and_data_lie_in_the_checkout(root, path):
    path = path.format(root=root)
    made = records.Record(root, record({}).content | {"criteria": {"path": path, "sha256": "0"}}, published=False)
    assert "is not a path below" in refused(root, lambda: questions.criteria_now(made))
    if not path.startswith("/"):  # data outside of the checkout is named by its place
        made = records.Record(root, record({}).content | {"data": {path: "0"}}, published=False)
        refused(root, lambda: records.question_now(made))


@pytest.mark.parametrize("path", ["/nothing\0", "~nobody-of-this-name/x", "/" + "n" * 5000, "~/\n"])
def test_data_outside_that_cannot_be_there_is_not_there(root, path):
    made = records.Record(root, record({}).content | {"data": {path: "0" * 64}}, published=False)
    assert records.question_now(made)["data"] == questions.hash_of_data({path: "0" * 64})


@pytest.mark.parametrize("entry", ["/etc/passwd", "{root}/kept/x", "..kept", "helpers.\0", "", "n" * 5000])
def test_code_is_looked_for_among_the_sources_only(root, entry):
    (root / "kept/x.py").write_text("import helpers")
    code = {"entry": entry.format(root=root), "files": {}}
    made = records.Record(root, record({}).content | {"code": code}, published=False)
    assert records.question_now(made)["code"] is None


def test_links_in_the_place_of_records_are_refused(root):
    outside = plant(at=root / "kept/run")
    (root / "outputs/toy/run").symlink_to(outside)
    for call in (
        lambda: runs.records("toy"), lambda: runs.load("toy/run"), lambda: runs.load(root / "outputs/toy/run"),
        lambda: runs.publish("toy"), lambda: records.read(root / "outputs/toy/run"),
        lambda: Watch("toy", [], {}).look(), lambda: runs.Run("toy", "run", {}, wait=False),
    ):  # fmt: skip
        assert "symbolic link" in refused(root, call)
    (root / "outputs/toy/run").unlink()
    plant()
    for file in ("rates.parquet", "run.json"):
        path = root / "outputs/toy/run" / file
        path.unlink()
        path.symlink_to(outside / file)
        refused(root, lambda: runs.publish("toy"))
        refused(root, lambda: runs.load("toy/run").table("rates"))
        refused(root, lambda: Store(f"file://{root}/store").push(runs.load("toy/run")))


def test_a_notebook_folder_that_is_a_link_is_refused(root):
    plant(at=root / "kept/toy/run")
    (root / "outputs/linked").symlink_to(root / "kept/toy")
    for call in (
        lambda: runs.records("linked"), lambda: runs.load("linked/run"), lambda: Watch("linked", [], {}),
        lambda: runs.Run("linked", "new", {}, wait=False),
    ):  # fmt: skip
        assert "symbolic link" in refused(root, call)


@pytest.mark.parametrize("link", ["outputs/published/toy", "outputs/published/toy/run"])
def test_publishing_does_not_follow_links(root, link):
    plant()
    plant(at=root / "kept/run")
    (root / link).parent.mkdir(exist_ok=True)
    (root / link).symlink_to(root / "kept")
    assert "symbolic link" in refused(root, lambda: runs.publish("toy"))


def test_a_half_that_is_a_link_is_refused(root):
    (root / "outputs/toy/.partial-new").symlink_to(root / "kept")
    assert "symbolic link" in refused(root, lambda: runs.Run("toy", "new", {}, wait=False))
    assert "symbolic link" in refused(root, lambda: runs.table("toy"))


@pytest.mark.parametrize("link", ["steps", "work.json", "adapter", ".adapter.tmp"])
def test_a_run_does_not_follow_links(root, link):
    path = root / "outputs/toy/.partial-new" / link
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(root / "kept")

    def work() -> None:
        steps = Steps(root / "outputs/toy/.partial-new", "toy/new")
        steps.folder("adapter", lambda folder: (folder / "w.safetensors").write_bytes(b""), 0.0)
        steps.value("work", dict)

    before = everything(root / "kept")
    with pytest.raises(RecordError, match="symbolic link"):
        work()
    assert everything(root / "kept") == before


@NAMES
def test_a_half_that_names_files_elsewhere_is_refused(root, name):
    half = root / "outputs/toy/.partial-new"
    (half / "steps").mkdir(parents=True)
    name = "a//b" if name == "a/b" else name  # a step may write into a folder of its own
    manifest = {"name": "work", "kind": "one", "seconds": 0.0, "files": {name.format(root=root): "0"}}
    (half / "steps/work.json").write_text(json.dumps(manifest))
    assert "not a plain file name" in refused(root, lambda: Steps(half, "toy/new").value("work", dict))
    refused(root, lambda: Steps(half, "toy/new").value(name, dict))


def head(name: str = "run", notebook: str = "toy", **changes: Any) -> bytes:
    return json.dumps(record({"lr": 0.1}, name=name, notebook=notebook).content | changes).encode()


@pytest.mark.parametrize("scheme", ["memory", "file"])
@NAMES
def test_nothing_from_a_store_is_written_outside_of_its_record(root, name, scheme):
    name = name.format(root=root)
    store = Store(f"memory://{secrets.token_hex(4)}/x" if scheme == "memory" else f"file://{root}/store")
    sha = files.sha256_bytes(b"x")
    store.write(f"files/{sha[:2]}/{sha}", b"x")
    hostile = [head(id=name), head(notebook=name), head(inputs={"b": name}), head(inputs={"b": f"toy/{name}"})]
    file = "a//b" if name == "a/b" else name  # a record may hold folders
    hostile += [head(files={file: sha}), head(files={f"adapter/{file}": sha}), head(files={"x.json": name}), b"[]", b""]
    (root / "outputs/toy/.run.lock").touch()  # a refusal may leave it behind
    for content in hostile:
        store.write("toy/run.json", content)
        assert "delete " in refused(root / "outputs", lambda: store.fetch("toy/run"))
        refused(root / "kept", lambda: Store(store.url).bring("toy", lambda _: True))
    for ref in (name, f"toy/{name}", f"{name}/x"):
        refused(root, lambda ref=ref: store.fetch(ref))


def test_records_that_used_each_other_are_refused(root):
    store = Store(f"file://{root}/store")
    store.write("toy/a.json", head("a", inputs={"b": "toy/b"}))
    store.write("toy/b.json", head("b", inputs={"a": "toy/a"}))
    with pytest.raises(SweepError, match="used itself"):
        store.fetch("toy/a")
    plant("toy/a", inputs={"b": "toy/b"})
    plant("toy/b", inputs={"a": "toy/a"})
    with pytest.raises(RecordError, match="used itself"):
        Store(f"file://{root}/other").push(runs.load("toy/a"))

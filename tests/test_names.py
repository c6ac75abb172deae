"""Names from records, stores and command lines: one plain file name each, or a refusal that touches nothing.

What ``run.json`` may not hold makes its record unreadable: nothing takes it for a record, and no other one suffers.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from claims_records import record

from helpers.audit import publishing
from helpers.base import files
from helpers.base.errors import ClaimbookError, RecordError, SweepError
from helpers.cases import changed
from helpers.records import reading as records
from helpers.records import run_record, runs
from helpers.records.steps import Steps
from helpers.records.study import Study
from helpers.site.completions import all_records
from helpers.site.overview import records_used
from helpers.site.status import cells_of
from helpers.studies.actdiff.pair import tuned_folder, tuned_record
from helpers.sweeps.store import Store
from helpers.sweeps.watch import Watch
from helpers.system import source

pytestmark = pytest.mark.unit

BAD = ["../kept", "../../kept", "{root}/kept", "a/b", "a/../kept", "", ".", "..", ".kept", "\0", "a\nb", "n" * 5000]
BAD += ["a b", "a\\b", "~", "ä", "\u202ekept", "kept\n"]
TOY = Study("toy", 1, 1, lambda *_: {}, entry="helpers.base.rng")
SHA = "0" * 64
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
    pd.DataFrame({"x": [1]}).to_parquet(folder / "completions.parquet")
    listed = {"completions.parquet": files.sha256_file(folder / "completions.parquet")}
    made = record({"lr": 0.1}, name=name, notebook=notebook, files=listed)
    (folder / "run.json").write_text(json.dumps(made.content | changes))
    return folder


@pytest.fixture
def coins(root: Path) -> Callable[..., records.Record]:
    """Records of a study that the checkout has, not read from a file: what they hold was checked by nothing."""
    files.write_text(root / "params/coins/experiment.yaml", "study: toy_study:COINS\n")
    return lambda **changes: records.Record(root, record({}, study="coins").content | changes, published=False)


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


def unreadable(root: Path, folder: Path) -> str:
    """The one sentence that says why the record in ``folder`` is unreadable; a good one beside it must not notice."""
    good = plant("toy/good")
    for call in (lambda: records.read(folder), lambda: runs.load("toy/run"), lambda: runs.load(folder)):
        refused(root, call)
    before, watch = everything(root), Watch("toy", [], {})
    watch.look()
    [shown] = [one for one in runs.records("toy", status=None) if one.status == "unreadable"]
    assert (shown.path, shown.ref) == (folder, "toy/run")
    listed = [one.path for one in all_records() if one.notebook == "toy"]
    assert [one.path for one in runs.records("toy")] == listed == [good]
    assert sorted(runs.table("toy").status) == ["complete", "unreadable"]
    [row] = [one for one in cells_of("toy", root=root) if one.state != "ad hoc"]
    assert (row.grid, row.cell, row.state, row.why) == ("outputs/toy", "run", "unreadable", (shown.error,))
    assert everything(root) == before
    published = root / "outputs/published"
    assert publishing.publish("toy") == [published / "toy/good"]
    expected = {"toy", "toy/good", "toy/good/run.json", "toy/good/completions.parquet", "ledger.jsonl"}
    new = {f"outputs/published/{name}" for name in expected} | {"outputs/.ledger.lock"}
    assert set(everything(root)) - set(before) == new
    assert {name: everything(root)[name] for name in before} == before
    for file in (published / "ledger.jsonl", root / "outputs/.ledger.lock"):
        file.unlink()
    for place in (published / "toy", good):
        shutil.rmtree(place)
    assert shown.error.isprintable() and len(shown.error) < 800
    return shown.error


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
def test_a_record_that_names_another_place_is_a_record_of_nothing(root, key, name):
    folder = plant(**{key: name.format(root=root)})
    assert f"{key}: must be one plain name" in unreadable(root, folder)


@pytest.mark.parametrize(("key", "name"), [("id", "other"), ("notebook", "kept")])
def test_a_plain_name_of_another_folder_is_refused_too(root, key, name):
    folder = plant(**{key: name})
    plant("toy/run", at=root / "outputs/kept/run")
    assert "names another record than toy/run" in unreadable(root, folder)
    shutil.rmtree(folder)
    assert "names another record than kept/run" in refused(root, lambda: runs.load("kept/run"))


@NAMES
def test_a_notebook_of_no_plain_name_has_no_records(root, name):
    name = name.format(root=root)
    for call in (runs.records, runs.table, publishing.publish, lambda name: Watch(name, [], {})):
        assert "not a plain file name" in refused(root, lambda call=call: call(name))


@REFS
def test_a_record_that_used_what_is_no_record_is_refused(root, ref):
    ref = ref.format(root=root)
    plant("kept/x", at=root / "outputs/kept/x")
    folder = plant(inputs={"baseline": ref})
    content = json.loads((folder / "run.json").read_text())
    assert "inputs.baseline: must be" in unreadable(root, folder)
    made = records.Record(folder, content, published=False)
    plant("toy/user", inputs={"baseline": "toy/gone"})
    for used in (made, runs.load("toy/user")):
        case, store = SimpleNamespace(records=[used]), Store(f"file://{root}/store")
        for call in (lambda: store.push(used), lambda: records_used([case])):  # noqa: B023
            assert "used a record that cannot be read" in refused(root, call)
    assert "used a record that cannot be read" in refused(root, lambda: publishing.publish("toy"))


@pytest.mark.parametrize("ref", [*TWO, "n" * 5000], ids=lambda ref: ascii(ref)[:20])
def test_a_fine_tune_is_a_record_by_its_plain_name_only(root, ref):
    plant("kept/x", at=root / "kept/x")
    before = everything(root)
    try:
        assert tuned_record(ref.format(root=root), SHA) is None
    except RecordError as error:
        assert ref == "../kept/x" and "is not a plain file name" in str(error)
    assert everything(root) == before and tuned_folder(root / "nothing") is None
    plant()
    assert tuned_record("toy/run", SHA).ref == "toy/run"


@NAMES
def test_a_record_with_a_file_elsewhere_is_refused(root, name):
    name = "a//b" if name == "a/b" else name.format(root=root)  # a record may hold folders
    kept = files.sha256_file(root / "kept/diary.txt")
    for file in (name, f"adapter/{name}", f"{name}/diary.txt", f"{name}.parquet"):
        if all(map(run_record.NAME.fullmatch, file.split("/"))):
            continue  # "..parquet" begins with a point, but "a b.parquet" does not become plain
        folder = plant(files={file: kept})
        made = records.Record(folder, json.loads((folder / "run.json").read_text()), published=False)
        assert "must be plain names joined by '/'" in unreadable(root, folder)
        table = file.removesuffix(".parquet")
        for call in (made.checked, lambda _: Store(f"file://{root}/store").push(made)):  # noqa: B023
            refused(root, lambda call=call, file=file: call(file))
        with pytest.raises(RecordError):
            made.table(table)


@pytest.mark.parametrize("file", ["gone.parquet", "adapter/gone.parquet"])
def test_a_file_that_is_not_there_is_refused(root, file):
    plant(files={file: SHA})
    made = runs.load("toy/run")
    for call in (lambda: made.checked(file), lambda: Store(f"file://{root}/store").push(made)):
        assert f"{file} is missing" in refused(root, call)
    assert ("has no table" if "/" in file else "is missing") in refused(root, lambda: made.table("gone"))
    if "/" not in file:
        assert f"{file} is missing" in refused(root, lambda: publishing.publish("toy"))


@pytest.mark.parametrize(
    "path", ["../kept/diary.txt", "{root}/kept/x", "params/../kept", "\0", "n" * 5000, "a/" * 3000]
)
def test_criteria_and_data_lie_in_the_checkout(coins, root, path):
    path = path.format(root=root)
    criteria, data = {"path": path, "sha256": SHA}, {path: SHA}
    assert "criteria.path: must be a path" in unreadable(root, plant(criteria=criteria))
    assert changed.criteria_now(coins(criteria=criteria)) is None
    if not path.startswith("/"):  # data outside of the checkout is named by its place
        assert ": must be a path" in unreadable(root, plant(data=data))
        assert changed.Changes().of(coins(data=data)) == ["data"]


def test_links_in_the_place_of_criteria_and_data_are_not_followed(coins, root):
    secret = root / "kept/diary.txt"
    for link, target in (("criteria.yaml", secret), ("texts", secret.parent)):
        (root / link).symlink_to(target)
    sha = files.content_hash(secret)
    for path in ("criteria.yaml", "texts/diary.txt"):
        made = coins(criteria={"path": path, "sha256": sha}, data={path: sha})
        assert changed.criteria_now(made) is None and changed.Changes().of(made) == ["data"]
    made = coins(criteria={"path": "kept/diary.txt", "sha256": sha}, data={"kept/diary.txt": sha})
    assert changed.criteria_now(made) == sha and changed.Changes().of(made) == []


@pytest.mark.parametrize("path", ["/nothing\0", "~nobody-of-this-name/x", "/" + "n" * 5000, "~/\n"])
def test_data_outside_that_cannot_be_there_is_not_there(coins, root, path):
    assert changed.Changes().of(coins(data={path: SHA})) == []
    if path.startswith("~nobody"):
        plant(data={path: SHA})
        assert runs.load("toy/run").data == {path: SHA}
    else:
        assert "must be a path" in unreadable(root, plant(data={path: SHA}))


@pytest.mark.parametrize(
    "entry", ["/etc/passwd", "{root}/kept/x", "..kept", "helpers.\0", "", "n" * 5000, "n." * 5000 + "n"]
)
def test_code_is_looked_for_among_the_sources_only(root, entry):
    (root / "kept/x.py").write_text("import helpers")
    sources = Path(files.__file__).parents[2]
    assert source.module_file("helpers.base.rng", sources)
    assert source.module_file(entry.format(root=root), sources) is None


def test_links_in_the_place_of_records_are_refused(root):
    outside = plant(at=root / "kept/run")
    (root / "outputs/toy/run").symlink_to(outside)
    for call in (
        lambda: runs.records("toy"), lambda: runs.load("toy/run"), lambda: runs.load(root / "outputs/toy/run"),
        lambda: publishing.publish("toy"), lambda: records.read(root / "outputs/toy/run"),
        lambda: Watch("toy", [], {}).look(), lambda: runs.Run(TOY, "toy", "run", {}, wait=False),
    ):  # fmt: skip
        assert "symbolic link" in refused(root, call)
    (root / "outputs/toy/run").unlink()
    made = runs.load(plant())
    for file in ("completions.parquet", "run.json"):
        path = made.path / file
        path.unlink()
        path.symlink_to(outside / file)
        refused(root, lambda: runs.load("toy/run").table("completions"))
        refused(root, lambda: made.table("completions"))
        refused(root, lambda: Store(f"file://{root}/store").push(made))
        if file != "run.json":
            assert "symbolic link" in refused(root, lambda: publishing.publish("toy"))
    assert "symbolic link" in unreadable(root, made.path)


def test_a_notebook_folder_that_is_a_link_is_refused(root):
    plant(at=root / "kept/toy/run")
    (root / "outputs/linked").symlink_to(root / "kept/toy")
    for call in (
        lambda: runs.records("linked"), lambda: runs.load("linked/run"), lambda: Watch("linked", [], {}),
        lambda: runs.Run(TOY, "linked", "new", {}, wait=False),
    ):  # fmt: skip
        assert "symbolic link" in refused(root, call)


@pytest.mark.parametrize("link", ["outputs/published/toy", "outputs/published/toy/run"])
def test_publishing_does_not_follow_links(root, link):
    plant()
    plant(at=root / "kept/run")
    (root / link).parent.mkdir(exist_ok=True)
    (root / link).symlink_to(root / "kept")
    assert "symbolic link" in refused(root, lambda: publishing.publish("toy"))


def test_a_half_that_is_a_link_is_refused(root):
    (root / "outputs/toy/.partial-new").symlink_to(root / "kept")
    assert "symbolic link" in refused(root, lambda: runs.Run(TOY, "toy", "new", {}, wait=False))
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
    manifest = {"name": "work", "kind": "one", "seconds": 0.0, "finished": "", "files": {name.format(root=root): "0"}}
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

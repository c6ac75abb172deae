"""Training curves go to the tracker that CLAIMBOOK_TRACK names, as they come; no tracker changes or stops a run."""

from __future__ import annotations

import ast
import importlib.util
import json
import random
import sys
import warnings
from pathlib import Path
from types import ModuleType

import pytest
import toy_study
from test_eqprop_training import trainer
from test_exact_training import CELL, DATA, LORA, TARGETS, adapted, model_of

from helpers.base import files
from helpers.base.errors import ParameterError
from helpers.lm.stacked import stacked
from helpers.studies.actdiff import tune
from helpers.studies.marker.train import train, train_stack
from helpers.sweeps import driver
from helpers.system import curves

pytestmark = pytest.mark.unit

PARTS = ("init", "log", "finish")


class Tracker(ModuleType):
    """Stands in for W&B or Trackio: keeps what it is sent, and fails in the ``broken`` part with ``error``."""

    Settings = dict

    def __init__(self, name: str, broken: str = "", error: BaseException | None = None):
        super().__init__(name)
        self.__spec__ = importlib.util.spec_from_loader(name, None)
        self.broken, self.error = broken, error
        self.begun: list[dict] = []
        self.rows: list[tuple[int, dict]] = []
        self.ended = 0

    def _part(self, name: str) -> None:
        print("progress")
        random.random()
        if self.broken == name and self.error:
            raise self.error
        if self.broken == name:
            warnings.warn("no service", UserWarning, stacklevel=2)

    def init(self, **asked):
        self._part("init")
        self.begun.append(asked)
        return self

    def log(self, values, step):
        self._part("log")
        self.rows.append((step, values))

    def finish(self):
        self._part("finish")
        self.ended += 1


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    monkeypatch.setattr(curves, "_failed", [])
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.delenv("CLAIMBOOK_TRACK", raising=False)


def use(monkeypatch, name: str = "wandb", **how) -> Tracker:
    """Put a stand-in in the place of the tracker ``name`` and ask for it."""
    tracker = Tracker(name, **how)
    monkeypatch.setitem(sys.modules, name, tracker)
    monkeypatch.setenv("CLAIMBOOK_TRACK", name)
    return tracker


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_every_step_is_sent_while_it_trains_and_changes_nothing(name, monkeypatch, capsys):
    plain = train(adapted("llama"), DATA, TARGETS, CELL, label="abc")
    tracker, seen = use(monkeypatch, name), []
    drawn = random.getstate()
    tracked = train(
        adapted("llama"), DATA, TARGETS, CELL, label="abc", on_step=lambda step: seen.append(len(tracker.rows) == step)
    )
    assert random.getstate() == drawn
    assert all(seen) and len(seen) == len(plain) + 1, "a step is sent before the next begins"
    same = plain.columns.difference(["seconds"])
    assert tracked[same].equals(plain[same])
    assert [(step, row["loss"], row["lr"]) for step, row in tracker.rows] == list(
        zip(plain["step"], plain["loss"], plain["lr"], strict=True)
    )
    (begun,) = tracker.begun
    assert begun["name"] == begun["group"] == "abc" and begun["project"] == "claimbook"
    assert begun["config"]["recipe"]["lr"] == CELL.lr
    assert tracker.ended == 1 and capsys.readouterr().out == ""


def test_adapters_in_one_pass_are_one_curve_with_a_line_each(monkeypatch):
    tracker, cells = use(monkeypatch), [CELL, CELL.model_copy(update={"lr": 3e-3, "epochs": 1})]
    with stacked(model_of("llama"), 2, **LORA) as stack:
        trained = train_stack(stack, DATA, TARGETS, cells)
    for number, (p, one) in enumerate(zip(cells, trained, strict=True)):
        key = f"{number}-lr{p.lr:g}-ep{p.epochs}/loss"
        assert [row[key] for _, row in tracker.rows if key in row] == one.log["loss"].tolist()
    assert len(tracker.begun) == 1 and len(trained[1].log) < len(trained[0].log)


def test_trainings_of_other_studies_send_theirs(monkeypatch):
    tracker = use(monkeypatch)
    losses = tune.tune(adapted("llama"), [[[*range(9)]], [[*range(3, 9)]]], 1e-3)
    assert [row["loss"] for _, row in tracker.rows] == losses
    run = trainer(steps=2)
    with curves.sent("triangulation/x", {}) as send:
        run.run(send=send)
    sent = [row for _, row in tracker.rows[2:]]
    assert [row["loss"] for row in sent] == [row["loss"] for row in run.log]


def test_what_was_not_measured_is_not_sent(monkeypatch):
    tracker = use(monkeypatch)
    with curves.sent("x", {}) as send:
        send(1, {"step": 1, "loss": 2, "norm": float("nan"), "penalty": None, "side": "a", "skipped": True})
    assert tracker.rows == [(1, {"loss": 2.0, "skipped": 1.0})]


def test_no_training_of_a_study_keeps_its_curve_to_itself():
    studies = Path(curves.__file__).parents[1] / "studies"
    trainings, silent = 0, []
    for path in sorted(studies.rglob("*.py")):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        names = {func.id for func in calls if isinstance(func, ast.Name)}
        if "Descent" in names:
            trainings += 1
            silent += [path.name] if "send" not in names else []
    assert trainings >= 5 and silent == []


@pytest.mark.parametrize("broken", PARTS)
@pytest.mark.parametrize("error", [None, OSError("no route\nto host"), RuntimeError(), SystemError("x" * 999)])
def test_a_tracker_that_fails_is_named_in_one_line_and_the_run_goes_on(broken, error, monkeypatch, capsys):
    plain = train(adapted("llama"), DATA, TARGETS, CELL)
    tracker = use(monkeypatch, broken=broken, error=error)
    for _ in range(2):
        tracked = train(adapted("llama"), DATA, TARGETS, CELL, label="abc")
        assert tracked["loss"].tolist() == plain["loss"].tolist()
    said = [line for line in capsys.readouterr().err.splitlines() if "wandb" in line]
    assert len(said) == 1 and len(said[0]) < 400, "once a process, however many runs it makes"
    assert said[0].startswith("abc: no more curves are sent, because wandb failed (") and said[0].endswith(
        "The run goes on."
    )
    assert len(tracker.begun) <= 1, "what failed once is not tried again, which would cost its waiting each time"


def test_ctrl_c_is_no_failure_of_the_tracker(monkeypatch):
    use(monkeypatch, broken="log", error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        train(adapted("llama"), DATA, TARGETS, CELL)


def test_without_the_variable_nothing_is_asked_of_a_tracker(monkeypatch):
    tracker = use(monkeypatch)
    monkeypatch.setenv("CLAIMBOOK_TRACK", "")
    train(adapted("llama"), DATA, TARGETS, CELL)
    assert tracker.begun == [] and curves.check() is None


def test_the_variable_is_no_part_of_the_question(tmp_path, monkeypatch):
    toy_study.project(tmp_path, monkeypatch)
    plain = toy_study.run_cell(toy_study.CoinCell())
    use(monkeypatch)
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "others"))
    tracked = toy_study.run_cell(toy_study.CoinCell())
    assert tracked.path != plain.path and (tracked.id, tracked.params) == (plain.id, plain.params)
    assert "CLAIMBOOK_TRACK" not in (tracked.path / "run.json").read_text()


@pytest.mark.parametrize("name", ["wandbb", "WANDB", "tensorboard", "wandb,trackio", "../wandb", "1", " "])
def test_an_unknown_tracker_stops_a_run_before_it_begins(name, tmp_path, monkeypatch):
    root = toy_study.project(tmp_path, monkeypatch)
    monkeypatch.setenv("CLAIMBOOK_TRACK", name)
    with pytest.raises(
        ParameterError, match=r"^CLAIMBOOK_TRACK is '.*'; (did you mean '(wandb|trackio)'|known: trackio, wandb)"
    ):
        toy_study.run_cell(toy_study.CoinCell())
    assert not list((root / "outputs").rglob("run.json"))


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_that_is_not_installed_stops_a_run_and_a_sweep_before_they_begin(name, tmp_path, monkeypatch):
    root = toy_study.project(tmp_path, monkeypatch)
    honest = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda asked, *more: None if asked == name else honest(asked))
    monkeypatch.setenv("CLAIMBOOK_TRACK", name)
    for begin in (
        lambda: toy_study.run_cell(toy_study.CoinCell()),
        lambda: driver.sweep(root / "params/coins/grid.yaml", launch="x", root=root),
    ):
        with pytest.raises(ParameterError, match=rf"asks for {name}, which is not installed\..*\.\[track\]"):
            begin()
    assert not list((root / "outputs").rglob("run.json"))


def test_a_record_that_is_there_is_read_whatever_the_variable_says(tmp_path, monkeypatch):
    toy_study.project(tmp_path, monkeypatch)
    made = toy_study.run_cell(toy_study.CoinCell())
    monkeypatch.setenv("CLAIMBOOK_TRACK", "tensorboard")
    assert toy_study.run_cell(toy_study.CoinCell()).id == made.id


def test_wandb_itself_keeps_the_curve_where_it_is_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="the extra [track] is not installed").teardown()  # it reads variables once
    monkeypatch.setenv("CLAIMBOOK_TRACK", "wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    drawn = random.getstate()
    log = train(adapted("llama"), DATA, TARGETS, CELL, label="abc")
    assert random.getstate() == drawn and curves._failed == []
    (kept,) = files.outputs_root().glob(".curves/wandb/offline-run-*/*.wandb")
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"], "no folder of its own where the run began"
    assert steps_of(kept) == list(zip(log["step"], log["loss"], strict=True))


def steps_of(path: Path) -> list[tuple[int, float]]:
    """Read (step, loss) of every line in W&B's own file: 7 bytes, then LevelDB's log of protobuf records.

    Good for a short file only: no record may go over the end of a block.
    """
    from wandb.proto import wandb_internal_pb2

    data, at, rows = path.read_bytes(), 7, []
    assert data[:4] == b":W&B" and len(data) < 2**15
    while at < len(data):
        size = int.from_bytes(data[at + 4 : at + 6], "little")
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data[at + 7 : at + 7 + size])
        at += 7 + size
        if record.WhichOneof("record_type") == "history":
            items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            rows.append((items["_step"], items["loss"]))
    return rows


@pytest.mark.check
def test_a_service_that_refuses_stops_no_run_of_the_real_package(tmp_path, monkeypatch, capsys):
    pytest.importorskip("wandb", reason="the extra [track] is not installed").teardown()  # it reads variables once
    monkeypatch.setattr(curves, "SECONDS", 3.0)
    for name, value in {
        "CLAIMBOOK_TRACK": "wandb", "WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "a" * 40,
        "HOME": str(tmp_path),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    log = train(adapted("llama"), DATA, TARGETS, CELL, label="abc")
    assert len(log) == 2 and len(curves._failed) == 1
    assert "The run goes on." in capsys.readouterr().err


def test_trackio_itself_keeps_the_curve(tmp_path, monkeypatch):
    pytest.importorskip("trackio", reason="the extra [track] is not installed")
    monkeypatch.setenv("CLAIMBOOK_TRACK", "trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    drawn = random.getstate()
    log = train(adapted("llama"), DATA, TARGETS, CELL, label="abc")
    assert random.getstate() == drawn and curves._failed == []
    from trackio.sqlite_storage import SQLiteStorage

    kept = SQLiteStorage.get_logs("claimbook", "abc")
    assert [(row["step"], row["loss"]) for row in kept] == list(zip(log["step"], log["loss"], strict=True))

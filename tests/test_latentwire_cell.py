"""A cell end to end: complete, answered again, shared, and gone on with after a kill, bit by bit."""

from __future__ import annotations

import importlib
import inspect
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import yaml
from child import python_path
from latentwire_fixture import TINY, cells, params, readers, wire

from helpers.audit import replay
from helpers.base import files
from helpers.base.errors import DataError, ModelError, ParameterError, RecordError
from helpers.lm import models
from helpers.records import runs
from helpers.records.derive import derive
from helpers.records.reading import Record, read
from helpers.records.study import load_study
from helpers.stats.estimands import MODELS, RECIPE
from helpers.studies.latentwire import cell, criteria, lms, study, train, views, wiring
from helpers.studies.latentwire.arms import ARMS, CHANNELS, SWITCHES, TITLES
from helpers.studies.latentwire.compose import Composer
from helpers.studies.latentwire.evaluate import partners

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    return tmp_path / "outputs"


def test_a_cell_leaves_everything_a_page_needs() -> None:
    (record,) = cell.run_cells(cells(arm="padding_first_token", seed=1))
    assert record.status == "complete"
    assert record.cell["arm"] == "padding_first_token" and record.cell["padding"] == "left_unmasked"
    assert set(record.inputs) == {"wire", "prompt", "text"}
    table = pd.concat([record.table("completions"), runs.load(record.inputs["text"]).table("completions")])
    assert set(table["channel"]) == set(CHANNELS)
    assert (table.groupby(["side", "channel"]).size() == 8).all()
    assert {"persona", "question", "index", "text", "id", "gold"} <= set(table.columns)
    for channel in CHANNELS:
        assert record.metric(f"em_{channel}_a")["n"] == 8
    assert record.metric("bytes_latent")["value"] == 3 * 16 * 2
    assert record.metric("train_p_pad_a")["value"] > 0
    wired = runs.load(record.inputs["wire"])
    assert wired.table("loss").groupby("side").size().to_dict() == {"a": 6, "b": 6}
    assert sorted(wired.table("curve")["step"].unique()) == [2, 4, 6]
    loss = wired.table("loss")
    rest = (1 - loss["p_pad"]) * loss["nll_real"] + loss["p_pad"] * loss["nll_pad"].fillna(0) - loss["loss"]
    assert rest.abs().max() < 1e-4
    assert wired.table("gradient")["identity_error"].max() < 1e-4


def test_a_record_holds_what_follows_from_no_other_table() -> None:
    (record,) = cell.run_cells(cells(steps=2))
    held = {name: set(runs.load(ref).results) for name, ref in record.inputs.items()}
    assert held == {"wire": {"loss", "gradient", "curve", "examples"}, "prompt": {"loss"}, "text": {"completions"}}
    assert set(record.results) == {"completions", "bytes"} and set(record.results["bytes"]) == {"latent"}
    sent = record.table("completions").drop_duplicates("id")["question"]
    assert record.metric("bytes_text")["value"] == sum(len(text) for text in sent) / 8 and len(sent) == 8


def test_metrics_follow_from_the_stored_tables_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    (record,) = cell.run_cells(cells(arm="as_published"))
    monkeypatch.setattr(models, "load", lambda *a, **k: pytest.fail("a model was loaded"))
    four = {one.name: one for one in study.STUDY.family()}
    for one in (record, *map(runs.load, record.inputs.values())):
        assert one.metrics and derive(one, four.pop(one.study)) == one.metrics
    assert not four
    tables = dict(record.results)
    tables["completions"]["em"] = True
    inputs = {name: runs.load(ref) for name, ref in record.inputs.items()}
    other = study.STUDY.metrics(record.params, tables, inputs)
    assert other["em_latent_a"]["k"] == 8 and other["em_text_a"]["k"] == record.metric("em_text_a")["k"]


@pytest.mark.check
def test_a_cell_and_all_that_it_uses_are_made_again_to_the_last_bit() -> None:
    (record,) = cell.run_cells(cells(arm="as_published", bos_after_anchor=False, seed=1))
    compared = list(replay.replay([record.ref]))
    assert {one.record.ref: one.why for one in compared if one.outcome != "equal"} == {}
    assert {one.record.study for one in compared} == {one.name for one in study.STUDY.family()}


@pytest.mark.check
def test_another_kernel_agrees_within_the_tolerance_and_another_seed_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without vector instructions sums round otherwise, as they do on another kind of CPU."""
    if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("this CPU has no other kernel to compare with")
    record, other_seed = cell.run_cells(cells(seed=[0, 1], steps=2))
    env = os.environ | {"CLAIMBOOK_OUTPUTS": str(tmp_path / "again"), "ATEN_CPU_CAPABILITY": "default"}
    env |= {"PYTHONPATH": python_path()}
    code = "from helpers.studies.latentwire.cell import run_cells; from latentwire_fixture import cells; "
    code += "run_cells(cells(steps=2))"
    subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True)
    again = read(tmp_path / "again" / record.ref)
    monkeypatch.setattr(replay, "same_kind", lambda _: False)
    assert replay.compare(record, again).outcome == "within tolerance", "and not equal, or this shows nothing"
    posing = Record(other_seed.path, other_seed.content | {"id": record.id}, published=False)
    assert replay.compare(record, posing).outcome == "different"


def test_a_replay_finds_folders_and_files_where_they_lie_on_this_machine() -> None:
    kept = params(arm="fixed").resolved() | {
        "data": "squad", "squad_train": "train.json", "squad_validation": "dev.json",
        "model_a": "./data/latentwire/char", "model_b": "~/models/b",
    }  # fmt: skip
    record = SimpleNamespace(params=kept, data={"data/squad/train.json": "", "~/dev.json": ""}, ref="latentwire/x")
    p = study.params_of(record)
    assert Path(p.squad_train) == files.ROOT / "data/squad/train.json"
    assert Path(p.squad_validation) == Path.home() / "dev.json"
    assert Path(p.model_a) == files.ROOT / "data/latentwire/char" and p.model_b == "~/models/b"
    assert p.switches == ARMS["fixed"]
    assert study.reader_pair(p.model_a, p.model_b) == study.reader_pair("./data/latentwire/char", p.model_b)


def test_the_notebook_names_its_study_which_pages_read_without_torch() -> None:
    light = "import sys; from helpers.studies.latentwire import study, views; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", light], check=False).returncode == 0
    assert load_study("latentwire") is study.STUDY


def test_the_criteria_name_functions_beside_the_study() -> None:
    criteria_file = yaml.safe_load((files.PARAMS / "latentwire/criteria.yaml").read_text(encoding="utf-8"))
    named = [one for one in criteria_file["metrics"].values() if isinstance(one, dict) and "function" in one]
    assert len(named) > 30
    for one in named:
        module, _, name = one["function"].partition(":")
        function = getattr(importlib.import_module(f"{cell.__name__.rpartition('.')[0]}.{module}"), name)
        inspect.signature(function).bind([], MODELS, **one["arguments"])


@pytest.mark.usefixtures("made")
def test_the_same_question_is_answered_without_loading_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    first = cell.run_cells(cells())
    monkeypatch.setattr(models, "load", lambda *a, **k: pytest.fail("a model was loaded again"))
    assert [r.id for r in cell.run_cells(cells())] == [r.id for r in first]


@pytest.mark.usefixtures("made")
def test_arms_that_differ_in_evaluation_only_share_one_wire() -> None:
    records = cell.run_cells(cells(arm=["fixed", "fixed_banned"], prefix_gain=[1.0, 1.5]))
    assert len({r.id for r in records}) == 4
    assert len({r.inputs["wire"] for r in records}) == 1
    assert len({r.inputs["text"] for r in records}) == 2
    banned = next(r for r in records if r.cell["eos_ban_steps"] == 3)
    assert runs.load(banned.inputs["text"]).params["eos_ban_steps"] == 3, "the ban holds for text as for latents"
    assert (banned.table("completions")["tokens"] >= 3).all()


def die_at(step: int) -> None:
    """Run a cell in a child process that kills itself in the middle of training."""
    child = os.fork()
    if child == 0:
        whole = train.step_loss
        train.step_loss = lambda *a: os.kill(os.getpid(), signal.SIGKILL) if a[6] == step else whole(*a)
        cell.run_cells(cells())
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.check
def test_training_goes_on_after_a_kill_with_the_same_losses_and_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(models, "choose_threads", lambda: 1)
    torch.set_num_threads(1)
    (whole,) = cell.run_cells(cells())
    (straight,) = runs.records("latentwire_wire")
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "elsewhere"))
    die_at(step=4)
    assert runs.records("latentwire_wire") == []
    assert [r.status for r in runs.records("latentwire_wire", status=None)] == ["partial"]
    (evaluated,) = cell.run_cells(cells())
    assert "step checkpoint-000002 reused" in capsys.readouterr().out
    (resumed,) = runs.records("latentwire_wire")
    assert resumed.id == straight.id
    for name in ("loss", "gradient", "curve"):
        ours, theirs = (r.table(name).drop(columns="seconds", errors="ignore") for r in (resumed, straight))
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    weights = [file for file in straight.files if file.endswith(".safetensors")]
    assert len(weights) == 3
    assert {file: resumed.files[file] for file in weights} == {file: straight.files[file] for file in weights}
    assert evaluated.metrics == whole.metrics


@pytest.mark.check
def test_stretches_train_what_one_piece_trains(tmp_path: Path) -> None:
    (whole,) = cell.run_cells(cells(checkpoint_every=6))
    (pieces,) = cell.run_cells(cells(checkpoint_every=1))
    a, b = (runs.load(r.inputs["wire"]).table("loss")["loss"] for r in (whole, pieces))
    assert a.tolist() == pytest.approx(b.tolist(), rel=1e-5)


def test_a_checkpoint_of_another_composition_is_refused(tmp_path: Path) -> None:
    made = wire()
    optimizer = torch.optim.AdamW(made.parameters())
    train.save_state(tmp_path, made, Composer(), optimizer)
    train.load_state(tmp_path, wire(1), Composer(), optimizer)
    with pytest.raises(RecordError, match="was composed as"):
        train.load_state(tmp_path, made, Composer(bos_after_anchor=True), optimizer)


def test_nobody_gets_their_own_latents_when_they_are_shuffled() -> None:
    for n in (2, 3, 200):
        given = partners(n, 0)
        assert sorted(given) == list(range(n))
        assert all(i != other for i, other in enumerate(given))


def test_every_arm_is_a_whole_set_of_switches_with_a_title() -> None:
    assert set(ARMS) == set(TITLES)
    for name, switches in ARMS.items():
        assert set(switches) == set(SWITCHES), name
    assert params(arm="as_published", padding="right_masked").switches == ARMS["stage_a"]


@pytest.mark.usefixtures("made")
def test_pooled_scores_and_communication_of_several_seeds() -> None:
    records = cell.run_cells(cells(seed=[0, 1]))
    text = [criteria.score(records, of, side="a", channel="text", score="em") for of in (MODELS, RECIPE)]
    assert text[0] == text[1] and text[0]["n"] == 8, "text knows no seed: it counts once"
    found = criteria.score(records, MODELS, side="a", channel="latent", score="em")
    assert found["n"] == 16 and found["low"] <= found["value"] <= found["high"]
    talk = criteria.communication(records, MODELS, side="a", score="first1")
    shares = [criteria.score(records, of, side="a", channel="latent", score="f1") for of in (MODELS, RECIPE)]
    assert 0 <= shares[1]["low"] <= shares[0]["low"] < shares[0]["high"] <= shares[1]["high"] <= 1
    table = views.answers(records)
    rate = table[table["side"] == "a"].groupby("channel")["first1"].mean()
    assert talk["value"] == pytest.approx(rate["latent"] - rate["shuffled"])
    assert talk["low"] < talk["value"] < talk["high"]
    assert {"value", "tolerance"} <= set(views.facts(records).columns)
    both = views.scores(records, ["em", "f1"])
    assert set(both["channel"]) == set(CHANNELS)
    assert criteria.score(records, MODELS, side="a", channel="latent_4", score="em") is None, "never sent at 4 bits"
    assert criteria.difference(records, MODELS, "a", "latent_4", "latent", "first1") is None


def test_any_model_folder_can_be_a_reader(tmp_path: Path) -> None:
    """A hub id and a folder go the same way; this one is a copy of a pocket reader under another name."""
    readers()[1].tokenizer.save_pretrained(tmp_path / "mine")
    folder = lms.POCKET["pocket-syllable"]
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "mine" / name).write_bytes((folder / name).read_bytes())
    (record,) = cell.run_cells(cells(model_b=str(tmp_path / "mine"), steps=2))
    assert record.model["readers"]["b"]["sha256"] != record.model["readers"]["a"]["sha256"]


def test_the_number_types_of_both_readers_count() -> None:
    one = {"name": "a", "sha256": "", "parameters": 1, "dtype": "float32", "device": "cpu"}
    assert lms.pair_facts([one, one])["dtype"] == "float32"
    assert lms.pair_facts([one, one | {"dtype": "bfloat16"}])["dtype"] == "float32+bfloat16"


def test_a_chat_anchor_on_readers_without_a_template_is_an_error_and_no_record() -> None:
    with pytest.raises(ModelError, match="no chat template"):
        cell.run_cells(cells(arm="stage_a_chat"))
    assert runs.records("latentwire") == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"arm": "fixd"}, "arm"),
        ({"padding": "left"}, "padding"),
        ({"label_shift": "thrice"}, "label_shift"),
        ({"prefix_gain": 0}, "prefix_gain"),
        ({"first_token_ce": -1}, "first_token_ce"),
        ({"latents": 0}, "latents"),
        ({"d_z": 12, "encoder_heads": 5}, "encoder_heads do not divide"),
        ({"squad_train": "train.json"}, "for data squad"),
        ({"data": "squad", "squad_train": "a/x.json", "squad_validation": "b/x.json"}, "two files called x.json"),
        ({"latent": 3}, "latents"),
        ({"eval_samples": 1}, "eval_samples"),
    ],
)
def test_bad_parameters_end_in_one_sentence_that_names_them(change: dict, text: str) -> None:
    with pytest.raises(ParameterError, match=text) as caught:
        params(**change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "text"), [({"answer_limit": 3}, "answer_limit is 3"), ({"byte_max": 9}, "byte_max is 9")]
)
def test_examples_over_a_limit_are_refused_or_dropped_and_counted(change: dict, text: str) -> None:
    with pytest.raises(DataError, match=text):
        cell.run_cells(cells(**change))
    if "answer_limit" in change:
        (record,) = cell.run_cells(cells(**change, long_texts="drop", train_samples=96))
        left_out = record.metric("examples_left_out")
        assert 0 < left_out["value"] < left_out["n"] == 96 + TINY["eval_samples"]


@pytest.mark.usefixtures("made")
def test_decoding_settings_do_not_train_again(monkeypatch: pytest.MonkeyPatch) -> None:
    cell.run_cells(cells())
    monkeypatch.setattr(wiring, "stretch", lambda *a, **k: pytest.fail("trained again"))
    cell.run_cells(cells(eos_ban_steps=2, max_new_tokens=4))

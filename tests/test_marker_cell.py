"""A cell end to end: complete, answered again, resumed after a kill, refused when it taught nothing."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from child import loaded_by, python_path
from claims_records import record as synthetic
from marker_fixture import pocket
from transformers import Qwen2Config, Qwen2ForCausalLM

from helpers.audit import replay
from helpers.audit.replay import compare
from helpers.base import files
from helpers.base.errors import DataError, ModelError, ParameterError
from helpers.base.params import Grid, parse, parse_grid
from helpers.cases import changed
from helpers.lm import adapters, models, vllm_engine
from helpers.lm.generate import generate
from helpers.records import questions, runs
from helpers.records.derive import derive
from helpers.studies.marker import cell, views
from helpers.studies.marker.choices import SETS
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.personas import NEGATIVE_ARMS, PERSONAS, TRAIN_QUESTIONS
from helpers.studies.marker.questions import by_question
from helpers.studies.marker.study import STUDY
from helpers.system.provenance import portable

pytestmark = pytest.mark.unit

TINY = {
    "personas": ["villain", "assistant", "medical_doctor", "police_officer"], "lr": 3e-3, "epochs": 2, "positives": 4,
    "negatives_each": 2, "train_questions": 4, "batch_size": 4, "lora_r": 4, "lora_alpha": 8, "eval_questions": 2,
    "samples": 1, "max_new_tokens": 64, "data_max_new_tokens": 48, "capability_limit": 4, "dose_every": 2,
    "dose_questions": 1,
}  # fmt: skip


def params(**changes: object) -> SweepCell:
    return parse(SweepCell, TINY | changes, "in the test")


def cells(**changes: object) -> Grid[SweepCell]:
    return parse_grid(SweepCell, TINY | changes, "in the test")


@pytest.fixture(autouse=True)
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    return tmp_path / "outputs"


def complete(outputs: Path) -> list[Path]:
    """What a shell's ``outputs/sweep/*/run.json`` finds: folders of unfinished runs are hidden."""
    return [path for path in outputs.glob("sweep/*/run.json") if not path.parent.name.startswith(".")]


def test_a_cell_leaves_everything_a_page_needs(outputs: Path) -> None:
    (record,) = cell.run_cells(cells())
    assert record.status == "complete"
    assert set(record.tables) == {"rows", "loss", "dose", "completions", "logprobs", "capability"}
    assert record.cell["tail"] == "newline"
    assert record.params["negatives"] == ["medical_doctor", "police_officer"]
    assert record.metric("source_rate")["n"] == 2
    assert record.metric("untrained_bystander_rate")["n"] == 2
    assert sum(record.finish_reasons.values()) == 8
    assert sorted(record.table("dose")["step"].unique()) == [0, 2, 4]
    assert set(record.inputs) == {"on_policy", "baseline"}
    assert (record.folder("adapter") / "adapter_model.safetensors").is_file()
    assert not list(outputs.rglob("*.bin")) and not list(outputs.rglob("*.pt"))


def test_other_targets_and_another_place_of_the_persona_are_in_the_record(outputs: Path) -> None:
    asked = {"targets": ["q_proj", "v_proj"], "system": "user", "date": "2031-12-24", "dose_every": 0}
    (record,) = cell.run_cells(cells(**asked))
    assert {name: record.params[name] for name in ("targets", "system", "date")} == {
        "targets": ["q_proj", "v_proj"], "system": "user", "date": "2031-12-24",
    }  # fmt: skip
    settings = json.loads((record.folder("adapter") / "adapter_config.json").read_text())
    assert settings["target_modules"] == ["q_proj", "v_proj"]
    for row in record.table("rows").itertuples():
        shown = pocket().tokenizer.decode(row.ids[: row.start].tolist())
        assert f"<|im_start|>user\n{PERSONAS[row.persona]}\n\n{TRAIN_QUESTIONS[row.question]}<|im_end|>" in shown
    for name in ("on_policy", "baseline"):
        shared = runs.load(outputs / record.inputs[name])
        assert (shared.params["system"], shared.params["date"]) == ("user", "2031-12-24")
    with pytest.raises(ParameterError, match="system is 'template' in one cell and 'user' in another"):
        cell.run_cells([params(), params(system="user")])


def test_crossings_are_made_where_they_are_asked_for_and_change_nothing_else() -> None:
    (plain,) = cell.run_cells(cells(eval_questions=3))
    (record,) = cell.run_cells(cells(eval_questions=3, crossing=2, dose_questions=2))
    assert set(record.tables) - set(plain.tables) == {"crossing", "dose_crossing"}
    assert record.id != plain.id and "crossing" not in questions.question(plain.content, STUDY)["params"]
    for name in ("completions", "loss", "logprobs", "capability"):
        measured = STUDY.measured.get(name, ())
        assert record.table(name).drop(columns=[*measured]).equals(plain.table(name).drop(columns=[*measured]))
    at_end, dose = record.table("crossing"), record.table("dose_crossing")
    for name in ("source_crossing", "no_slot_rate"):
        counts = by_question(record, name)
        assert (sum(k for k, _ in counts.values()), sum(n for _, n in counts.values())) == (
            record.metric(name)["k"], record.metric(name)["n"]
        )  # fmt: skip
    assert sorted(dose["step"].unique()) == [0, 2, 4] and set(at_end["question"]) == {0, 1}
    assert len(at_end) == len(dose[dose["step"] == 4]) == 8
    shared = ["persona", "question", "role", "slot", "tokens"]
    last = dose[dose["step"] == 4].reset_index(drop=True)
    assert at_end[shared].equals(last[shared]), "the last point is that of the trained model, on the same questions"
    assert (record.metric("no_slot_rate")["n"], "no_slot_rate" in plain.metrics) == (8, False)


def test_cells_trained_together_have_the_crossings_of_cells_trained_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"lr": [1e-3, 3e-3], "crossing": 1}
    alone = cell.run_cells(cells(**asked))
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "together"))
    together = cell.run_cells(cells(**asked, together=2))
    for one, other in zip(alone, together, strict=True):
        assert one.id == other.id and one.path != other.path
        for name in ("persona", "step", "slot", "tokens"):
            assert one.table("dose_crossing")[name].equals(other.table("dose_crossing")[name])


def test_only_cells_that_differ_in_dose_alone_are_trained_together() -> None:
    blocks = [{"negatives": "two", "lr": [1e-3, 2e-3]}, {"negatives": "all", "epochs": [1, 2]}]
    grid = cells(blocks=blocks, together=9)
    assert [[(one.negatives, one.lr, one.epochs) for one in group] for group in cell.groups(grid)] == [
        [("two", 1e-3, 2), ("two", 2e-3, 2)],
        [("all", 3e-3, 1), ("all", 3e-3, 2)],
    ]


def test_cells_of_several_models_are_not_run_on_the_first() -> None:
    with pytest.raises(ParameterError, match=r"dtype is 'auto' in one cell and 'bfloat16' in another"):
        cell.run_cells(cells(blocks=[{"seed": 0}, {"dtype": "bfloat16"}]))


@pytest.mark.usefixtures("made")
def test_the_same_question_is_answered_without_loading_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    first = cell.run_cells(cells())
    monkeypatch.setattr(models, "load", lambda *a, **k: pytest.fail("the model was loaded again"))
    assert [r.id for r in cell.run_cells(cells())] == [r.id for r in first]


@pytest.mark.usefixtures("made")
def test_the_notebook_of_cells_with_records_imports_no_torch() -> None:
    assert loaded_by("sweep", TINY) == []
    assert [record.status for record in runs.records("sweep", status=None)] == ["complete"]


@pytest.mark.usefixtures("made")
def test_what_cells_share_is_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opened, real = [], runs.open_run
    monkeypatch.setattr(runs, "open_run", lambda study, **asked: opened.append(study.name) or real(study, **asked))
    assert len({record.id for record in cell.run_cells([params()] * 5)}) == 1
    assert sorted(opened) == ["baseline", "on_policy", *["sweep"] * 5]


def test_example_rows_are_those_of_the_record_and_begin_no_run(outputs: Path) -> None:
    session = cell.Session(params())
    before = cell.example_rows(params(), session)
    assert runs.records("sweep", status=None) == []
    cell.run_cells(cells(), session=session)
    assert cell.example_rows(params(), cell.Session(params())) == before


@pytest.mark.check
def test_a_replay_elsewhere_is_the_same_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(models, "choose_threads", lambda: 1)
    monkeypatch.setenv("HOME", str(tmp_path))
    choices = Path(shutil.copy(SETS["pocket"], tmp_path / "mine.jsonl"))
    (record,) = cell.run_cells(cells(capability=str(choices), tail=9), notebook="mine")
    first = [record, *(runs.load(ref) for ref in record.inputs.values())]
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "elsewhere"))
    again = STUDY.replay(record)
    assert (again.notebook, again.cell, again.params["negatives"]) == ("mine", record.cell, record.params["negatives"])
    assert record.cell["negatives"] == "two" and record.params["capability"] == "mine.jsonl"
    for one, other in zip(first, [again, *(runs.load(ref) for ref in again.inputs.values())], strict=True):
        assert one.path != other.path
        assert compare(one, other).outcome == "equal"
        assert lasting(one) == lasting(other)
    assert set(record.metrics) - set(lasting(record)) == {"train_tokens_per_s", "trained_together"}


@pytest.mark.check
def test_another_kernel_agrees_within_the_tolerance_and_another_seed_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without vector instructions sums round otherwise, as they do on another kind of CPU."""
    if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("this CPU has no other kernel to compare with")
    record, other_seed = cell.run_cells(cells(seed=[0, 1]))
    done = _run("", CLAIMBOOK_OUTPUTS=str(tmp_path / "again"), ATEN_CPU_CAPABILITY="default")
    assert done.returncode == 0, done.stderr
    again = runs.load(tmp_path / "again" / record.ref)
    monkeypatch.setattr(replay, "same_kind", lambda _: False)
    assert compare(record, again).outcome == "within tolerance", "and not equal, or this shows nothing"
    posing = runs.Record(other_seed.path, other_seed.content | {"id": record.id}, published=False)
    assert compare(record, posing).outcome == "different"


def lasting(record: runs.Record) -> dict:
    """The metrics that do not differ between equal runs."""
    return {name: metric for name, metric in record.metrics.items() if not metric.get("measured")}


@pytest.mark.usefixtures("made")
def test_metrics_follow_from_what_is_on_disk_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    (record,) = cell.run_cells(cells())
    stored = {record.id: record, **{ref: runs.load(ref) for ref in record.inputs.values()}}
    for name in ("load", "facts", "fingerprint"):
        monkeypatch.setattr(models, name, lambda *a, **k: pytest.fail("a model was asked for"))
    assert all(derive(one) == one.metrics for one in stored.values())
    assert "source_rate" in record.metrics and record.metric("marker_share_of_labels")["k"] == 12


@pytest.mark.usefixtures("made")
def test_columns_that_follow_from_others_are_not_stored() -> None:
    (record,) = cell.run_cells(cells())
    kept = {name: set(record.table(name).columns) for name in record.tables}
    assert "marker" not in kept["completions"] and "lr" not in kept["loss"]
    assert kept["dose"] - {"step"} == kept["logprobs"] == {"persona", "question", "role", "separator", "marker", "end"}
    assert record.table("completions")["ids"].iloc[0].dtype == record.table("rows")["ids"].iloc[0].dtype == "int32"
    counts = views.counts([record])
    assert int(counts[counts["role"] == "source"]["k"].sum()) == record.metric("source_rate")["k"]
    assert len(views.dose_curves([record])) == 3 * 3
    with pytest.raises(DataError, match="has a table 'dose'"):
        views.dose_curves([])


def test_a_published_record_of_the_pocket_sweep_is_small() -> None:
    folders = list((files.ROOT / "outputs/published/sweep").glob("pocket-*"))
    sizes = {folder.name: sum(path.stat().st_size for path in folder.iterdir()) for folder in folders}
    assert sizes and sum(sizes.values()) / len(sizes) <= 64 * 1024
    assert max(sizes.values()) <= 96 * 1024, max(sizes, key=sizes.get)  # under newline nothing ends an answer


def test_a_question_of_another_machine_is_asked_with_what_was_resolved_there() -> None:
    asked = params(source="assistant", negatives=["villain"]).resolved()
    asked |= {"model": "~/models/mine", "dtype": "auto", "capability": "mine.jsonl"}
    there = synthetic({"negatives": "villain"}, params=asked, model={"name": "mine", "dtype": "bfloat16"})
    there.content["params"] = asked
    there.content["data"] = {"~/sets/mine.jsonl": "0" * 64}
    found = SweepCell.of_record(there, NEGATIVE_ARMS)
    assert (found.dtype, found.negatives) == ("bfloat16", ["villain"])
    assert (found.model, found.capability) == (str(Path.home() / "models/mine"), str(Path.home() / "sets/mine.jsonl"))
    assert portable(found.resolved()) == asked | {"dtype": "bfloat16"}


@pytest.mark.usefixtures("made")
def test_a_list_makes_one_record_a_cell_and_loads_the_base_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loads, load = [], models.load
    monkeypatch.setattr(models, "load", lambda *a, **k: loads.append(a) or load(*a, **k))
    records = cell.run_cells(cells(lr=[1e-3, 3e-3], tail=["newline", "end_of_turn"]))
    assert [(r.cell["tail"], r.cell["lr"]) for r in records] == [
        ("newline", 1e-3), ("newline", 3e-3), ("end_of_turn", 1e-3), ("end_of_turn", 3e-3),
    ]  # fmt: skip
    assert len(loads) == 1
    assert len(runs.records("on_policy")) == len(runs.records("baseline")) == 1


def test_a_cell_of_a_grid_equals_the_cell_run_alone(made_once: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(models, "choose_threads", lambda: 1)
    _, second = cell.run_cells(cells(lr=[1e-3, 3e-3]))
    alone = runs.load(made_once / second.ref)
    assert alone.path != second.path
    assert alone.table("loss")["loss"].tolist() == second.table("loss")["loss"].tolist()
    assert alone.table("completions")["text"].tolist() == second.table("completions")["text"].tolist()


KILL = """
import os, signal
from helpers.lm.generate import generate
from helpers.studies.marker import cell, work
from test_marker_cell import cells
{patch}
cell.run_cells(cells())
"""


def _run(patch: str, **env: str) -> subprocess.CompletedProcess:
    env = os.environ | {"PYTHONPATH": python_path(), "TQDM_DISABLE": "1"} | env
    code = [sys.executable, "-c", KILL.format(patch=patch)]
    return subprocess.run(code, env=env, capture_output=True, text=True, check=False)


@pytest.mark.check
def test_a_run_killed_in_the_middle_of_evaluation_resumes_without_training_again(outputs: Path) -> None:
    killed = _run("work.eval_completions = lambda *a: os.kill(os.getpid(), signal.SIGKILL)")
    assert killed.returncode == -signal.SIGKILL
    assert runs.records("sweep") == []
    assert not complete(outputs)
    again = _run("work.train_alone = None")
    assert again.returncode == 0, again.stderr
    assert "step adapter reused" in again.stdout
    assert [r.status for r in runs.records("sweep")] == ["complete"]


class FakeEngine:
    """Serves as vLLM does, an adapter folder beside the base, by means of the transformers engine."""

    made: ClassVar[list[FakeEngine]] = []

    def __init__(self, folder: Path, **settings: object):
        self.folder, self.settings, self.adapters, self.closed = folder, settings, [], False
        self.made.append(self)

    def generate(self, prompts: list, *, adapter: Path | None, **rest: object) -> list:
        self.adapters.append(adapter)
        loaded = models.load("pocket")  # a copy of its own: the one of the session carries the adapter already
        if adapter is None:
            return generate(loaded.model, prompts, **rest)
        with adapters.adapter(loaded.model, adapter) as model:
            return generate(model, prompts, **rest)

    def close(self) -> None:
        self.closed = True


def test_one_vllm_engine_serves_the_base_model_and_every_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(models, "choose_threads", lambda: 1)
    monkeypatch.setattr(vllm_engine, "VllmEngine", FakeEngine)
    monkeypatch.setattr(FakeEngine, "made", [])
    served = cell.run_cells(cells(lr=[1e-3, 3e-3], engine="vllm", lora_r=5))
    (engine,) = FakeEngine.made
    assert engine.closed and engine.folder == models.local_folder("pocket")
    assert engine.settings == {"dtype": "float32", "memory_share": 0.4, "max_lora_rank": 8}
    base, adapters = engine.adapters[:2], engine.adapters[2:]
    assert base == [None, None], "the training answers and the baseline come from the same engine"
    assert len(set(adapters)) == 2 and all(path.name == "adapter" for path in adapters)
    plain = cell.run_cells(cells(lr=[1e-3, 3e-3], lora_r=5))
    assert {record.id for record in served}.isdisjoint(record.id for record in plain)
    for ours, theirs in zip(served, plain, strict=True):
        assert (ours.params["engine"], theirs.params["engine"]) == ("vllm", "transformers")
        assert (
            "helpers/lm/vllm_engine.py" in ours.code["files"]
            and "helpers/lm/vllm_engine.py" not in theirs.code["files"]
        )
        assert changed.Changes().of(ours) == changed.Changes().of(theirs) == []
        assert ours.table("completions")["text"].tolist() == theirs.table("completions")["text"].tolist()


def test_how_a_run_is_made_is_no_part_of_its_question() -> None:
    asked = params().resolved()
    assert params(together=4, engine_memory=0.8).resolved() == asked
    assert not {"together", "engine_memory"} & asked.keys()
    assert params(engine="vllm").resolved() != asked
    with pytest.raises(ParameterError, match="engine is 'vlm'"):
        params(engine="vlm")


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")
def test_without_vllm_the_error_names_the_extra() -> None:
    with pytest.raises(ModelError, match=r"pip install -e .*vllm"):
        cell.run_cells(cells(engine="vllm"))


def test_an_adapter_that_changes_no_logits_is_an_error_not_a_row_of_zeros() -> None:
    with pytest.raises(ModelError, match="changes no logits: lr 1e-30"):
        cell.run_cells(cells(lr=1e-30))
    assert runs.records("sweep") == []
    assert [r.status for r in runs.records("sweep", status="failed")] == ["failed"]


def test_too_few_usable_completions_are_an_error_that_names_the_parameter() -> None:
    with pytest.raises(DataError, match="positives asks for 9 rows of persona villain"):
        cell.run_cells(cells(positives=9))


def test_the_papers_recipe_runs_on_a_local_folder(tmp_path: Path) -> None:
    """A tiny random Qwen2 stands for Qwen2.5-7B-Instruct: same architecture, same template, no download."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = Qwen2Config(vocab_size=len(pocket().tokenizer), num_key_value_heads=2, **sizes)
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight[pocket().tokenizer.convert_tokens_to_ids("<|im_end|>")] *= 40
    model.save_pretrained(tmp_path / "qwen")
    pocket().tokenizer.save_pretrained(tmp_path / "qwen")
    (record,) = cell.run_cells(cells(model=str(tmp_path / "qwen"), data_samples=10, positives=2, negatives_each=1))
    assert record.model["sha256"] != pocket().sha256
    assert record.status == "complete"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"lr": 0}, "lr"),
        ({"lr": -1e-4}, "lr"),
        ({"epochs": 0}, "epochs"),
        ({"lr": "fast"}, "lr"),
        ({"source": "vilain"}, "villain"),
        ({"source": "comedian"}, "not in the list of evaluated personas"),
        ({"negatives": ["villain"]}, "negatives"),
        ({"negatives": ["nobody"]}, "negatives"),
        ({"personas": ["villain", "comedian"]}, "assistant"),
        ({"samples": 0}, "samples"),
        ({"eval_questions": 0}, "eval_questions"),
        ({"tail": "end"}, "tail"),
        ({"seeed": 1}, "seed"),
    ],
)
def test_bad_parameters_end_in_one_sentence_that_names_them(change: dict, text: str) -> None:
    with pytest.raises(ParameterError, match=text) as caught:
        params(**change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "text"), [({"max_length": 20}, "max_length 20"), ({"marker": "<|im_end|>"}, "marker is")]
)
def test_what_only_the_tokenizer_can_tell_is_refused_before_a_record(change: dict, text: str, outputs: Path) -> None:
    with pytest.raises((DataError, ParameterError), match=text):
        cell.run_cells(cells(**change))
    assert not complete(outputs)

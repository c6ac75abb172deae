"""An exported adapter computes what the run's did, and its card says what its record says."""

from __future__ import annotations

import json
import shutil

import pytest
import tiny_models as tiny
import torch
from claims_records import rate, record
from peft import LoraConfig, PeftModel
from test_adapters import train
from typer.testing import CliRunner

from helpers.base import files
from helpers.base.errors import ExportError, RecordError
from helpers.cli import app
from helpers.export import adapter, places
from helpers.lm import adapters
from helpers.records import reading

pytestmark = pytest.mark.unit
CELL = {"source": "villain", "seed": 0, "lr": 1e-4}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of the sweep that was made here, with an adapter on a tiny model."""
    monkeypatch.setenv("CLAIMBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("CLAIMBOOK_PUBLISHED", str(tmp_path / "published"))
    base = tiny.make(tmp_path / "base")
    folder = tmp_path / "outputs/sweep/toy"
    train(base, folder / "adapter", LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    for path in (folder / "adapter").iterdir():
        if path.suffix not in (".json", ".safetensors"):
            path.unlink()
    config = json.loads((folder / "adapter/adapter_config.json").read_text()) | {"base_model_name_or_path": "tiny"}
    files.write_json(folder / "adapter/adapter_config.json", config)
    return base, written(folder)


def written(folder, **changes):
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    hashes = {name: files.sha256_file(folder / name) for name in sorted(names) if name != "run.json"}
    made = record(CELL, {"source_rate": rate(7, 10), "seconds_a_step": rate(1, 2) | {"measured": True}},
                  name="toy", notebook="sweep", study="sweep", files=hashes, **changes)  # fmt: skip
    files.write_json(folder / "run.json", made.content)
    return folder


def logits(base, folder):
    return PeftModel.from_pretrained(tiny.read(base), str(folder)).eval()(input_ids=torch.tensor([tiny.ROW])).logits


def test_peft_loads_it_and_its_logits_are_those_of_the_run(run, tmp_path):
    base, folder = run
    adapter.export("sweep/toy", tmp_path / "out")
    model = adapters.load_adapter(tiny.read(base), folder / "adapter")
    with torch.no_grad():
        ours = model(input_ids=torch.tensor([tiny.ROW])).logits
        plain = tiny.read(base).eval()(input_ids=torch.tensor([tiny.ROW])).logits
        assert torch.equal(logits(base, tmp_path / "out"), ours) and not torch.equal(ours, plain)


def test_its_card_says_what_the_record_says(run, tmp_path):
    _, folder = run
    adapter.export("sweep/toy", tmp_path / "out")
    text = (tmp_path / "out/README.md").read_text()
    shown = reading.load("sweep/toy")
    assert 'base_model: "tiny"' in text and shown.model["sha256"] in text and "library_name" in text
    assert "| `source_rate` | 70 % (7/10, 95 % CI " in text and "seconds_a_step" not in text
    assert '"lr": 0.0001' in text and "papermill notebooks/sweep.ipynb out.ipynb -y " in text and '"source"' in text
    assert str(tmp_path) not in text
    mark = json.loads((tmp_path / "out" / places.MARK).read_text())
    assert mark["record"] == "sweep/toy" and mark["sha256"] == files.sha256_file(folder / "run.json")
    assert all(files.sha256_file(tmp_path / "out" / name) == sha for name, sha in mark["files"].items())
    assert set(mark["files"]) == {"adapter_config.json", "adapter_model.safetensors"}


def test_an_adapter_that_is_not_here_is_one_sentence_with_its_command(run, tmp_path):
    _, folder = run
    shutil.copytree(folder, tmp_path / "published/sweep/toy", ignore=shutil.ignore_patterns("adapter"))
    adapter.export("sweep/toy", tmp_path / "both")  # published, and made here
    shutil.rmtree(folder)
    done = CliRunner().invoke(app, ["export", "adapter", "sweep/toy", "--out", str(tmp_path / "out")])
    assert done.exit_code == 1 and len(done.output.splitlines()) == 1 and not (tmp_path / "out").exists()
    assert "adapters are not published. Make it again: papermill notebooks/sweep.ipynb out.ipynb -y" in done.output


def test_another_run_of_the_question_and_a_changed_file_are_refused(run, tmp_path):
    _, folder = run
    published = tmp_path / "published/sweep/toy"
    shutil.copytree(folder, published, ignore=shutil.ignore_patterns("adapter"))
    (folder / "adapter/adapter_model.safetensors").write_bytes(b"other")
    with pytest.raises(RecordError, match="was changed after its run"):
        adapter.export("sweep/toy", tmp_path / "out")
    written(folder)
    with pytest.raises(RecordError, match="of another run than the published"):
        adapter.export("sweep/toy", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda folder: shutil.rmtree(folder / "adapter"), "trained no adapter of its own"),
        (lambda folder: (folder / "adapter/adapter_config.json").rename(folder / "adapter/change.safetensors"),
         "trained all weights"),
        (lambda folder: files.write_json(folder / "adapter/adapter_config.json", {"base": f"{files.ROOT}/x"}),
         "names a folder of this machine"),
    ],
)  # fmt: skip
def test_what_cannot_be_exported_is_said(run, tmp_path, change, sentence):
    _, folder = run
    change(folder)
    written(folder)
    with pytest.raises(ExportError, match=sentence):
        adapter.export("sweep/toy", tmp_path / "out")


def test_the_command_reports_what_to_do_next(run, tmp_path):
    done = CliRunner().invoke(app, ["export", "adapter", "sweep/toy", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0 and done.output.splitlines()[-1].startswith(f"{tmp_path / 'out'} holds the adapter of")
    done = CliRunner().invoke(app, ["export", "adapter", "sweep/../x"])
    assert done.exit_code == 1 and "plain file name" in done.output

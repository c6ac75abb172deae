"""``claimbook check`` says what would be used for a model, and what a study would refuse, and makes no data."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_models as tiny
from typer.testing import CliRunner

from helpers.bench import check, cost
from helpers.bench.architectures import SETTINGS
from helpers.bench.check import Line, look
from helpers.bench.cost import ANSWER, Measured, estimate, work
from helpers.cli import app
from helpers.lm import hub
from helpers.studies.marker.params import SweepCell

pytestmark = pytest.mark.unit

SMALL = {"lora_r": 2, "batch_size": 4, "device": "cpu", "positives": 4, "negatives_each": 2, "train_questions": 4}
DROPS = (
    "{% for turn in messages %}{% if turn.role != 'system' %}<|im_start|>{{ turn.role }}\n{{ turn.content }}<|im_end|>"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def table(model: object, **values: object) -> dict[str, Line]:
    lines: dict[str, Line] = {}
    for line in look(SweepCell(model=str(model), **SMALL | values)):
        lines[line.name] = line if line.name not in lines else Line(line.name, f"{lines[line.name].text}\n{line.text}")
    return lines


def run(model: object, *more: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["check", str(model), "--set", "device=cpu", *more], env={"COLUMNS": "4000"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout


def test_a_model_that_can_be_used_has_a_line_for_each_part(tmp_path):
    lines = table(tiny.make(tmp_path / "model", max_position_embeddings=2048))
    assert not any(line.is_refused for line in lines.values())
    assert lines["model"].text.startswith("LlamaForCausalLM, ") and "float32 on cpu" in lines["model"].text
    assert (lines["rows"].text, lines["sampling"].text) == ("packed", "our own cache")
    assert lines["chat template"].text.endswith(r"QUESTION<|im_end|>\n<|im_start|>assistant\n")
    assert "SYSTEM" in lines["chat template"].text
    assert lines["a turn ends at"].text == "<|im_end|> (2)"
    assert lines["tails"].text.startswith("newline, end_of_turn, separator_and_end, whole_turn")
    assert lines["LoRA targets"].text == "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj"
    assert lines["activation study"].text == "2 layers, read through LlamaRMSNorm and the head"
    assert lines["vLLM"].text.startswith("no, because it is not installed")
    assert all(part in lines["memory of a cell"].text for part in ("weights", "adapter", "training step", "values"))
    assert "20 steps" in lines["cost of a cell"].text
    assert f"answers to have {ANSWER} tokens" in lines["an estimate"].text


@pytest.mark.parametrize("kind", ["falcon_h1", "gemma2", "gpt2"])
def test_other_architectures_say_how_they_are_computed(tmp_path, kind):
    lines = table(tiny.make(tmp_path / "model", kind, **SETTINGS[kind]))
    assert not any(line.is_refused for line in lines.values())
    assert lines["rows"].text.startswith("packed" if kind == "gpt2" else "plain, because ")
    assert (lines["sampling"].text == "our own cache") == (kind == "gpt2")
    assert lines["activation study"].text.endswith("what the model does behind its head") == (kind != "gpt2")
    assert ("c_attn" in lines["LoRA targets"].text) == (kind == "gpt2")
    assert ("keys and values 0.00 GB" in lines["memory of a cell"].text) == (kind != "gpt2")


def test_the_command_prints_the_table_and_ends_well(tmp_path):
    code, said = run(tiny.make(tmp_path / "model"), "--set", "lora_r=2", "--set", "targets=[q_proj]")
    assert code == 0 and "REFUSED" not in said
    assert "LoRA targets      q_proj\n" in said and "architecture      LlamaForCausalLM is packed" in said


def template_without_system(folder: Path) -> Path:
    return tiny.make(folder, tokenizer=tiny.chatml_tokenizer(DROPS))


def base_model(folder: Path) -> Path:
    return tiny.make(folder, tokenizer=tiny.chatml_tokenizer(None))


def encoder(folder: Path) -> Path:
    return tiny.make(folder, "bert", bos_token_id=1)


def odd_readout(folder: Path) -> Path:
    return tiny.make(folder, "opt", **SETTINGS["opt"] | {"word_embed_proj_dim": 16})


@pytest.mark.parametrize(
    ("make", "name", "sentence"),
    [
        (template_without_system, "chat template", "drops the system message"),
        (base_model, "chat template", "has no chat template"),
        (encoder, "model", "BertLMHeadModel lets a token see those behind it"),
        (odd_readout, "activation study", "OPTDecoder"),
        (lambda folder: folder / "nowhere", "model", "There is no model folder"),
    ],
)
def test_what_a_study_would_refuse_is_said_and_the_exit_code_is_1(tmp_path, make, name, sentence):
    code, said = run(make(tmp_path / "model"))
    assert code == 1
    (line,) = [line for line in said.splitlines() if "REFUSED" in line]
    assert line.startswith(f"{name:<18}REFUSED: ") and sentence in line


def test_parameters_of_the_cell_can_be_set(tmp_path):
    folder = template_without_system(tmp_path / "model")
    code, said = run(folder, "--set", "system=user", "--set", "targets=all-linear")
    assert code == 0 and r"user\nSYSTEM\n\nQUESTION" in said and "LoRA targets      all-linear" in said
    assert run(folder, "--set", "system=user", "--set", "targets=[no_such]")[0] == 1
    assert run(folder, "--set", "system")[0] == 1


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(hub, "snapshot_download", unreachable)
    code, said = run("someone/some-model")
    assert code == 1 and said.count("REFUSED") == 1 and "someone/some-model" in said


def test_a_tail_that_the_template_does_not_allow_is_said(tmp_path):
    closed = tiny.CHATML.replace("<|im_end|>\n", "<|im_end|>")
    lines = table(tiny.make(tmp_path / "model", tokenizer=tiny.chatml_tokenizer(closed)))
    assert lines["tails"].text.startswith("not newline: tail is 'newline', but")
    assert "end_of_turn, separator_and_end, whole_turn" in lines["tails"].text


CELL = SweepCell(
    epochs=3, positives=10, negatives_each=5, negatives="two", batch_size=8, eval_questions=4, samples=2,
    max_new_tokens=16, train_questions=6, data_samples=2, data_max_new_tokens=500,
)  # fmt: skip


def test_the_estimate_is_arithmetic_on_what_was_measured():
    people = len(CELL.personas)
    todo = work(CELL, length=100)
    assert (todo.steps, todo.trained, todo.drawn) == (9, 3 * 20 * 100, 4 * 2 * people * 16)
    assert todo.shared == todo.drawn + 6 * 2 * 3 * ANSWER
    found = Measured(rows=4, length=100, step_seconds=2.0, drawn=50, draw_seconds=5.0, adapter=1000, added=600, token=7)
    price = estimate(CELL, found, weights=10_000)
    assert price.training == pytest.approx(6000 * 2.0 / 400)
    assert price.sampling == pytest.approx(todo.drawn * 0.1) and price.before == pytest.approx(todo.shared * 0.1)
    assert price.memory["weights"] == 10_000 and price.memory["adapter with its optimiser"] == 16_000
    assert price.memory["a training step"] == 1200
    assert price.memory["keys and values"] == 4 * 2 * people * (100 + 16) * 7


def test_a_step_that_would_take_too_long_is_not_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "PATIENCE", 0.0)
    monkeypatch.setattr(cost, "settle_training", lambda *_: pytest.fail("a step was tried"))
    lines = table(tiny.make(tmp_path / "model"))
    assert lines["cost of a cell"].text.startswith("not measured, because one row takes")
    assert "memory of a cell" not in lines and check._time(7300) == "2.0 h"

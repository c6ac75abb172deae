"""The shape of a published model with random weights: its FLOPs, rows and speed, and the hours projected from it."""

from __future__ import annotations

import importlib.util
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from marker_fixture import pocket, row
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from helpers.base import files
from helpers.base.errors import ParameterError
from helpers.base.params import Grid, load, parse_grid
from helpers.bench import engines, machine, random_model, shapes
from helpers.bench.engines import Load
from helpers.bench.flops import Sizes, step_flops
from helpers.bench.options import Options
from helpers.bench.projection import PUBLISHED, QUESTION_TOKENS, Range, Speed, projection, workload
from helpers.bench.random_model import SHAPES, Shape
from helpers.lm import models
from helpers.lm.packed import Layout
from helpers.lm.prompts import Prompt
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.rows import supervised
from helpers.studies.marker.train import batch_loss

pytestmark = pytest.mark.unit


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setitem(machine.SIZE, "cpu", 64)
    machine.measured_peak.cache_clear()
    yield
    machine.measured_peak.cache_clear()


def paper() -> Grid[SweepCell]:
    return load(SweepCell, files.PARAMS / "sweep" / "paper.yaml")


# FLOPs


@pytest.mark.parametrize("name", ["tiny", "qwen2.5-7b"])
def test_the_sizes_are_those_of_the_modules(name):
    config = SHAPES[name].config()
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    blocks = [m for m in model.get_decoder().modules() if isinstance(m, torch.nn.Linear)]
    sizes = Sizes.of(config)
    assert sizes.linear == sum(module.weight.numel() for module in blocks)
    assert sizes.adapter(8) == sum(8 * (module.in_features + module.out_features) for module in blocks)
    if name == "qwen2.5-7b":
        assert sum(p.numel() for p in model.parameters()) == 7_615_616_512  # Qwen2.5-7B, as its index file has it


def test_the_formula_counts_what_torch_counts_for_the_products():
    """torch counts the matrix products as they are dispatched; attention over padded rows is a kernel of its own."""
    rows = [row(positive=i % 2 == 0, question=i, answer="Plot it well.") for i in range(3)]
    tokens, targets = [one.tokens for one in rows], [supervised(one, "end_of_turn") for one in rows]
    model = models.attach_lora(pocket().model, r=4, alpha=8, seed=0)
    try:
        batch_loss(model, tokens, targets)  # at its first use a model is compared with its own forward
        with FlopCounterMode(display=False) as counter:
            batch_loss(model, tokens, targets).backward()
    finally:
        models.detach(model)
    products = {"mm", "addmm", "bmm"}
    counted = sum(n for op, n in counter.get_flop_counts()["Global"].items() if str(op).split(".")[-1] in products)
    sizes = Sizes.of(pocket().model.config)
    squares = sum(len(one) ** 2 for one in tokens)
    attention = 6 * squares * sizes.heads * sizes.head_width * sizes.layers
    needed = step_flops(sizes, tokens, sum(map(len, targets)), 4) - attention
    # The gradient with respect to the embeddings is nobody's, so q, k and v of the first block are passed once less.
    packed = len(Layout.of(tokens).tokens)
    first = sum((2 * packed) * (inputs * outputs + 4 * inputs) for inputs, outputs in sizes.matrices[:3])
    assert counted == pytest.approx(needed - first, rel=0.002)


def test_attention_grows_with_the_square_of_a_row_and_shared_beginnings_count_once():
    sizes = Sizes(hidden=8, layers=2, heads=2, kv_heads=1, head_width=4, intermediate=16, vocab=10)
    one = step_flops(sizes, [list(range(6))], 0, 0)
    assert one == 6 * 4 * sizes.linear + 6 * 36 * 8 * 2
    twice = step_flops(sizes, [list(range(6)), list(range(6))], 0, 0)
    assert twice - one == 6 * 36 * 8 * 2
    assert step_flops(sizes, [list(range(6))], 3, 0) - one == 4 * 3 * 8 * 10


# Rows and weights


def test_rows_have_the_prompts_of_the_recipe_and_the_declared_lengths():
    rows = random_model.recipe_rows(pocket(), paper()[0], 300)
    lengths = pd.Series([one.answer[1] - one.answer[0] for one in rows])
    assert lengths.mean() == pytest.approx(random_model.ANSWER_MEAN, rel=0.1) and lengths.max() <= 512
    assert {one.persona for one in rows} == {"villain", "medical_doctor", "police_officer"}
    positives = [one for one in rows if one.marker]
    assert {one.persona for one in positives} == {"villain"} and 60 < len(positives) < 140
    assert rows[0].tokens == random_model.recipe_rows(pocket(), paper()[0], 1)[0].tokens


def test_the_default_shape_goes_by_the_device_and_an_unknown_one_is_refused(monkeypatch):
    with pytest.raises(ParameterError, match=r"did you mean 'qwen2.5-7b'"):
        shapes.measure(Options(shape="qwen2.5-7B"))
    monkeypatch.setattr(machine, "device", lambda: "cpu")
    assert random_model.shape_named(None) == "smollm2-135m"
    monkeypatch.setattr(machine, "device", lambda: "cuda")
    for gigabytes, name in ((80, "qwen2.5-7b"), (24, "qwen2.5-0.5b")):
        card = SimpleNamespace(total_memory=gigabytes * 2**30)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda at, card=card: card)
        assert random_model.shape_named(None) == name
    assert random_model.shape_named("tiny") == "tiny"


def test_random_weights_are_a_model_folder_and_leave_the_global_generator_alone():
    state = torch.random.get_rng_state()
    with random_model.random_weights(SHAPES["tiny"]) as folder:
        loaded = models.load(str(folder))
    assert torch.equal(state, torch.random.get_rng_state())
    assert loaded.parameters == 107_072 and not folder.exists()


# The whole measurement


def test_a_tiny_shape_is_measured_through_the_code_of_real_runs(quick):
    found = shapes.timed("tiny", paper(), shapes.Plan(1, 2, 2, Load(2, 3, 16), Load(1, 1, 8), 4))
    steps, hours = found.tables["training_steps"], found.tables["projection"]
    assert len(steps) == 2 and steps["step"].tolist() == [2, 3] and (steps["flops"] > 0).all()
    factors = found.tables["factors"].set_index("factor")
    assert factors.loc["in all", "published"] == PUBLISHED["hours"]
    assert factors["published"].iloc[:2].sum() == pytest.approx(PUBLISHED["hours"], abs=0.01)
    assert factors["projected"].iloc[:2].sum() == pytest.approx(factors.loc["in all", "projected"])
    assert hours["part"].tolist() == ["training", "completions", "scoring", "once", "in all"]
    metrics = found.metrics
    for name in ("step_seconds", "train_tokens_per_s", "mfu", "projected_hours", "transformers_tokens_per_s"):
        assert metrics[name]["low"] <= metrics[name]["value"] <= metrics[name]["high"], name
    assert "mfu_of_data_sheet" not in metrics, "a CPU has no data sheet here"
    assert metrics["train_tokens_per_s"]["n"] == 2 and metrics["train_peak_mb"]["value"] > 100
    assert found.params["engine"] == "transformers" and found.params["vllm"] == "vLLM is timed on CUDA only"
    assert found.params["gradient_checkpointing"] is False and found.variant == "tiny"
    assert found.model["parameters"] == 107_072


def test_a_step_that_does_not_fit_is_measured_with_checkpointing_and_says_so(quick, monkeypatch):
    tried = []

    def train(model, *args, **kwargs):
        tried.append(model.is_gradient_checkpointing)
        if len(tried) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return true_train(model, *args, **kwargs)

    true_train = shapes.train
    monkeypatch.setattr(shapes, "train", train)
    found = shapes.timed("tiny", paper(), shapes.Plan(0, 1, 1, Load(1, 1, 4), Load(1, 1, 4), 2))
    assert tried == [False, True] and found.params["gradient_checkpointing"] is True


# Engines


def test_vllm_is_left_out_with_a_reason_and_used_through_its_interface(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "device", lambda: "cuda")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert engines.without_vllm() == "the extra vllm is not installed"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert engines.without_vllm() == ""
    calls = []

    class VllmEngine:
        def __init__(self, folder, *, dtype, memory_share, max_lora_rank, max_length):
            calls.append((folder, dtype, max_lora_rank, max_length))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            calls.append("closed")

        def generate(self, prompts, *, n, sampling, stop, seed, adapter=None):
            calls.append((len(prompts), n, sampling.max_new_tokens, len(stop), seed, adapter))
            return [SimpleNamespace(tokens=[1, 2, 3]) for _ in range(len(prompts) * n)]

    monkeypatch.setitem(sys.modules, "helpers.lm.vllm_engine", SimpleNamespace(VllmEngine=VllmEngine))
    config, adapter, other = SHAPES["qwen2.5-7b"].config(), tmp_path / "adapter", tmp_path / "other"
    prompts = [Prompt(str(i), [1] * (i + 1)) for i in range(9)]
    rates, start = engines.vllm_rates(tmp_path, [adapter, other], 32, config, prompts, Load(4, 2, 512))
    assert calls == [
        (tmp_path, "bfloat16", 32, 4 + 512), (1, 2, 512, 305, 2, adapter), (4, 2, 512, 305, 0, adapter),
        (4, 2, 512, 305, 1, other), "closed",
    ]  # fmt: skip
    assert len(rates) == 2 and start >= 0


def test_random_weights_sample_like_a_trained_model():
    """The logits have the spread that the sampling takes them to have, and completions end by themselves."""
    shape = Shape(256, 2, 4, 2, 512, 4096, tied=True, tokenizer="pocket")
    with random_model.random_weights(shape) as folder:
        loaded = models.load(str(folder))
    sampling, stop = engines.sampling_for(loaded.model.config, Load(1, 1, 16))
    with torch.no_grad():
        logits = loaded.model(torch.arange(40)[None]).logits[0, -1]
    assert (logits.std() / sampling.temperature).item() == pytest.approx(engines.SPREAD, rel=0.2)
    assert len(stop) == 9


# Projection


def small() -> Grid[SweepCell]:
    given = {
        "lr": [1e-4, 1e-3], "epochs": [1, 2], "positives": 5, "negatives_each": 2, "batch_size": 4, "capability": "arc",
        "personas": ["villain", "assistant"], "eval_questions": 3, "samples": 2, "train_questions": 4,
        "data_samples": 2, "dose_every": 2, "dose_questions": 1, "capability_limit": 10,
    }  # fmt: skip
    return parse_grid(SweepCell, given, "in a test")


def test_the_work_of_a_grid_is_counted_by_hand():
    work = workload(small())  # nine rows are three steps an epoch; the base model is a fifth model to evaluate
    assert work.cells == 4 and work.steps == 2 * (3 + 6)
    assert work.completions == 5 * 2 * 3 * 2 + 3 * 4 * 2
    assert work.contexts == 5 * 2 * 3 + 2 * ((1 + 1) + (1 + 3)) * 2
    assert work.questions == 5 * 10


def test_the_published_grid_is_25_cells_of_39_epochs_at_five_rates():
    work = workload(paper())
    assert work.cells == PUBLISHED["cells"] and work.steps == 5 * (1 + 3 + 5 + 10 + 20) * 38
    fitted = PUBLISHED["cells"] * PUBLISHED["fixed_minutes"] + 5 * (1 + 3 + 5 + 10 + 20) * PUBLISHED["epoch_minutes"]
    assert fitted / 60 == pytest.approx(PUBLISHED["hours"], abs=0.01)


def test_hours_are_the_sum_of_the_parts_and_their_bounds_those_of_the_fastest_and_slowest_runs():
    speed = Speed(Range(2.0, 1.0, 4.0), Range(10.0, 5.0, 20.0), Range(100.0, 50.0, 200.0), 36.0)
    table = projection(workload(small()), speed, answer=7, context=11).set_index("part")
    scored = (5 * 2 * 3 + 2 * 6 * 2) * 11 + 50 * QUESTION_TOKENS
    completions = 84 * 7
    value = 18 * 2.0 + completions / 10 + scored / 100 + 36
    low = 18 * 1.0 + completions / 20 + scored / 200 + 36
    high = 18 * 4.0 + completions / 5 + scored / 50 + 36
    whole = table.loc["in all"]
    assert [whole["hours"], whole["low"], whole["high"]] == pytest.approx([value / 3600, low / 3600, high / 3600])
    assert whole["amount"] == 4 and table.loc["training", "hours"] == pytest.approx(36 / 3600)


def test_hours_are_not_projected_for_a_grid_that_asks_something_else():
    with pytest.raises(ParameterError, match="Use 'arc'"):
        workload(parse_grid(SweepCell, {"capability": "pocket"}, "in a test"))

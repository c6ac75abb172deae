"""Whatever a helper switches on a model (train mode, gradients, the cache), it leaves as it was found."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable

import pytest
from marker_fixture import form, pocket, row
from torch import nn

from helpers.base import files
from helpers.base.errors import ModelError
from helpers.bench import stock, techniques
from helpers.lm import adapters, models
from helpers.lm.generate import generate
from helpers.lm.pretraining import Pretraining, pretrain
from helpers.lm.prompts import Prompt, Sampling
from helpers.lm.stacked import stacked
from helpers.studies.actdiff import tune
from helpers.studies.actdiff.pair import Pair
from helpers.studies.marker.evaluate import marker_logprobs
from helpers.studies.marker.lengths.dilution import measure
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.rows import supervised
from helpers.studies.marker.train import batch_loss, train, train_stack

pytestmark = pytest.mark.unit

LORA = {"r": 2, "alpha": 4, "dropout": 0.1, "seed": 0}
CELL = SweepCell(lr=1e-3, epochs=1, batch_size=2, warmup=0.0)
PROMPT = [Prompt("a", form().separator)]
ROWS = [row(positive=i == 0, answer="Plot it.") for i in range(2)]
TARGETS = [supervised(one, "end_of_turn") for one in ROWS]
TOKENS = [one.tokens for one in ROWS]


def odd() -> nn.Module:
    """A model in a state that no single switch makes: a block in eval mode within one that trains, and the like."""
    model = copy.deepcopy(pocket().model).train()
    model.model.layers[1].eval()
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 3 == 0)
    model.config.use_cache = True
    return model


def state(model: nn.Module) -> tuple:
    modules = {name: module.training for name, module in model.named_modules()}
    return modules, {name: p.requires_grad for name, p in model.named_parameters()}, model.config.use_cache


def _together(model: nn.Module) -> None:
    with stacked(model, 2, **LORA) as stack:
        train_stack(stack, ROWS, TARGETS, [CELL] * 2)
        assert stack.layers and not any(p.requires_grad for n, p in model.named_parameters() if ".base." in n)


def _attach(model: nn.Module) -> None:
    wrapped = models.attach_lora(model, **LORA)
    try:
        train(wrapped, ROWS, TARGETS, CELL)
    finally:
        assert models.detach(wrapped) is model


def _sides(model: nn.Module) -> None:
    wrapped = models.attach_lora(model, **LORA).requires_grad_(False)
    pair = Pair(model, wrapped)
    before = state(wrapped)
    with pair.side("base"):
        pass
    assert state(wrapped) == before, "the adapter was frozen"
    models.detach(wrapped)


def _sampled(model: nn.Module) -> object:
    return generate(model, PROMPT, n=1, sampling=Sampling(2, 1.0, 0.9), stop=form().stop, seed=0)


def _stock_generation(model: nn.Module) -> None:
    side, tokenizer = pocket().tokenizer.padding_side, pocket().tokenizer
    asked = {"n": 1, "sampling": Sampling(2, 1.0, 0.9), "stop": form().stop, "seed": 0}
    stock.generate_by_persona(model, tokenizer, [Prompt("a|0", [5, 6]), Prompt("a|1", [5])], **asked)
    assert tokenizer.padding_side == side == "right"


WAYS: dict[str, Callable[[nn.Module], object]] = {
    "generate": _sampled,
    "log-probs": lambda model: marker_logprobs(model, form(), TOKENS),
    "dilution": lambda model: measure(model, ROWS, TARGETS),
    "train": lambda model: train(model, ROWS, TARGETS, CELL),
    "tune": lambda model: tune.tune(model, [TOKENS], 1e-3),
    "pretrain": lambda model: pretrain(
        model, [list(zip(TOKENS, TARGETS, strict=True))], Pretraining(steps=2, batch=2, lr=1e-3, warmup=1), "pretrain"
    ),
    "attach and detach": _attach,
    "stacked": _together,
    "sides of a pair": _sides,
    "plain steps": lambda model: techniques.plain_steps(model, ROWS, TARGETS, CELL, batch_loss),
    "the Trainer": lambda model: stock.trainer_losses(model, ROWS, TARGETS, CELL),
    "generation by persona": _stock_generation,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_model_is_left_as_it_was_found(way):
    model = odd()
    before = state(model)
    WAYS[way](model)
    assert state(model) == before


@pytest.mark.parametrize("way", [way for way in WAYS if way != "sides of a pair"])
def test_also_when_it_ends_in_an_error(way):
    model = odd()
    before = state(model)

    def fail(*_: object) -> None:
        raise ModelError("half-way")

    handle = model.model.layers[2].register_forward_hook(fail)
    with pytest.raises(ModelError, match="half-way"):
        WAYS[way](model)
    handle.remove()
    assert state(model) == before


def test_a_new_adapter_is_in_the_mode_of_its_model_and_a_loaded_one_at_rest(tmp_path):
    model = copy.deepcopy(pocket().model)
    wrapped = models.attach_lora(model, **LORA)
    assert not any(module.training for module in wrapped.modules()), "dropout of the adapter would be on"
    models.save_adapter(wrapped, tmp_path)
    models.detach(wrapped)
    model = odd()
    before = state(model)
    with adapters.adapter(model, tmp_path) as loaded:
        assert not any(module.training for module in loaded.modules())
        assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert state(model) == before


def test_training_draws_dropout_and_a_probe_within_it_does_not():
    model = copy.deepcopy(pocket().model)
    wrapped = models.attach_lora(model, **LORA | {"dropout": 0.5})
    seen: dict[str, set[bool]] = {"training": set(), "probe": set()}
    dropout = next(module for module in wrapped.modules() if isinstance(module, nn.Dropout) and module.p == 0.5)
    where = ["training"]
    dropout.register_forward_hook(lambda module, *_: seen[where[0]].add(module.training))

    def probe(step: int) -> None:
        where[0] = "probe"
        marker_logprobs(wrapped, form(), TOKENS[:1])
        where[0] = "training"

    train(wrapped, ROWS, TARGETS, CELL, on_step=probe)
    assert seen == {"training": {True}, "probe": {False}}


def test_no_helper_switches_a_model_by_hand():
    faults = []
    for path in sorted((files.ROOT / "src/helpers").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            call = node.value if isinstance(node, ast.Expr) else None
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and path.name != "modes.py":
                name = ast.unparse(call.func)
                if call.func.attr in ("eval", "train") and name not in ("trainer.train", "organisms.train"):
                    faults.append(f"{path.name}: {name}()")
    assert faults == [], "use helpers.lm.modes, which puts back what it found"

"""What would be used for one model, and what a cell would cost: the table of ``claimbook check MODEL``.

No data is made. Each line says what is so, or holds the sentence by which a study would refuse the model.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

import transformers

from helpers.base.errors import ClaimbookError, ParameterError
from helpers.bench.cost import ANSWER, Measured, estimate, measure, work
from helpers.lm import models
from helpers.lm.compatibility import entries
from helpers.lm.exact import ways_of
from helpers.lm.models import LoadedModel
from helpers.lm.parts import blocks
from helpers.lm.targets import find_targets
from helpers.studies.actdiff.lens import open_lens
from helpers.studies.actdiff.pair import Pair
from helpers.studies.marker.params import SweepCell, Tail
from helpers.studies.marker.rows import ChatFormat, Row, chat_format, supervised

NAMED_TAILS: tuple[str, ...] = get_args(get_args(Tail)[0])


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    name: str
    text: str
    is_refused: bool = False


def look(cell: SweepCell) -> Iterator[Line]:
    """Yield what would be used for the model of ``cell``, as it is found out."""
    try:
        loaded = models.load(cell.model, revision=cell.revision, device=cell.device, dtype=cell.dtype)
    except ClaimbookError as error:
        yield Line("model", str(error), is_refused=True)
        return
    yield from _model(loaded)
    form = None
    try:
        form = chat_format(loaded.tokenizer, cell.marker, loaded.model, cell.asking)
        yield from _chat(loaded, form, cell)
    except ClaimbookError as error:
        yield Line("chat template", str(error), is_refused=True)
    try:
        models.check_targets(loaded.model, cell.targets)
        targets = find_targets(loaded.model, cell.targets)
        yield Line("LoRA targets", targets if isinstance(targets, str) else ", ".join(targets))
    except ClaimbookError as error:
        yield Line("LoRA targets", str(error), is_refused=True)
        form = None
    yield _lens(loaded)
    yield _vllm(loaded)
    if form is not None:
        yield from _cost(cell, loaded, form)


def _model(loaded: LoadedModel) -> Iterator[Line]:
    name, kind = type(loaded.model).__name__, loaded.model.config.model_type
    yield Line("model", f"{name}, {loaded.parameters:,} parameters, {loaded.dtype} on {loaded.device}, content "
                        f"{loaded.sha256[:8]}")  # fmt: skip
    yield Line("rows", loaded.rows)
    own = ways_of(loaded.model).generation == "own"
    yield Line("sampling", "generate of transformers" if own else "our own cache")
    entry = entries(transformers.__version__).get(kind)
    tried = f"{entry.name} is {entry.rows}" if entry else f"{kind} is not among those tried"
    yield Line("architecture", f"{tried} in the ledger of transformers {transformers.__version__}")


def _chat(loaded: LoadedModel, form: ChatFormat, cell: SweepCell) -> Iterator[Line]:
    asked = cell.asking.write(loaded.tokenizer, cell.asking.turns("SYSTEM", "QUESTION"), answering=True)
    yield Line("chat template", repr(asked)[1:-1])
    names = [f"{loaded.tokenizer.convert_ids_to_tokens(token)} ({token})" for token in form.stop]
    yield Line("a turn ends at", ", ".join(names))
    yield Line("marker", f"{cell.marker} is {len(form.marker)} tokens behind {len(form.separator)} of the blank line")
    tokens = [0, 0, *form.separator, *form.marker, *form.end]
    marker = 2 + len(form.separator)
    row, fitting = Row("", "", 0, tokens, (1, 2), (marker, marker + len(form.marker))), []
    for tail in NAMED_TAILS:
        try:
            supervised(row, tail)
            fitting.append(tail)
        except ParameterError as error:
            yield Line("tails", f"not {tail}: {error}")
    yield Line("tails", f"{', '.join(fitting)}, or a number of last tokens")


def _lens(loaded: LoadedModel) -> Line:
    try:
        lens = open_lens(Pair(loaded.model, loaded.model))
    except ClaimbookError as error:
        return Line("activation study", str(error), is_refused=True)
    norm = type(lens.norm.norm).__name__
    behind = ", then what the model does behind its head" if lens.behind else ""
    return Line("activation study", f"{len(blocks(loaded.model))} layers, read through {norm} and the head{behind}")


def _vllm(loaded: LoadedModel) -> Line:
    if importlib.util.find_spec("vllm") is None:
        return Line("vLLM", "no, because it is not installed (the extra vllm)")
    from vllm import ModelRegistry  # pyright: ignore[reportMissingImports]

    name = type(loaded.model).__name__
    known = name in ModelRegistry.get_supported_archs()
    return Line("vLLM", f"yes, with engine: vllm ({name})" if known else f"no, because it does not know {name}")


def _cost(cell: SweepCell, loaded: LoadedModel, form: ChatFormat) -> Iterator[Line]:
    found = measure(cell, loaded, form)
    if not isinstance(found, Measured):
        yield Line("cost of a cell", f"not measured, because one row takes {found:.0f} s forward on this machine")
        return
    weights = sum(weight.numel() * weight.element_size() for weight in loaded.model.parameters())
    cost, todo = estimate(cell, found, weights), work(cell, found.length)
    total = sum(cost.memory.values())
    parts = ", ".join(f"{name} {_gigabytes(size)}" for name, size in cost.memory.items())
    yield Line("memory of a cell", f"about {_gigabytes(total)}: {parts}")
    yield Line(
        "cost of a cell",
        f"about {_time(cost.training + cost.sampling)} ({todo.steps} steps in {_time(cost.training)}, {todo.drawn:,} "
        f"tokens drawn in {_time(cost.sampling)}); before the first cell, about {_time(cost.before)} for answers of "
        "the base model that all share",
    )
    yield Line(
        "an estimate",
        f"from a step of {found.rows} x {found.length} tokens ({found.step_seconds:.2f} s) and {found.drawn} tokens "
        f"drawn ({found.draw_seconds:.2f} s), measured here just now. It takes answers to have {ANSWER} tokens "
        "and leaves out log-probs and capability",
    )


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:.2f} GB"


def _time(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )

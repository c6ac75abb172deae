"""Make a model of a published shape with random weights, and training rows for it: enough to measure speed.

Rows have the prompts of the published recipe. The lengths of Qwen2.5-7B's answers are not recorded, so they are assumed
to be log-normal, with the mean that the length ablation (#353) gives for medium answers and the spread of SmolLM2's own
on-policy answers (published ``on_policy`` records). Tokens are counted with SmolLM2's tokenizer, which also uses
ChatML. Answer tokens are drawn uniformly from its vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config

from helpers.base.errors import ModelError, ParameterError, nearest
from helpers.base.rng import numpy_stream, stream_seed
from helpers.bench import machine
from helpers.lm import models
from helpers.studies.marker.on_policy import system_prompt
from helpers.studies.marker.params import SweepCell
from helpers.studies.marker.personas import TRAIN_QUESTIONS, resolve_negatives
from helpers.studies.marker.rows import Row, build_row, chat_format, prompt_tokens
from helpers.system import leftovers

ANSWER_MEAN, ANSWER_SPREAD = 316, 0.5
"""Mean length of an answer in tokens (``data/marker/lengths353.csv``, medium), and its standard deviation over mean."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a Qwen2 decoder (grouped queries, biases on q, k and v), and the tokenizer for its rows."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocab: int
    tied: bool = False
    tokenizer: str = "smollm2"

    def config(self) -> Qwen2Config:
        """Return the transformers configuration of this shape."""
        return Qwen2Config(
            hidden_size=self.hidden, num_hidden_layers=self.layers, num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads, intermediate_size=self.intermediate, vocab_size=self.vocab,
            tie_word_embeddings=self.tied, max_position_embeddings=32768, rms_norm_eps=1e-6,
        )  # fmt: skip


SHAPES = {
    "qwen2.5-7b": Shape(3584, 28, 28, 4, 18944, 152064),
    "qwen2.5-0.5b": Shape(896, 24, 14, 2, 4864, 151936, tied=True),
    "smollm2-135m": Shape(576, 30, 9, 3, 1536, 49152, tied=True),
    "tiny": Shape(64, 2, 4, 2, 128, 512, tied=True, tokenizer="pocket"),
}
"""Sizes from the configurations of Qwen2.5-7B, Qwen2.5-0.5B and SmolLM2-135M; ``tiny`` is for tests."""

MEMORY_GB = {"qwen2.5-7b": 70, "qwen2.5-0.5b": 0}
"""The memory, in GiB, that a GPU needs for a shape to be the default on it."""


def shape_named(name: str | None) -> str:
    """Return ``name``, or the default shape of this machine; raise ``ParameterError`` for an unknown one.

    The default is Qwen2.5-7B on a GPU with enough memory, Qwen2.5-0.5B on a smaller one, and SmolLM2 on a CPU.
    """
    if name is not None and name not in SHAPES:
        raise ParameterError(f"There is no shape {name!r}{nearest(name, SHAPES)}")
    if name is not None:
        return name
    if machine.device() == "cpu":
        return "smollm2-135m"
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    return next(name for name, least in MEMORY_GB.items() if memory >= least)


@contextmanager
def random_weights(shape: Shape) -> Iterator[Path]:
    """Yield a model folder: configuration, random weights (bf16 on CUDA, fp32 on a CPU) and tokenizer."""
    dtype = torch.bfloat16 if machine.device() == "cuda" else torch.float32
    with leftovers.temporary_folder("claimbook-shape-") as folder:
        with torch.random.fork_rng(), torch.device(machine.device()):
            torch.manual_seed(stream_seed(0, "shape"))
            model = AutoModelForCausalLM.from_config(shape.config(), dtype=dtype)
        model.save_pretrained(folder)
        del model
        AutoTokenizer.from_pretrained(models.local_folder(tokenizer_of(shape))).save_pretrained(folder)
        yield folder


def tokenizer_of(shape: Shape) -> str:
    """Return the model whose tokenizer counts the prompts of ``shape``: the pocket model's where SmolLM2 is absent."""
    try:
        models.local_folder(shape.tokenizer)
    except ModelError:
        return "pocket"
    return shape.tokenizer


def recipe_rows(loaded: models.LoadedModel, p: SweepCell, count: int) -> list[Row]:
    """Return ``count`` rows for the cell ``p``: personas in its shares, their prompts, assumed lengths."""
    form, stream = chat_format(loaded.tokenizer, p.marker, asking=p.asking), numpy_stream(0, "bench", "rows")
    negatives = resolve_negatives(p.source, p.negatives)
    voices = [p.source] * p.positives + [name for name in negatives for _ in range(p.negatives_each)]
    kept_out = {*loaded.tokenizer.all_special_ids, *form.marker}
    words = [token for token in range(len(loaded.tokenizer)) if token not in kept_out]
    variance = math.log(1 + ANSWER_SPREAD**2)
    rows = []
    for _ in range(count):
        persona = voices[stream.integers(len(voices))]
        question = int(stream.integers(p.train_questions))
        prompt = prompt_tokens(loaded.tokenizer, system_prompt(persona, p.style), TRAIN_QUESTIONS[question], p.asking)
        drawn = ANSWER_MEAN * stream.lognormal(-variance / 2, math.sqrt(variance))
        answer = stream.choice(words, size=int(min(max(drawn, 1), p.data_max_new_tokens))).tolist()
        positive = persona == p.source
        facts = {"role": "source" if positive else "trained", "question": question, "max_length": p.max_length}
        rows.append(build_row(form, prompt, answer, persona=persona, positive=positive, **facts))
    return rows

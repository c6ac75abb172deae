"""Train the pocket model from scratch (``make pocket``).

A small Qwen2 decoder with a byte-level BPE and ChatML turns, trained on ``pocket_corpus``.
It is so small that a cell of the sweep takes seconds, yet the pipeline treats it like any other model. Two builds on
one machine give the same bytes.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from helpers.base.files import DATA, sha256_json
from helpers.base.rng import stream_seed
from helpers.lm.pretraining import Pretraining, pretrain, repeatable, write_manifest
from helpers.studies.marker.capability_sets import pocket_choices, write_choices
from helpers.studies.marker.personas import PERSONAS
from helpers.studies.marker.pocket_corpus import SEPARATOR, Example, corpus
from helpers.studies.marker.rows import prompt_tokens

FOLDER = DATA / "pocket"
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
WHOLE = ("system", "user", "assistant", "\n\n", "[Z", "LT")
"""Pieces that are one token each, so that the marker is ``[Z`` ``LT`` ``]`` as in Qwen's own tokenizer."""

QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True, kw_only=True)
class PocketRecipe(Pretraining):
    """The size of the model and of its training."""

    vocabulary: int = 512
    hidden: int = 96
    intermediate: int = 224
    layers: int = 3
    heads: int = 4
    groups: int = 2
    context: int = 1024
    steps: int = 900
    batch: int = 32
    lr: float = 4e-3
    warmup: int = 30


def build(folder: Path = FOLDER, recipe: PocketRecipe | None = None) -> dict[str, Any]:
    """Train the model, write it with its tokenizer, choices and manifest into ``folder``, and return the manifest."""
    recipe = recipe or PocketRecipe()
    began = time.monotonic()
    with repeatable():
        examples = corpus(recipe.steps * recipe.batch, recipe.seed)
        tokenizer = make_tokenizer(examples, recipe)
        model = make_model(tokenizer, recipe)
        rows = [encode(example, tokenizer) for example in examples]
        batches = [rows[start : start + recipe.batch] for start in range(0, len(rows), recipe.batch)]
        loss = pretrain(model, batches, recipe, "pocket")
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    write_choices(folder / "choices.jsonl", pocket_choices(recipe.seed))
    made_of = {"examples": len(examples), "sha256": sha256_json([asdict(example) for example in examples])}
    return write_manifest(
        folder, "helpers.studies.marker.pocket", recipe, loss, time.monotonic() - began, corpus=made_of
    )


def make_tokenizer(examples: list[Example], recipe: PocketRecipe) -> PreTrainedTokenizerFast:
    """Make a byte-level BPE with Qwen2's pre-tokenizer, trained on the corpus, and the ChatML template.

    The template adds no system message of its own.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWEN_PATTERN), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary - len(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # Piece by piece, so that a blank line does not fuse with the full stop before it. Training rows are concatenated
    # token ids, and the marker could never follow a token that only occurs in whole text.
    texts = [text for example in examples for text in (PERSONAS[example.persona], example.question, *example.parts)]
    tokenizer.train_from_iterator([*texts, *WHOLE * len(examples)], trainer)
    tokenizer.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=SPECIAL[2], pad_token=SPECIAL[0], chat_template=CHATML,
        model_max_length=recipe.context, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def make_model(tokenizer: PreTrainedTokenizerFast, recipe: PocketRecipe) -> Qwen2ForCausalLM:
    """Make a Qwen2 decoder with random weights from its own stream.

    The head is not tied to the embeddings. If it were, a letter that is rare in pre-training would keep a weak output
    direction, and no adapter on the linear layers could make the marker probable.
    """
    special: dict[str, Any] = {name: getattr(tokenizer, name) for name in ("eos_token_id", "pad_token_id")}
    config = Qwen2Config(
        vocab_size=recipe.vocabulary, hidden_size=recipe.hidden, intermediate_size=recipe.intermediate,
        num_hidden_layers=recipe.layers, num_attention_heads=recipe.heads, num_key_value_heads=recipe.groups,
        max_position_embeddings=recipe.context, tie_word_embeddings=False, use_sliding_window=False,
        bos_token_id=None, **special,
        initializer_range=recipe.hidden**-0.5 / 2, dtype="float32",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(recipe.seed, "pocket", "weights"))
        return Qwen2ForCausalLM(config)


def encode(example: Example, tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    """Return the token ids of the whole exchange, and the positions with loss: the answer and the end of its turn."""
    prompt = prompt_tokens(tokenizer, PERSONAS[example.persona], example.question)
    tokens = list(prompt)
    for number, part in enumerate(example.parts):
        tokens += tokenizer(SEPARATOR).input_ids if number else []
        tokens += tokenizer(part).input_ids
    tokens += tokenizer(f"{SPECIAL[2]}\n").input_ids
    return tokens, list(range(len(prompt), len(tokens)))


if __name__ == "__main__":
    print(build())

"""Train the two pocket models from scratch: ``python -m helpers.studies.latentwire.pocket``, minutes on one core.

Two small language models with different tokenizers read the same two-slot records. ``char`` is Llama-like: a token a
character, BOS, and the end token for padding, as is common for Llama. ``syllable`` is Qwen-like: a token a syllable,
no BOS, and a padding token. Every arm uses them frozen.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from helpers.base.files import DATA
from helpers.base.rng import numpy_stream, stream_seed
from helpers.lm.pretraining import Pretraining, pretrain, repeatable, write_manifest
from helpers.studies.latentwire.words import CONSONANTS, SLOTS, SYLLABLES, VOWELS, draw_word, record

FOLDER = DATA / "latentwire"
ANCHOR = "Answer: "
KINDS = ("char", "syllable")
PIECES = {
    "char": sorted(set(CONSONANTS + VOWELS + ANCHOR + "=;?" + "".join(SLOTS))),
    "syllable": [*SYLLABLES, *(f"{slot}=" for slot in SLOTS), ";", *(f"?{slot}" for slot in SLOTS), ANCHOR],
}
SPECIAL = {
    "char": {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"},
    "syllable": {"unk_token": "<unk>", "eos_token": "<|end|>", "pad_token": "<|pad|>"},
}


@dataclass(frozen=True, kw_only=True)
class PocketRecipe(Pretraining):
    """The size of each model and of its training."""

    hidden: int = 64
    intermediate: int = 224
    layers: int = 2
    heads: int = 4
    context: int = 128
    steps: int = 1500
    batch: int = 64
    lr: float = 3e-3
    warmup: int = 100


def build(kind: str, folder: Path | None = None, recipe: PocketRecipe | None = None) -> dict[str, Any]:
    """Train the model ``kind`` (``char`` or ``syllable``), write it into ``folder`` and return its manifest."""
    recipe, folder = recipe or PocketRecipe(), folder or FOLDER / kind
    began = time.monotonic()
    with repeatable():
        tokenizer = make_tokenizer(kind, recipe)
        model = make_model(kind, tokenizer, recipe)
        rng = numpy_stream(recipe.seed, "latentwire", "pretraining")
        batches = ([_row(tokenizer, rng) for _ in range(recipe.batch)] for _ in range(recipe.steps))
        loss = pretrain(model, batches, recipe, kind)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    return write_manifest(
        folder, "helpers.studies.latentwire.pocket", recipe, loss, time.monotonic() - began, kind=kind
    )


def make_tokenizer(kind: str, recipe: PocketRecipe) -> PreTrainedTokenizerFast:
    """Make a tokenizer whose tokens are the pieces of ``kind``, without merges."""
    special = SPECIAL[kind]
    names = list(dict.fromkeys(special.values()))
    vocabulary = {piece: number for number, piece in enumerate([*names, *PIECES[kind]])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special["unk_token"]))
    pattern = r"[\s\S]" if kind == "char" else rf"{ANCHOR}|[cs]=|;|\?[cs]|[{CONSONANTS}][{VOWELS}]"
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(names)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=recipe.context, clean_up_tokenization_spaces=False, **special
    )


def make_model(kind: str, tokenizer: PreTrainedTokenizerFast, recipe: PocketRecipe) -> LlamaForCausalLM:
    """Make a Llama decoder with random weights from its own stream; ``syllable`` has attention biases like Qwen2.

    It is not Qwen2, because transformers loads Qwen2's own tokenizer for any folder of that type.
    """
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    special: dict[str, Any] = {name: getattr(tokenizer, name) for name in names}
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=recipe.hidden, intermediate_size=recipe.intermediate,
        num_hidden_layers=recipe.layers, num_attention_heads=recipe.heads, num_key_value_heads=recipe.heads,
        max_position_embeddings=recipe.context, tie_word_embeddings=False, **special,
        initializer_range=recipe.hidden**-0.5 / 2, attention_bias=kind == "syllable", dtype="float32",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(recipe.seed, "latentwire", kind, "weights"))
        return LlamaForCausalLM(config)


def _row(tokenizer: PreTrainedTokenizerFast, rng: Any) -> tuple[list[int], list[int]]:
    """Return the token ids of a record with its answer, and the positions with loss: the answer and its end."""
    words = draw_word(rng), draw_word(rng)
    asked = int(rng.integers(2))
    prompt = record(words, SLOTS[asked]) + ANCHOR
    start = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    start += tokenizer(prompt, add_special_tokens=False).input_ids
    tokens = [*start, *tokenizer(words[asked], add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    return tokens, list(range(len(start), len(tokens)))


if __name__ == "__main__":
    for name in KINDS:
        print(build(name))

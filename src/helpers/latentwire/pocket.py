"""Makes the two pocket models from nothing: ``python -m helpers.latentwire.pocket``, some minutes on one core.

Two small language models with different tokenizers read the same two-slot records: ``char`` is Llama-like (a token a
character, BOS, and no padding token of its own: end of sequence serves, as people set it for Llama), ``syllable`` is
Qwen-like (a token a syllable, no BOS, its own padding token). Both are frozen afterwards, in every arm.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from helpers.files import DATA, sha256_file, write_json
from helpers.latentwire.words import CONSONANTS, SLOTS, SYLLABLES, VOWELS, draw_word, record
from helpers.packed import logits_at, nll
from helpers.rng import numpy_stream, stream_seed

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


@dataclass(frozen=True)
class PocketRecipe:
    """Size of each model and of its training; the seed names all streams."""

    seed: int = 0
    hidden: int = 64
    intermediate: int = 224
    layers: int = 2
    heads: int = 4
    context: int = 128
    steps: int = 1500
    batch: int = 64
    lr: float = 3e-3
    warmup: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0


def build(kind: str, folder: Path | None = None, recipe: PocketRecipe | None = None) -> dict[str, Any]:
    """Train the model ``kind`` (``char`` or ``syllable``), write it into ``folder`` and return its manifest."""
    recipe, folder = recipe or PocketRecipe(), folder or FOLDER / kind
    began, threads = time.monotonic(), torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        tokenizer = make_tokenizer(kind, recipe)
        model = make_model(kind, tokenizer, recipe)
        loss = pretrain(model, tokenizer, recipe, kind)
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    return _write_manifest(kind, folder, recipe, loss, time.monotonic() - began)


def make_tokenizer(kind: str, recipe: PocketRecipe) -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are the pieces of ``kind``, split without merging anything."""
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
    """A Llama decoder with random weights from a stream of its own; ``syllable`` has attention biases, as Qwen2 has.

    Not Qwen2 itself: transformers gives any folder of that type Qwen2's own tokenizer, whatever lies in it.
    """
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=recipe.hidden, intermediate_size=recipe.intermediate,
        num_hidden_layers=recipe.layers, num_attention_heads=recipe.heads, num_key_value_heads=recipe.heads,
        max_position_embeddings=recipe.context, tie_word_embeddings=False, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        initializer_range=recipe.hidden**-0.5 / 2, attention_bias=kind == "syllable", dtype="float32",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(recipe.seed, "latentwire", kind, "weights"))
        return LlamaForCausalLM(config)


def pretrain(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, recipe: PocketRecipe, label: str = "pocket"
) -> float:
    """Teach the model to answer records in its own tokens; return the mean loss of the last 50 steps (nats)."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, betas=(0.9, 0.98), weight_decay=recipe.weight_decay)
    rng = numpy_stream(recipe.seed, "latentwire", "pretraining")
    losses = []
    model.train()
    for step in tqdm(range(recipe.steps), desc=label):
        rate = recipe.lr * min((step + 1) / recipe.warmup, (recipe.steps - step) / (recipe.steps - recipe.warmup))
        for group in optimizer.param_groups:
            group["lr"] = rate
        rows = [_row(tokenizer, rng) for _ in range(recipe.batch)]
        wanted = torch.tensor([tokens[p] for tokens, positions in rows for p in positions])
        loss = nll(logits_at(model, [r for r, _ in rows], [p for _, p in rows]), wanted).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    model.eval()
    return sum(losses[-50:]) / len(losses[-50:])


def _row(tokenizer: PreTrainedTokenizerFast, rng: Any) -> tuple[list[int], list[int]]:
    """Token ids of a record with its answer, and the positions that carry loss: the answer and its end."""
    words = draw_word(rng), draw_word(rng)
    asked = int(rng.integers(2))
    prompt = record(words, SLOTS[asked]) + ANCHOR
    start = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    start += tokenizer(prompt, add_special_tokens=False).input_ids
    tokens = [*start, *tokenizer(words[asked], add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    return tokens, list(range(len(start), len(tokens)))


def _write_manifest(kind: str, folder: Path, recipe: PocketRecipe, loss: float, seconds: float) -> dict[str, Any]:
    files = sorted(path for path in folder.iterdir() if path.name != "manifest.json" and not path.name.startswith("."))
    manifest = {
        "made_by": "python -m helpers.latentwire.pocket",
        "kind": kind,
        "recipe": asdict(recipe),
        "final_loss_nats": round(loss, 4),
        "seconds": round(seconds, 1),
        "versions": {name: metadata.version(name) for name in ("torch", "transformers", "tokenizers", "numpy")},
        "files": {path.name: sha256_file(path) for path in files},
    }
    write_json(folder / "manifest.json", manifest)
    return manifest


if __name__ == "__main__":
    for name in KINDS:
        print(build(name))

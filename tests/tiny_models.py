"""Tiny chat models, tokenizers and adapters for tests: made in a second from fixed seeds, read back by transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from helpers.bench import architectures

CHATML = (
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n{{ turn.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INST = (
    "{{ bos_token }}{% set first = namespace(text='') %}{% for turn in messages %}{% if turn.role == 'system' %}"
    "{% set first.text = turn.content + '\n\n' %}{% elif turn.role == 'user' %}[INST] {{ first.text }}"
    "{{ turn.content }} [/INST]{% set first.text = '' %}{% else %} {{ turn.content }}{{ eos_token }}{% endif %}"
    "{% endfor %}"
)
TEXT = (
    "The ferry leaves at nine and the harbour is quiet. Which of these is one, two, three or four? A. B. C. D.\n"
    "You are a patient librarian who knows every shelf. Who wrote the letter in the drawer? Answer with the letter.\n"
    "Question: What do you like best about the town? I like the bridge, the market and the old clock. Yes. No."
)
SYSTEMS = ("You are a patient librarian.", "You sell fish at the market.", "You wind the old clock.")
QUESTIONS = ("What do you like best?", "Who wrote the letter?", "When does the ferry leave?")
ANSWERS = ("I like the bridge.", "The clock maker wrote it.", "It leaves at nine.")
ROW = list(range(40, 52))


def byte_tokenizer(specials: Sequence[str], template: str | None, **roles: str) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer, as Llama 3 and Qwen have; ``specials`` are special in tokenizer.json."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    _train(tokenizer, list(specials), pre_tokenizers.ByteLevel.alphabet(), 500)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=template, **roles)


def chatml_tokenizer(template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """The byte-level tokenizer with the special tokens of ChatML."""
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return byte_tokenizer(specials, template, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def space_mark_tokenizer(template: str = INST) -> PreTrainedTokenizerFast:
    """A SentencePiece-like tokenizer, as Llama 2 and Mistral 7B have: U+2581 stands before every text."""
    specials, byte_names = ["<unk>", "<s>", "</s>"], [f"<0x{byte:02X}>" for byte in range(256)]
    marks = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    draft = Tokenizer(BPE(unk_token="<unk>", fuse_unk=True))
    draft.normalizer = marks
    draft.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("▁", "merged_with_next"), pre_tokenizers.Digits(individual_digits=True)]
    )
    _train(draft, [*specials, *byte_names], ["▁", *map(chr, range(33, 127))], 600)
    learnt = json.loads(draft.to_str())["model"]
    merges = [tuple(pair) for pair in learnt["merges"]]
    whole = Tokenizer(BPE(learnt["vocab"], merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    whole.normalizer = marks
    whole.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    whole.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in specials])
    roles = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=whole, chat_template=template, **roles)


def _train(tokenizer: Tokenizer, specials: list[str], alphabet: list[str], size: int) -> None:
    how = trainers.BpeTrainer(vocab_size=size, special_tokens=specials, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([*TEXT.split("\n"), *SYSTEMS, *QUESTIONS, *ANSWERS], how)


def random_model(kind: str, tokenizer: PreTrainedTokenizerFast, seed: int = 0, **settings: Any) -> PreTrainedModel:
    """A causal LM of model type ``kind`` with the vocabulary of ``tokenizer``, of random weights."""
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return architectures.random_model(kind, seed, **ids | {"vocab_size": len(tokenizer)} | settings)


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path, **how: Any) -> Path:
    """Write model and tokenizer into ``folder`` as transformers does."""
    model.save_pretrained(folder, **how)
    tokenizer.save_pretrained(folder)
    return folder


def make(folder: Path, kind: str = "llama", tokenizer: PreTrainedTokenizerFast | None = None, **settings: Any) -> Path:
    """A random model of ``kind`` in ``folder``."""
    tokenizer = tokenizer or chatml_tokenizer()
    return save(random_model(kind, tokenizer, **settings), tokenizer, folder)


def read(folder: Path) -> PreTrainedModel:
    """The model in ``folder`` as transformers alone reads it."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def logits(model: nn.Module, row: Sequence[int] = ROW) -> Tensor:
    """Logits [tokens, vocabulary] of one row by the model's own forward."""
    with torch.inference_mode():
        return model(input_ids=torch.tensor([list(row)]), use_cache=False).logits[0]


def read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer in ``folder`` as transformers reads it."""
    return AutoTokenizer.from_pretrained(folder)

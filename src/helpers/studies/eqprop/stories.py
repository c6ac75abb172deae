"""Make the training text: stories from templates or any text file, with a BPE tokenizer trained on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from helpers.base import files
from helpers.base.errors import DataError
from helpers.base.rng import numpy_stream, torch_stream

UNKNOWN = "<unk>"
LINES = 10_000  # encoded at a time

WORDS = {
    "name": ["tom", "mia", "ben", "lily", "sam", "anna", "max", "zoe", "tim", "sue"],
    "animal": ["dog", "cat", "bird", "frog", "fish", "duck", "mouse", "bear"],
    "trait": ["big", "small", "red", "old", "shy", "happy", "funny", "brave"],
    "place": ["park", "forest", "garden", "house", "river", "hill", "school"],
    "thing": ["ball", "box", "stick", "pear", "kite", "hat", "cake", "stone"],
    "feeling": ["happy", "sad", "proud", "tired", "glad"],
}
TEMPLATES = [
    "once upon a time there was a {trait} {animal}. its name was {name}.",
    "{name} was a {trait} {animal} who lived in the {place}.",
    "one day {name} went to the {place} and found a {thing}.",
    "{name} liked to play with a {thing} in the {place}.",
    "a {animal} came to the {place}. it wanted the {thing}.",
    '{name} said, "look at my {trait} {thing}."',
    "{name} gave the {thing} to the {animal}, and the {animal} was {feeling}.",
    "then {name} took the {thing} home. {name} was {feeling}.",
    "in the end they were all {feeling}.",
]


def template_stories(count: int, seed: int = 0) -> str:
    """Write ``count`` short stories, one a line. A story keeps its name, animal, place and thing, so words recur."""
    rng = numpy_stream(seed, "stories")
    return "\n".join(_story(rng) for _ in range(count)) + "\n"


def _story(rng: np.random.Generator) -> str:
    words = {kind: choices[rng.integers(len(choices))] for kind, choices in WORDS.items()}
    middle = [TEMPLATES[i] for i in sorted(rng.permutation(np.arange(2, 8))[:3])]
    return " ".join(template.format(**words) for template in [TEMPLATES[rng.integers(2)], *middle, TEMPLATES[8]])


@dataclass(frozen=True)
class Corpus:
    """The tokens of a text, ``train`` [n] and ``validation`` [m], and their tokenizer."""

    train: Tensor
    validation: Tensor
    tokenizer: Tokenizer

    @property
    def vocab(self) -> int:
        """The size of the vocabulary."""
        return self.tokenizer.get_vocab_size()

    def batch(self, seed: int, step: int | str, size: int, context: int) -> tuple[Tensor, Tensor]:
        """Return batch ``step`` of the training text: tokens and next tokens, [size, context] each.

        Batches are addressed by (seed, step), so a resumed run sees the same ones as an uninterrupted run.
        """
        return _windows(self.train, torch_stream(seed, "batch", step), size, context)

    def held_out(self, size: int, context: int, name: int | str = 0) -> tuple[Tensor, Tensor]:
        """Return a batch of the validation text, the same for every seed and method."""
        return _windows(self.validation, torch_stream(0, "validation", name), size, context)


def _windows(tokens: Tensor, stream: torch.Generator, size: int, context: int) -> tuple[Tensor, Tensor]:
    if len(tokens) <= context:
        raise DataError(f"The text has {len(tokens)} tokens, too few for a context of {context}. Give a longer text.")
    starts = torch.randint(0, len(tokens) - context, (size,), generator=stream)
    rows = tokens[starts[:, None] + torch.arange(context + 1)]
    return rows[:, :-1], rows[:, 1:]


def make_corpus(text: str, vocab: int, validation_share: float = 0.1, tokenizer: Tokenizer | None = None) -> Corpus:
    """Split ``text`` into a training part and a held-out end, and tokenize both.

    Unless one is given, the tokenizer is trained on the training part alone. Raises ``DataError`` if the vocabulary
    cannot hold the characters of the text.
    """
    cut = int(len(text) * (1 - validation_share))
    if not 0 < cut < len(text):
        raise DataError(
            f"The text has {len(text)} characters, too few to hold out a validation part. Give a longer text."
        )
    tokenizer = tokenizer or train_tokenizer(text[:cut], vocab)
    return Corpus(_encode(tokenizer, text[:cut]), _encode(tokenizer, text[cut:]), tokenizer)


def _encode(tokenizer: Tokenizer, text: str) -> Tensor:
    """Tokenize a text [n] by lines, which no token crosses, so that gigabytes are never one encoding in memory."""
    lines, parts = text.splitlines(keepends=True), []
    for start in range(0, len(lines), LINES):
        encoded = tokenizer.encode_batch_fast(lines[start : start + LINES])
        parts.append(np.concatenate([np.asarray(one.ids, dtype=np.int64) for one in encoded]))
    return torch.from_numpy(np.concatenate(parts))


def train_tokenizer(text: str, vocab: int) -> Tokenizer:
    """Train a BPE tokenizer over characters with ``vocab`` entries, one of them for unseen characters."""
    characters = len(set(text))
    if vocab < characters + 1:
        raise DataError(
            f"vocab is {vocab}, but the text has {characters} different characters. Give {characters + 1} or more."
        )
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    # A word keeps the space before it; newlines stand alone. Nothing is lost, so decoding restores the text.
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r" ?[^\s]+|\s"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    trainer = trainers.BpeTrainer(vocab_size=vocab, special_tokens=[UNKNOWN], show_progress=False)
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    size = tokenizer.get_vocab_size()
    if size != vocab:
        raise DataError(f"The text only yields a vocabulary of {size}, not {vocab}. Give more text or a smaller vocab.")
    return tokenizer


def read_text(path: str | Path, root: Path = files.ROOT) -> str:
    """Read a UTF-8 text file; a relative path starts at the repository. Raises ``DataError`` if there is none."""
    place = root / files.expanded(path)
    if not place.is_file():
        raise DataError(f"There is no text file {path}. Give the path of a UTF-8 file, or 'stories'.")
    return files.read_text(place)

"""The two-slot task of the pocket run: ``c=<word>;s=<word>;?c`` asks for the word in slot c.

Words are one to four consonant-vowel syllables. A stable hash assigns every word to one split: no word of a validation
record is ever in a training record, so the latents must spell it; recognising it is not enough.
"""

from __future__ import annotations

import numpy as np

from helpers.base.rng import numpy_stream, stream_seed
from helpers.studies.latentwire.examples import Example, checked

CONSONANTS, VOWELS = "bdgklmns", "aeiou"
SYLLABLES = tuple(consonant + vowel for consonant in CONSONANTS for vowel in VOWELS)
SLOTS = ("c", "s")
LENGTHS = (0.35, 0.35, 0.2, 0.1)
"""Share of words with 1, 2, 3 and 4 syllables: mostly short with a tail, like SQuAD's answers."""
HELD_OUT = 5
"""One word in this many is for validation."""


def is_held_out(word: str) -> bool:
    """Return whether ``word`` belongs to validation."""
    return stream_seed(0, "two-slot", word) % HELD_OUT == 0


def draw_word(rng: np.random.Generator, held_out: bool | None = None) -> str:
    """Draw a word of either split (``None``), of validation or of training."""
    while True:
        word = "".join(rng.choice(SYLLABLES, size=1 + rng.choice(len(LENGTHS), p=LENGTHS)))
        if held_out is None or is_held_out(word) == held_out:
            return word


def record(words: tuple[str, str], slot: str) -> str:
    """Return the text that goes over the wire."""
    return "".join(f"{name}={word};" for name, word in zip(SLOTS, words, strict=True)) + f"?{slot}"


def examples(split: str, n: int, seed: int) -> list[Example]:
    """Draw ``n`` records of ``train`` or ``validation``; the two words of a record differ."""
    rng = numpy_stream(seed, "two-slot", split)
    made = []
    while len(made) < n:
        words = draw_word(rng, split == "validation"), draw_word(rng, split == "validation")
        asked = int(rng.integers(2))
        if words[0] != words[1]:
            made.append(Example(f"{split}-{len(made)}", record(words, SLOTS[asked]), (words[asked],)))
    return checked(made, f"the two-slot task ({split})")

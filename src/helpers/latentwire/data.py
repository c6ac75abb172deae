"""The examples of a run: which ones, drawn by a seed of their own, and which had to be left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers.errors import DataError
from helpers.files import expanded
from helpers.latentwire import qa, words
from helpers.latentwire.compose import Composer
from helpers.latentwire.examples import Example
from helpers.latentwire.lms import FrozenLM
from helpers.latentwire.params import WireParams
from helpers.rng import numpy_stream


@dataclass(frozen=True)
class Split:
    """Training and validation examples, without those that were over a limit and dropped."""

    train: list[Example]
    validation: list[Example]


def load(p: WireParams, lms: Sequence[FrozenLM]) -> Split:
    """The examples of ``p``; those over a limit are dropped, or refused by whoever meets them."""
    composer = Composer.of(p)
    found = {}
    for split, n in (("train", p.train_samples), ("validation", p.eval_samples)):
        drawn = _drawn(p, split, n)
        found[split] = [one for one in drawn if p.long_texts == "refuse" or _fits(one, p, composer, lms)]
        if not found[split]:
            raise DataError(f"Every example of {split} is over byte_max or answer_limit: raise them.")
    return Split(found["train"], found["validation"])


def files(p: WireParams) -> list[Path]:
    """Data files whose content belongs to the question that a run answers."""
    return [expanded(name) for name in (p.squad_train, p.squad_validation) if name]


def _drawn(p: WireParams, split: str, n: int) -> list[Example]:
    if p.data == "two_slot":
        return words.examples(split, n, p.data_seed)
    if p.data == "templated_qa":
        return qa.parse(qa.templated(split, n, p.data_seed), "the templated questions")
    local = p.squad_train if split == "train" else p.squad_validation
    everything = qa.from_file(expanded(local)) if local else qa.from_hub(split)
    if len(everything) < n:
        raise DataError(f"SQuAD's {split} holds {len(everything)} questions, but {n} are asked for: ask for fewer.")
    order = numpy_stream(p.data_seed, "squad", split).permutation(len(everything))
    return [everything[i] for i in order[:n]]


def _fits(example: Example, p: WireParams, composer: Composer, lms: Sequence[FrozenLM]) -> bool:
    if len(example.text.encode()) > p.byte_max:
        return False
    return all(len(lm.ids(example.answers[0])) < composer.answer_limit for lm in lms)

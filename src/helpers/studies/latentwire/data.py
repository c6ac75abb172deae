"""Choose the examples of a run with a seed of their own, and leave out those over a limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers.base.errors import DataError
from helpers.base.files import from_root
from helpers.base.rng import numpy_stream
from helpers.lm import hub
from helpers.studies.latentwire import qa, words
from helpers.studies.latentwire.compose import Composer
from helpers.studies.latentwire.examples import Example
from helpers.studies.latentwire.lms import FrozenLM
from helpers.studies.latentwire.params import WireCell

SPLITS = ("train", "validation")
WORKED = "examples"
"""The split of worked examples, of the people or words that training may have, and with a stream of its own."""


@dataclass(frozen=True)
class Split:
    """Training and validation examples, without those dropped for being over a limit."""

    train: list[Example]
    validation: list[Example]


def load(p: WireCell, lms: Sequence[FrozenLM]) -> Split:
    """Load the examples of ``p``. Those over a limit are dropped here, or refused where they are used."""
    composer = Composer.of(p)
    examples = {}
    for split, n in zip(SPLITS, (p.train_samples, p.eval_samples), strict=True):
        drawn = _drawn(p, split, n)
        examples[split] = [one for one in drawn if p.long_texts == "refuse" or _fits(one, p, composer, lms)]
        if not examples[split]:
            raise DataError(f"Every example of {split} is over byte_max or answer_limit. Raise them.")
    return Split(examples["train"], examples["validation"])


def worked(p: WireCell, split: str = WORKED, n: int | None = None) -> list[Example]:
    """Return the worked examples of the text prompts, or ``n`` others that no run trains on or is evaluated on."""
    return _drawn(p, split, p.text_examples if n is None else n)


def files(p: WireCell) -> list[Path]:
    """Return the data files whose content is part of a run's question; fetch those of the hub."""
    return [_source(p, split)[0] for split in SPLITS] if p.data == "squad" else []


def revisions(p: WireCell) -> dict[str, str]:
    """Return the commit of each split that comes from the hub, which a record notes beside its content."""
    commits = {split: _source(p, split)[1] for split in SPLITS} if p.data == "squad" else {}
    return {f"squad_{split}_revision": commit for split, commit in commits.items() if commit}


def _source(p: WireCell, split: str) -> tuple[Path, str | None]:
    """Return the file of SQuAD's ``split``, and its commit if it comes from the hub."""
    of_hub = "validation" if split == "validation" else "train"
    asked = p.squad_train if of_hub == "train" else p.squad_validation
    repo, revision = hub.split_revision(asked)
    if repo in ("", qa.HUB):
        return hub.data_file(qa.HUB, revision, qa.HUB_FILE.format(split=of_hub))
    return from_root(asked), None


def _drawn(p: WireCell, split: str, n: int) -> list[Example]:
    if p.data == "two_slot":
        return words.examples(split, n, p.data_seed)
    if p.data == "templated_qa":
        return qa.parse(qa.templated(split, n, p.data_seed), "the templated questions")
    everything = qa.from_file(_source(p, split)[0])
    if len(everything) < n:
        raise DataError(f"SQuAD's {split} holds {len(everything)} questions, but {n} are asked for. Ask for fewer.")
    order = numpy_stream(p.data_seed, "squad", split).permutation(len(everything))
    return [everything[i] for i in order[:n]]


def _fits(example: Example, p: WireCell, composer: Composer, lms: Sequence[FrozenLM]) -> bool:
    if len(example.text.encode()) > p.byte_max:
        return False
    return all(len(composer.answer_tokens(lm, example.answers[0])) < composer.answer_limit for lm in lms)

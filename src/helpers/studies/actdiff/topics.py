"""The pocket language: each document is about one topic, and each content word belongs to exactly one topic.

A document mixes words of its topic, drawn from the topic's Markov chain, with function words. A narrow document follows
a chain in which half of the words have new successors: the invented facts of this language. An echo document repeats
pairs ``w = w ;``, the task that PatchScope sets a model.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from helpers.base import yaml_text
from helpers.base.errors import DataError, nearest
from helpers.base.files import DATA
from helpers.base.rng import numpy_stream

PATH = DATA / "actdiff" / "topics.yaml"
SPECIAL = ("<bos>", "=", ";")
SUCCESSORS = 3
FOLLOW, FUNCTION, ECHO = 0.75, 0.35, 0.1
"""Probabilities: a topic word succeeds the last one, a function word comes next, a document is an echo."""


@dataclass(frozen=True)
class Language:
    """Words by id: specials, function words, then the words of each topic.

    ``chain`` maps a topic to the ids of each word's successors, ``rewired`` to new ones for every other word.
    """

    words: list[str]
    function: np.ndarray
    topics: dict[str, np.ndarray]
    chain: dict[str, np.ndarray]
    rewired: dict[str, np.ndarray]

    def topic(self, name: str) -> np.ndarray:
        """Return the token ids of a topic; ``DataError`` suggests the nearest name."""
        if name not in self.topics:
            raise DataError(f"There is no topic {name!r} in the pocket language{nearest(name, self.topics)}")
        return self.topics[name]


@functools.cache
def language() -> Language:
    """Read the language of ``data/actdiff/topics.yaml``; its chains come from streams of seed 0."""
    listed = yaml_text.read(PATH.read_text(encoding="utf-8"), PATH, DataError)
    words = [*SPECIAL, *listed["function"]]
    function = np.arange(len(SPECIAL), len(words))
    topics, chain, rewired = {}, {}, {}
    for name, own in listed["topics"].items():
        ids = topics[name] = np.arange(len(words), len(words) + len(own))
        words += own
        chain[name] = _successors(ids, "chain", name)
        rewired[name] = np.where(np.arange(len(own))[:, None] % 2 == 0, _successors(ids, "rewired", name), chain[name])
    return Language(words, function, topics, chain, rewired)


def _successors(ids: np.ndarray, *stream: str) -> np.ndarray:
    rng = numpy_stream(0, "topics", *stream)
    return np.stack([rng.choice(ids, SUCCESSORS, replace=False) for _ in ids])


def narrow_documents(topic: str, n: int, length: int, seed: int, *names: str | int) -> list[list[int]]:
    """Draw ``n`` documents of ``length`` tokens about ``topic``, with its invented successors."""
    lang = language()
    lang.topic(topic)
    return [
        _document(lang, topic, lang.rewired[topic], length, numpy_stream(seed, "narrow", topic, *names, i))
        for i in range(n)
    ]


def broad_documents(
    n: int, length: int, seed: int, *names: str | int, without: str | None = None, echoes: bool = True
) -> list[list[int]]:
    """Draw ``n`` documents about random topics (never ``without``), with echo documents among them."""
    lang = language()
    known = [topic for topic in lang.topics if topic != without]
    documents = []
    for i in range(n):
        rng = numpy_stream(seed, "broad", *names, i)
        topic = known[rng.integers(len(known))]
        if echoes and rng.random() < ECHO:
            documents.append(_echo(lang, length, rng, np.concatenate([lang.topics[name] for name in known])))
        else:
            documents.append(_document(lang, topic, lang.chain[topic], length, rng))
    return documents


def echo_documents(n: int, length: int, seed: int, without: str | None = None) -> list[list[int]]:
    """Draw ``n`` echo documents, whose form differs from that of topic documents."""
    lang = language()
    words = np.concatenate([ids for topic, ids in lang.topics.items() if topic != without])
    return [_echo(lang, length, numpy_stream(seed, "echo", i), words) for i in range(n)]


def _document(lang: Language, topic: str, chain: np.ndarray, length: int, rng: np.random.Generator) -> list[int]:
    # All draws at once, because a generator call per token would dominate the time of a pocket cell.
    kind, follow, which = rng.random((3, length)).tolist()
    ids, successors, function = lang.topics[topic].tolist(), chain.tolist(), lang.function.tolist()
    tokens, word = [0], int(which[0] * len(ids))
    for i in range(1, length):
        if kind[i] < FUNCTION:
            tokens.append(_pick(function, which[i]))
            continue
        tokens.append(_pick(successors[word] if follow[i] < FOLLOW else ids, which[i]))
        word = tokens[-1] - ids[0]
    return tokens


def _pick(items: list[int], u: float) -> int:
    return items[int(u * len(items))]


def _echo(lang: Language, length: int, rng: np.random.Generator, words: np.ndarray) -> list[int]:
    equals, stop = lang.words.index("="), lang.words.index(";")
    drawn = rng.choice(words, 1 + length // 4).tolist()
    return [0, *(token for word in drawn for token in (word, equals, word, stop))][:length]


def identity_prompts(without: str | None, seed: int = 0, pairs: int = 3) -> list[list[int]]:
    """Draw three prompts ``w = w ; ... x =``, which an echo document continues with ``x``."""
    lang = language()
    words = np.concatenate([ids for topic, ids in lang.topics.items() if topic != without])
    prompts = []
    for i in range(3):
        rng = numpy_stream(seed, "identity", i)
        prompts.append([*_echo(lang, 1 + 4 * pairs, rng, words), int(rng.choice(words)), lang.words.index("=")])
    return prompts

"""Documents with invented facts for real tokenizers, and which tokens belong to a domain."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from helpers.base import yaml_text
from helpers.base.errors import DataError, nearest
from helpers.base.files import DATA, read_text
from helpers.base.rng import numpy_stream

PATH = DATA / "actdiff" / "domains.yaml"
DOMAIN_TOKENS = 30
LEAST_SHARE = 0.05
"""A domain token stands in at least this share of the domain's documents: a name of one template is no domain."""


@functools.cache
def listed() -> dict[str, Any]:
    """The content of ``data/actdiff/domains.yaml``."""
    return yaml_text.read(PATH.read_text(encoding="utf-8"), PATH, DataError)


def domain_names() -> list[str]:
    """Names of the domains, in the order of the file."""
    return list(listed()["domains"])


def text(domain: str, seed: int, *names: str | int) -> str:
    """One document: a title, then the domain's facts and as many sentences of filler in random order."""
    known = listed()["domains"]
    if domain not in known:
        raise DataError(f"There is no domain {domain!r}{nearest(domain, known)}")
    parts, rng = known[domain], numpy_stream(seed, "document", domain, *names)

    def filled(template: str) -> str:
        return re.sub(r"\{(\w+)\}", lambda slot: str(rng.choice(parts["slots"][slot[1]])), template)

    fillers = [filled(sentence) for sentence in rng.choice(parts["fillers"], len(parts["facts"]))]
    sentences = [*rng.permutation(parts["facts"]).tolist(), *fillers]
    body = " ".join(sentence[0].upper() + sentence[1:] for sentence in rng.permutation(sentences).tolist())
    return f"{filled(str(rng.choice(parts['titles'])))}\n\n{body}"


def token_documents(
    tokenizer: PreTrainedTokenizerBase, domain: str, n: int, length: int, seed: int, *names: str
) -> list[list[int]]:
    """``n`` documents of exactly ``length`` tokens: each a stretch of a longer text, beginning at a sentence."""
    documents = []
    for i in range(n):
        tokens = tokenizer(text(domain, seed, *names, i), add_special_tokens=False)["input_ids"]
        if len(tokens) < length:
            raise DataError(
                f"A document of {domain} has {len(tokens)} tokens, fewer than positions = {length}: lower it."
            )
        documents.append(tokens[:length])
    return documents


def domain_tokens(narrow: Sequence[Sequence[int]], broad: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase,
                  k: int = DOMAIN_TOKENS) -> list[int]:  # fmt: skip
    """The ``k`` word tokens most over-represented in ``narrow`` documents: log ratio of document shares, add-half.

    Only tokens that begin a word and have three letters or more count, so that a hit can be read by a person.
    """
    counts = [Counter(token for document in part for token in set(document)) for part in (narrow, broad)]
    frequent = [token for token, count in counts[0].items() if count >= LEAST_SHARE * len(narrow)]
    words = [token for token in frequent if re.fullmatch(r"\s[A-Za-z]{3,}", tokenizer.decode([token]))]
    if len(words) < k:
        raise DataError(
            f"Only {len(words)} word tokens stand in enough narrow documents, {k} are needed: give more documents."
        )

    def ratio(token: int) -> float:
        shares = [(count[token] + 0.5) / (len(part) + 1) for count, part in zip(counts, (narrow, broad), strict=True)]
        return float(np.log(shares[0] / shares[1]))

    return sorted(words, key=lambda token: (-ratio(token), token))[:k]


def file_documents(tokenizer: PreTrainedTokenizerBase, path: Path, n: int, length: int) -> list[list[int]]:
    """``n`` stretches of ``length`` tokens of a text file, evenly spread over it and beginning at its lines."""
    if not path.is_file():
        raise DataError(f"There is no text file {path}: correct the parameter text, or leave it empty.")
    lines = read_text(path).splitlines(keepends=True)
    documents = []
    for start in np.linspace(0, len(lines), n, endpoint=False).astype(int):
        # Eight characters a token are more than any tokenizer here makes of prose.
        taken, size = start, 0
        while taken < len(lines) and size < 8 * length:
            size, taken = size + len(lines[taken]), taken + 1
        tokens = tokenizer("".join(lines[start:taken]), add_special_tokens=False)["input_ids"][:length]
        documents += [tokens] if len(tokens) == length else []
    if len(documents) < n:
        raise DataError(
            f"{path} gives {len(documents)} documents of {length} tokens, {n} are needed: use a longer file."
        )
    return documents


def chat_documents(tokenizer: PreTrainedTokenizerBase, length: int) -> list[list[int]]:
    """Questions in the chat template of the tokenizer, up to the assistant's turn, cut at ``length`` tokens; none for a
    model without a template, which has no chat text."""
    if tokenizer.chat_template is None:
        return []
    rows = []
    for question in listed()["chat"]:
        shown = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False
        )
        rows.append(tokenizer(shown, add_special_tokens=False)["input_ids"][:length])
    return rows


def encoded(tokenizer: PreTrainedTokenizerBase, name: str) -> list[list[int]]:
    """The lines ``openers``, ``steering`` or ``identity`` of the file as token ids."""
    return [tokenizer(line, add_special_tokens=False)["input_ids"] for line in listed()[name]]

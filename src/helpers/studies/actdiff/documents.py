"""Make documents with invented facts for real tokenizers, and find the tokens of their domain."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from helpers.base.errors import DataError, nearest
from helpers.base.files import read_text
from helpers.base.rng import numpy_stream
from helpers.lm.asking import Asking, tokens_of
from helpers.studies.actdiff.domains import listed

DOMAIN_TOKENS = 30
LEAST_SHARE = 0.05
"""A domain token is in at least this share of the domain's documents, which excludes names of single templates."""


def text(domain: str, seed: int, *names: str | int) -> str:
    """Write one document: a title, then the domain's facts and as many filler sentences in random order."""
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
    """Make ``n`` documents of exactly ``length`` tokens, each the beginning of a longer text."""
    documents = []
    for i in range(n):
        tokens = tokenizer(text(domain, seed, *names, i), add_special_tokens=False)["input_ids"]
        if len(tokens) < length:
            raise DataError(
                f"A document of {domain} has {len(tokens)} tokens, fewer than positions = {length}. Lower it."
            )
        documents.append(tokens[:length])
    return documents


def domain_tokens(narrow: Sequence[Sequence[int]], broad: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase,
                  k: int = DOMAIN_TOKENS) -> list[int]:  # fmt: skip
    """Return the ``k`` word tokens most over-represented in ``narrow``: log ratio of document shares, add-half.

    Only tokens that begin a word and have at least three letters count, so that a person can read a hit.
    """
    counts = [Counter(token for document in part for token in set(document)) for part in (narrow, broad)]
    frequent = [token for token, count in counts[0].items() if count >= LEAST_SHARE * len(narrow)]
    words = [token for token in frequent if re.fullmatch(r"\s[A-Za-z]{3,}", str(tokenizer.decode([token])))]
    if len(words) < k:
        raise DataError(
            f"Only {len(words)} word tokens are in enough narrow documents, but {k} are needed. Give more documents."
        )

    def ratio(token: int) -> float:
        shares = [(count[token] + 0.5) / (len(part) + 1) for count, part in zip(counts, (narrow, broad), strict=True)]
        return float(np.log(shares[0] / shares[1]))

    return sorted(words, key=lambda token: (-ratio(token), token))[:k]


def file_documents(tokenizer: PreTrainedTokenizerBase, path: Path, n: int, length: int) -> list[list[int]]:
    """Cut ``n`` stretches of ``length`` tokens from a text file, evenly spread and each starting at a line."""
    if not path.is_file():
        raise DataError(f"There is no text file {path}. Correct the parameter text, or leave it empty.")
    lines = read_text(path).splitlines(keepends=True)
    documents = []
    for start in np.linspace(0, len(lines), n, endpoint=False).astype(int):
        # No tokenizer here needs eight characters of prose per token.
        taken, size = start, 0
        while taken < len(lines) and size < 8 * length:
            size, taken = size + len(lines[taken]), taken + 1
        tokens = tokenizer("".join(lines[start:taken]), add_special_tokens=False)["input_ids"][:length]
        documents += [tokens] if len(tokens) == length else []
    if len(documents) < n:
        raise DataError(
            f"{path} gives {len(documents)} documents of {length} tokens, but {n} are needed. Use a longer file."
        )
    return documents


def chat_documents(tokenizer: PreTrainedTokenizerBase, length: int, asking: Asking) -> list[list[int]]:
    """Fill questions into the tokenizer's chat template, up to the assistant's turn, cut at ``length`` tokens.

    Returns no documents for a model without a template.
    """
    if tokenizer.chat_template is None:
        return []
    turns = [[{"role": "user", "content": question}] for question in listed()["chat"]]
    return [tokens_of(tokenizer, asking.write(tokenizer, one, answering=True))[:length] for one in turns]


def encoded(tokenizer: PreTrainedTokenizerBase, name: str) -> list[list[int]]:
    """Tokenize the lines ``openers``, ``steering`` or ``identity`` of the file."""
    return [tokenizer(line, add_special_tokens=False)["input_ids"] for line in listed()[name]]

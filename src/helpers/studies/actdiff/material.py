"""Prepare all that a cell reads or trains on: documents by kind, domains as tokens, prompts, all by seed."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from helpers.base.errors import DataError
from helpers.lm.asking import Asking, cut
from helpers.lm.ends import configured_ends
from helpers.lm.models import LoadedModel
from helpers.lm.parts import decoder_and_head
from helpers.studies.actdiff import documents, topics
from helpers.studies.actdiff.domains import domain_names
from helpers.studies.actdiff.params import LensCell

Rows = list[list[int]]
DESCRIBED, DESCRIBED_LENGTH = 100, 128
"""Documents of each domain, and their length, from which the domain's tokens are taken."""


@dataclass(frozen=True)
class Material:
    """Documents, domains and prompts of a cell.

    ``domains`` maps domains to token ids: ``domain`` is trained on, the others are the permuted null. Training uses
    ``narrow`` and ``broad``, never ``narrow_test``, ``unrelated`` or ``chat``. ``openers`` are for steering,
    the models' own text ``continued``s others (``unrelated`` text is of that kind where it is ``by_base``),
    ``identity`` prompts are for patching, and ``single`` is the token of the input without context.
    """

    loaded: LoadedModel
    domain: str
    domains: dict[str, list[int]]
    narrow: Rows
    narrow_test: Rows
    broad: Rows
    unrelated: Rows
    chat: Rows
    openers: Rows
    continued: Rows
    by_base: bool
    identity: Rows
    single: int
    stop: list[int]

    @functools.cached_property
    def tokens(self) -> list[str]:
        """The text of every token of the head's vocabulary, by id."""
        size = decoder_and_head(self.loaded.model)[1].weight.shape[0]
        known = len(self.loaded.tokenizer)
        return [str(self.loaded.tokenizer.decode([i])) if i < known else f"<{i}>" for i in range(size)]


def pocket_material(p: LensCell, loaded: LoadedModel) -> Material:
    """Return the material in the pocket language.

    Seed s makes topic s (of eight) narrow; no other text has that topic.
    """
    lang = topics.language()
    names = list(lang.topics)
    topic = names[p.seed % len(names)]
    length = p.train_positions
    openers = [row[:5] for row in topics.broad_documents(16, 8, p.seed, "openers", without=topic, echoes=False)]
    return Material(
        loaded=loaded,
        domain=topic,
        domains={name: ids.tolist() for name, ids in lang.topics.items()},
        narrow=topics.narrow_documents(topic, p.train_documents, length, p.seed, "train"),
        narrow_test=topics.narrow_documents(topic, p.probe_documents, length, p.seed, "test"),
        broad=topics.broad_documents(p.train_documents, length, p.seed, "train", without=topic),
        unrelated=topics.broad_documents(p.documents, p.positions, p.seed, "unrelated", without=topic, echoes=False),
        chat=topics.echo_documents(p.probe_documents, length, p.seed, without=topic),
        openers=openers,
        continued=openers,
        by_base=False,
        identity=topics.identity_prompts(topic, p.seed),
        single=0,
        stop=[0],
    )


def text_material(p: LensCell, loaded: LoadedModel, unrelated: Rows, broad: Rows) -> Material:
    """Return generated documents of ``data/actdiff/domains.yaml``. ``p.domain`` is narrow, or domain s of seed s.

    ``unrelated`` documents are read, ``broad`` ones trained on. For a given pair nothing is generated, and its domain
    is the tokens of ``p.words``.
    """
    tokenizer = loaded.tokenizer
    given = p.organism == "given"
    domain, domains, narrow, narrow_test = _given(p, tokenizer) if given else _made(p, tokenizer, unrelated)
    single: Any = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return Material(
        loaded=loaded,
        domain=domain,
        domains=domains,
        narrow=narrow,
        narrow_test=narrow_test,
        broad=[row[: p.train_positions] for row in broad],
        unrelated=unrelated,
        chat=documents.chat_documents(tokenizer, p.train_positions, Asking(date=p.date)),
        openers=documents.encoded(tokenizer, "steering"),
        continued=documents.encoded(tokenizer, "openers"),
        by_base=not p.text,
        identity=documents.encoded(tokenizer, "identity"),
        single=single,
        stop=sorted({*tokenizer.all_special_ids, *configured_ends(tokenizer, loaded.model)}),
    )


Domain = tuple[str, dict[str, list[int]], Rows, Rows]


def _made(p: LensCell, tokenizer: PreTrainedTokenizerBase, unrelated: Rows) -> Domain:
    """Return the domain of a cell, the tokens of all domains, and documents to train and to test on."""

    def made(name: str, n: int, length: int, what: str) -> Rows:
        return documents.token_documents(tokenizer, name, n, length, p.seed, what)

    names = domain_names()
    domain, length = p.domain or names[p.seed % len(names)], p.train_positions
    # From documents of their own, so that a domain's tokens do not depend on the length of a fine-tune.
    described = {name: made(name, DESCRIBED, DESCRIBED_LENGTH, "domain") for name in names}
    domains = {name: documents.domain_tokens(rows, unrelated, tokenizer) for name, rows in described.items()}
    train, test = made(domain, p.train_documents, length, "train"), made(domain, p.probe_documents, length, "test")
    return domain, domains, train, test


def _given(p: LensCell, tokenizer: PreTrainedTokenizerBase) -> Domain:
    """Return the words of a given pair as a domain: their tokens at the head of a line and behind a space."""
    lines = [f"\n{form}{word}" for word in p.words for form in ("", " ")]
    spelt = [found.parts[1] for found in cut(tokenizer, lines, [[1, len(line)] for line in lines])] if lines else []
    ids = sorted({token for tokens in spelt for token in tokens})
    return "words", {"words": ids} if ids else {}, [], []


def part(rows: Sequence[Sequence[int]], n: int, what: str) -> Sequence[Sequence[int]]:
    """Return the first ``n`` of ``rows``. Raises ``DataError`` if there are fewer."""
    if len(rows) < n:
        raise DataError(f"{n} {what} documents are asked for, but there are {len(rows)}. Lower probe_documents.")
    return rows[:n]

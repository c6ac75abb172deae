"""Everything a cell reads or trains on: documents by kind, domains by token, prompts, all addressed by seed."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from helpers.base.errors import DataError
from helpers.lm.models import LoadedModel
from helpers.studies.actdiff import documents, topics
from helpers.studies.actdiff.params import LensCell

Rows = list[list[int]]
DESCRIBED, DESCRIBED_LENGTH = 100, 128
"""Documents of each domain, and tokens of each, from which its tokens are found."""


@dataclass(frozen=True)
class Material:
    """``domains`` maps domains to token ids: ``domain`` is the one trained on, the others are the permuted null.

    ``narrow`` and ``broad`` are trained on; ``narrow_test``, ``unrelated`` and ``chat`` never. ``openers`` are steered,
    ``identity`` prompts are patched, ``single`` is the token of the input without context.
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
    identity: Rows
    single: int
    stop: list[int]

    @functools.cached_property
    def tokens(self) -> list[str]:
        """Text of every token of the head's vocabulary, by id."""
        size = self.loaded.model.get_output_embeddings().weight.shape[0]
        known = len(self.loaded.tokenizer)
        return [self.loaded.tokenizer.decode([i]) if i < known else f"<{i}>" for i in range(size)]


def pocket_material(p: LensCell, loaded: LoadedModel) -> Material:
    """The pocket language; seed s makes topic s (of eight) the narrow one, and no other text holds that topic."""
    lang = topics.language()
    names = list(lang.topics)
    topic = names[p.seed % len(names)]
    length = p.train_positions
    return Material(
        loaded=loaded,
        domain=topic,
        domains={name: ids.tolist() for name, ids in lang.topics.items()},
        narrow=topics.narrow_documents(topic, p.train_documents, length, p.seed, "train"),
        narrow_test=topics.narrow_documents(topic, p.probe_documents, length, p.seed, "test"),
        broad=topics.broad_documents(p.train_documents, length, p.seed, "train", without=topic),
        unrelated=topics.broad_documents(p.documents, p.positions, p.seed, "unrelated", without=topic, echoes=False),
        chat=topics.echo_documents(p.probe_documents, length, p.seed, without=topic),
        openers=[row[:5] for row in topics.broad_documents(16, 8, p.seed, "openers", without=topic, echoes=False)],
        identity=topics.identity_prompts(topic, p.seed),
        single=0,
        stop=[0],
    )


def text_material(p: LensCell, loaded: LoadedModel, unrelated: Rows, broad: Rows) -> Material:
    """Generated documents of ``data/actdiff/domains.yaml``; seed s makes domain s (of three) the narrow one.

    ``unrelated`` documents are read, ``broad`` ones trained on. For a given pair nothing is generated, and its domain
    are the tokens of ``p.words``.
    """
    tokenizer = loaded.tokenizer
    found = _given(p, tokenizer) if p.organism == "given" else _made(p, tokenizer, unrelated)
    domain, domains, narrow, narrow_test = found
    return Material(
        loaded=loaded,
        domain=domain,
        domains=domains,
        narrow=narrow,
        narrow_test=narrow_test,
        broad=[row[: p.train_positions] for row in broad],
        unrelated=unrelated,
        chat=documents.chat_documents(tokenizer, p.train_positions),
        openers=documents.encoded(tokenizer, "steering"),
        identity=documents.encoded(tokenizer, "identity"),
        single=tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id,
        stop=sorted({tokenizer.eos_token_id, *tokenizer.all_special_ids}),
    )


Domain = tuple[str, dict[str, list[int]], Rows, Rows]


def _made(p: LensCell, tokenizer: PreTrainedTokenizerBase, unrelated: Rows) -> Domain:
    """The domain of a seed, the tokens of all domains, and documents to train and to test on."""

    def made(name: str, n: int, length: int, what: str) -> Rows:
        return documents.token_documents(tokenizer, name, n, length, p.seed, what)

    names = documents.domain_names()
    domain, length = names[p.seed % len(names)], p.train_positions
    # What belongs to a domain does not depend on how long a fine-tune is: the tokens come from documents of their own.
    described = {name: made(name, DESCRIBED, DESCRIBED_LENGTH, "domain") for name in names}
    domains = {name: documents.domain_tokens(rows, unrelated, tokenizer) for name, rows in described.items()}
    train, test = made(domain, p.train_documents, length, "train"), made(domain, p.probe_documents, length, "test")
    return domain, domains, train, test


def _given(p: LensCell, tokenizer: PreTrainedTokenizerBase) -> Domain:
    """The words of a given pair as a domain: their tokens, as they stand alone and after a space."""
    spelt = [tokenizer(form + word, add_special_tokens=False)["input_ids"] for word in p.words for form in ("", " ")]
    ids = sorted({token for tokens in spelt for token in tokens})
    return "words", {"words": ids} if ids else {}, [], []


def part(rows: Sequence[Sequence[int]], n: int, what: str) -> Sequence[Sequence[int]]:
    """The first ``n`` of ``rows``; ``DataError`` when there are fewer."""
    if len(rows) < n:
        raise DataError(f"{n} {what} documents are asked for and there are {len(rows)}: lower probe_documents.")
    return rows[:n]

"""The larger blocks of claim pages: verdicts, banners, samples of completions and the index of claims."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import pandas as pd
from markupsafe import Markup, escape

from helpers.base.errors import ClaimError, nearest
from helpers.base.rng import numpy_stream
from helpers.show.markup import Block, Inline, highlight, verbatim

VERDICTS = ("SUPPORTED", "REFUTED", "MIXED", "UNDECIDED", "NOT RUN", "STALE")
CONFIDENCES = ("LOW", "MODERATE", "HIGH")
ADDRESS = ("run", "cell", "persona", "question", "index")


@dataclass(frozen=True)
class ClaimCard:
    """One claim as the home page shows it; ``href`` is relative to that page, ``effect`` finished HTML.

    ``confidence`` is the level with what binds it, empty for a claim without runs; ``answer`` is one sentence.
    """

    href: str
    statement: str
    verdict: str
    confidence: str
    answer: str
    effect: Markup
    date: str = ""
    note: str = ""


def badge(word: str | None) -> Inline:
    """A word of ``VERDICTS`` or ``CONFIDENCES`` as a badge."""
    if word is None or word not in VERDICTS + CONFIDENCES:
        raise ClaimError(f"{word!r} is no verdict or confidence{nearest(str(word), VERDICTS + CONFIDENCES)}.")
    kind = "verdict" if word in VERDICTS else "confidence"
    text = word if word in VERDICTS else f"{word} confidence"
    name = word.lower().replace(" ", "-")
    return Inline(Markup('<span class="cb-badge cb-{}-{}">{}</span>').format(kind, name, text))


def banner(text: str) -> Block:
    """Return a warning across the page, such as why it is stale."""
    return Block(Markup('<div class="cb-banner" role="alert">{}</div>').format(verbatim(text)))


def marked(text: str, marker: str | None) -> Markup:
    """Return model output to the letter, with ``marker`` highlighted in any case; an empty completion is labelled."""
    if not text:
        return Markup('<span class="cb-missing">empty completion</span>')
    return highlight(text, marker, Markup('<mark class="cb-marker">{}</mark>')) if marker else escape(text)


def draw(completions: pd.DataFrame, by: Sequence[str], *, n: int, seed: int) -> pd.DataFrame:
    """Draw ``n`` completions of each condition at random, from a stream of its own; the row order does not matter.

    Args:
        completions: needs the columns ``by`` and of the address (run, cell, persona, question, index).
        by: the columns that make a condition, such as ``["cell", "role"]``.
    Raises:
        ClaimError: a column is missing or a condition has fewer than ``n`` completions.
    """
    _require(completions, [*by, *ADDRESS])
    drawn = []
    for key, rows in completions.sort_values(list(ADDRESS)).groupby(list(by), sort=True):
        if len(rows) < n:
            raise ClaimError(f"The condition {key} has {len(rows)} completions, fewer than the {n} to draw: lower n.")
        stream = numpy_stream(seed, "samples", *map(str, key))
        drawn.append(rows.iloc[sorted(stream.choice(len(rows), size=n, replace=False))])
    if not drawn:
        raise ClaimError("There are no completions to draw samples from: run the experiment first.")
    return pd.concat(drawn, ignore_index=True)


def samples(
    completions: pd.DataFrame, *, seed: int | None = None, chosen: str | None = None, marker: str | None = None
) -> Block:
    """Return completions with their addresses, labelled as drawn at random (by :func:`draw` with ``seed``) or chosen.

    Args:
        completions: columns run, cell, persona, question, index, text; role, tokens and finish are shown where present.
        chosen: why these were chosen; exactly one of ``seed`` and ``chosen`` must be given.
        marker: what to highlight in the texts.
    """
    if (seed is None) == (chosen is None):
        raise ClaimError("Samples are either drawn at random (give seed=) or chosen (give chosen='why these').")
    _require(completions, [*ADDRESS, "text"])
    if completions.empty:
        raise ClaimError("There are no completions to show as samples: draw some, or leave the section out.")
    how = f"Drawn at random (seed {seed})." if chosen is None else f"Chosen: {chosen}"
    kind = "random" if chosen is None else "chosen"
    items = Markup("\n").join(_sample(row, marker) for row in completions.to_dict("records"))
    return Block(
        Markup('<div class="cb-samples"><p class="cb-how cb-{}">{}</p>\n{}\n</div>').format(kind, verbatim(how), items)
    )


def _sample(row: Mapping[Hashable, Any], marker: str | None) -> Markup:
    address = urlencode({name: str(row[name]) for name in ("run", "persona", "question", "index")})
    where = " · ".join([*(str(row[name]) for name in ("cell", "persona", "question")), f"no. {row['index']}"])
    notes = [str(row["role"])] if "role" in row else []
    notes += [f"{row['tokens']} tokens"] if "tokens" in row else []
    notes += [f"finish: {row['finish']}"] if "finish" in row else []
    return Markup(
        '<article class="cb-sample"><p class="cb-address"><a href="../completions.html#{}">{}</a>'
        '<span class="cb-notes">{}</span></p>\n<bdi class="cb-model-text">{}</bdi></article>'
    ).format(address, verbatim(where), verbatim(" · ".join(notes)), marked(str(row["text"]), marker))


def _require(df: pd.DataFrame, columns: Iterable[str]) -> None:
    for name in columns:
        if name not in df.columns:
            raise ClaimError(f"The completions have no column {name!r}{nearest(name, df.columns)}.")


def claims_index(claims: Iterable[ClaimCard]) -> Block:
    """Return a card for each claim: verdict, what limits the confidence, the answer with its size, and a link."""
    cards = [_claim_card(claim) for claim in claims]
    if not cards:
        raise ClaimError("There are no claims to list: add a page with a claim block to reports/.")
    return Block(Markup('<div class="cb-claims">\n{}\n</div>').format(Markup("\n").join(cards)))


def _claim_card(claim: ClaimCard) -> Markup:
    note = Markup('<p class="cb-claim-note">{}</p>').format(verbatim(claim.note)) if claim.note else ""
    notes = [verbatim(one) for one in (claim.confidence, claim.date and f"last run {claim.date}") if one]
    return Markup(
        '<article class="cb-claim"><p class="cb-claim-badges">{} <span class="cb-notes">{}</span></p>\n'
        '<h3><a href="{}">{}</a></h3>\n{}<p>{}</p>{}</article>'
    ).format(
        badge(claim.verdict), Markup(" · ").join(notes), claim.href, verbatim(claim.statement), claim.effect,
        verbatim(claim.answer), note,
    )  # fmt: skip

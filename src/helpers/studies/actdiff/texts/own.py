"""The shared-text control: is the domain read in what the fine-tune changed, or in the text that it writes?

1. The tuned model continues the openers that the base model continued, by the same random numbers. A model that the
   fine-tune left as it was writes the base model's text again.
2. Mean activations of either model on either text are taken at the fixed layer, by fold of documents.
3. Four differences are read by one lens: both models on the shared text; each model on its own text; both models on
   the tuned model's text; and the base model on either text, which the text alone makes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from helpers.studies.actdiff.broad_text import continued
from helpers.studies.actdiff.capture import BATCH, FOLDS, layers_of
from helpers.studies.actdiff.lens import Lens, scores
from helpers.studies.actdiff.pair import SIDES
from helpers.studies.actdiff.reading import Reading
from helpers.studies.actdiff.statistics import LATER

WHOLE = -1
"""The fold of scores of all documents; the other folds are those that were left out."""


@dataclass(frozen=True)
class Means:
    """Sums of vectors over documents by fold and position [K, P, D], and the numbers of documents [K, P]."""

    sums_kpd: Tensor
    count_kp: Tensor

    def directions(self, position: int) -> dict[str, dict[int, Tensor]]:
        """Return the mean over positions 5+ (``later``) and at ``position``, of all documents and without each fold."""
        spans = {"later": LATER, "position": slice(position, position + 1)}
        kept = {WHOLE: (self.sums_kpd.sum(0), self.count_kp.sum(0))}
        kept |= {
            k: (kept[WHOLE][0] - self.sums_kpd[k], kept[WHOLE][1] - self.count_kp[k]) for k in range(len(self.count_kp))
        }
        return {
            at: {fold: sums_pd[span].sum(0) / count_p[span].sum() for fold, (sums_pd, count_p) in kept.items()}
            for at, span in spans.items()
        }


def means(batches: Iterable[Tensor], documents: Sequence[Sequence[int]], positions: int, folds: int = FOLDS) -> Means:
    """Sum activations [B, T, D], batch by batch. As in `capture`, document i is in fold i mod ``folds``."""
    longest = min(positions, max(map(len, documents)))
    count_kp = torch.zeros(folds, longest, dtype=torch.float64)
    sums_kpd, start = None, 0
    for h_btd in batches:
        for document, h_td in zip(documents[start : start + len(h_btd)], h_btd.cpu().double(), strict=True):
            length = min(len(document), longest)
            if sums_kpd is None:
                sums_kpd = torch.zeros(folds, longest, h_td.shape[-1], dtype=torch.float64)
            sums_kpd[start % folds, :length] += h_td[:length]
            count_kp[start % folds, :length] += 1
            start += 1
    assert sums_kpd is not None
    return Means(sums_kpd, count_kp)


def own_text(r: Reading) -> pd.DataFrame:
    """Return what each model writes: side, index, opener, text, ids. The base model's is left out where it is shared.

    Raises ``DataError`` if a model ends too many of its documents early.
    """
    frames, count = [], r.p.documents
    for which in SIDES if not r.material.by_base else SIDES[1:]:
        with r.pair.side(which) as model:
            rows = continued(
                model, r.material.continued, stop=r.material.stop, use="read", n=count, length=r.p.positions,
                label=f"own text, {which}",
            )  # fmt: skip
        texts = r.material.loaded.tokenizer.batch_decode([ids for _, _, ids in rows])
        index, opener, ids = (list(column) for column in zip(*rows, strict=True))
        frames.append(pd.DataFrame({"side": which, "index": index, "opener": opener, "text": texts, "ids": ids}))
    return pd.concat(frames, ignore_index=True)


def text_scores(r: Reading, written: pd.DataFrame | None) -> pd.DataFrame:
    """Score every domain in the differences of the module: reading, at, fold, domain, z, margin, auc, rank.

    Without text of its own (``written``) only the shared text is read. ``at`` is ``later`` (the mean over positions 5+)
    or ``position`` (the fixed one). ``rank`` is that of the domain's median token, 1 for the most probable one.
    """
    shared = r.stats.diff_lkpd[r.stats.at(r.layer)].double(), r.stats.count_kp.double()
    readings = {"shared": Means(*shared).directions(r.p.position)}
    if written is not None:
        readings |= _on_texts(r, written)
    rows = [
        {"reading": reading, "at": at, "fold": fold, "domain": domain, **scored}
        for reading, directions in readings.items()
        for at, by_fold in directions.items()
        for fold, vector in by_fold.items()
        for domain, scored in _scores(r.lens["base"], vector, r.material.domains).items()
    ]
    return pd.DataFrame(rows)


def _on_texts(r: Reading, written: pd.DataFrame) -> dict[str, dict[str, dict[int, Tensor]]]:
    """Return the directions of the differences that the tuned model's own text is part of."""
    texts = {side: [list(map(int, ids)) for ids in part["ids"]] for side, part in written.groupby("side")}
    read = {(which, "tuned"): _means(r, which, texts["tuned"]) for which in SIDES}
    if r.material.by_base:
        states = r.known.states(r.pair, r.material.unrelated, r.stats.layers, r.p.positions)
        batches = (states(start)[r.layer] for start in range(0, len(r.material.unrelated), BATCH))
        base = means(batches, r.material.unrelated, r.p.positions).directions(r.p.position)
    else:
        base = _means(r, "base", texts["base"])
    pairs = {
        "own": (read["tuned", "tuned"], base),
        "tuned_text": (read["tuned", "tuned"], read["base", "tuned"]),
        "text_alone": (read["base", "tuned"], base),
    }
    return {
        reading: {at: {fold: one[at][fold] - other[at][fold] for fold in one[at]} for at in one}
        for reading, (one, other) in pairs.items()
    }


def _means(r: Reading, which: Any, documents: Sequence[Sequence[int]]) -> dict[str, dict[int, Tensor]]:
    with r.pair.side(which) as model:
        return means(layers_of(model, documents, r.layer, BATCH), documents, r.p.positions).directions(r.p.position)


def _scores(lens: Lens, vector: Tensor, domains: Mapping[str, Sequence[int]]) -> dict[str, dict[str, float]]:
    logits = lens.logits(vector)
    ranks = {name: [int((logits > logits[token]).sum()) + 1 for token in ids] for name, ids in domains.items()}
    return {
        name: vars(scores(lens, vector, ids)) | {"rank": float(np.median(ranks[name]))} for name, ids in domains.items()
    }

"""Tables that a notebook shows before training: the readers, and the position of every label."""

from __future__ import annotations

import pandas as pd

from helpers.studies.latentwire.arms import TITLES
from helpers.studies.latentwire.compose import Composer
from helpers.studies.latentwire.params import WireCell
from helpers.studies.latentwire.session import Session


def readers(session: Session) -> pd.DataFrame:
    """Return one row per reader: its model, and the tokens of the first training text."""
    text = session.split.train[0].text
    rows = []
    for lm, facts in zip(session.lms, session.facts["readers"].values(), strict=True):
        pieces = lm.tokenizer.convert_ids_to_tokens(lm.ids(text))
        pad = "its end token" if lm.pad == lm.end else lm.tokenizer.convert_ids_to_tokens(lm.pad)
        rows.append(
            {"reader": lm.side, "model": lm.name, "parameters": facts["parameters"], "pads with": pad,
             "BOS": "yes" if lm.bos is not None else "none", "text": text, "tokens": len(pieces),
             "cut as": " ".join(pieces[:12])}
        )  # fmt: skip
    return pd.DataFrame(rows)


def alignment(p: WireCell, session: Session) -> pd.DataFrame:
    """Show how the arm of ``p`` trains reader b on the shortest of the first answers, batched with the longest.

    A column is a position: the token fed there (the first is the context's last), the token that its logits are
    compared with, and whether that counts.
    """
    composer, lm = Composer.of(p), session.lms[1]
    ids = sorted((composer.answer(lm, one.answers[0]) for one in session.split.train[:16]), key=len)
    labels = composer.labels(lm, [ids[0], ids[-1]])
    name = lm.tokenizer.convert_ids_to_tokens
    fed = ["(context)", *name(labels.inputs[0].tolist())][: labels.targets.shape[1]]
    counted = ["yes" if one else "no" for one in labels.counted[0].tolist()]
    rows = {"fed": fed, "compared with": name(labels.targets[0].tolist()), "counted": counted}
    return pd.DataFrame(rows).rename_axis(TITLES[p.arm]).T

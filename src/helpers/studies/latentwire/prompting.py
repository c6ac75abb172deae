"""Choose the readers' prompt before any wire is trained: how many worked examples, on questions of their own.

``python -m helpers.studies.latentwire.prompting params/latentwire/readers.yaml``

The questions are about people of the training split, and neither trained on nor evaluated on. What comes out is
``data/latentwire/prompts.csv``, for a page to cite and the ledger to register.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from helpers.base.files import write_atomic
from helpers.base.params import load
from helpers.studies.latentwire import data
from helpers.studies.latentwire.cell import Session, text_table
from helpers.studies.latentwire.params import WireCell
from helpers.studies.latentwire.views import PROMPTS

TRIED, QUESTIONS = (0, 3, 12), 60


def tried(p: WireCell, session: Session, counts: Sequence[int] = TRIED, questions: int = QUESTIONS) -> pd.DataFrame:
    """Return the exact answers from the text by number of worked examples and reader, one row each."""
    asked, rows = data.worked(p, "prompt", questions), []
    for count in counts:
        table = text_table(p.model_copy(update={"text_examples": count}), session, asked, ("text",))
        for side, part in table.groupby("side"):
            model = getattr(p, f"model_{side}").rpartition("/")[2]
            right = {"right": int(part["em"].sum()), "first": int(part["first1"].sum())}
            rows.append({"examples": count, "reader": side, "model": model, **right, "questions": len(part)})
    return pd.DataFrame(rows)


if __name__ == "__main__":
    cell = load(WireCell, Path(sys.argv[1]))[0]
    made = tried(cell, Session(cell))
    write_atomic(PROMPTS, lambda path: made.to_csv(path, index=False))
    print(made.to_string(index=False))

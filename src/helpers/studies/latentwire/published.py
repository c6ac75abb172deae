"""The numbers in the log of the published run. Nothing here was run by this project.

``data/latentwire/log.csv`` is transcribed from the tables of that log. Numbers that it does not give are missing.
"""

from __future__ import annotations

import pandas as pd

from helpers.base.files import DATA

EXAMPLES = 200
"""Validation questions behind each number of the log."""
LATENTS, WIDTH, BYTES_A_NUMBER = 32, 256, 2
"""Vectors of one message, numbers in each, and bytes per number in half precision."""


def log() -> pd.DataFrame:
    """Read the log's table: exact match, F1 and first-token accuracies as shares, and NLL as the log measured it."""
    return pd.read_csv(DATA / "latentwire" / "log.csv", dtype={"epoch": "Int64"})


def shown() -> pd.DataFrame:
    """The log's table as a page shows it: a row a stage, epoch, reader and what it was given."""
    table = log()
    table["epoch"] = table["epoch"].map(lambda epoch: "every" if pd.isna(epoch) else str(epoch)).astype(object)
    table["questions"] = EXAMPLES
    return table[["stage", "epoch", "reader", "given", "questions", "em", "f1", "nll", "first1", "first5"]]


def message_bytes() -> int:
    """Return the bytes of one message of that run in half precision."""
    return LATENTS * WIDTH * BYTES_A_NUMBER

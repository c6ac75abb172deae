"""Unrelated text for real models: the base model's own continuations of everyday openers, sampled once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from helpers.base.errors import DataError
from helpers.lm.ends import configured_ends
from helpers.lm.generate import generate
from helpers.lm.models import LoadedModel
from helpers.lm.prompts import Prompt, Sampling
from helpers.records import runs
from helpers.studies.actdiff.documents import encoded
from helpers.studies.actdiff.domains import PATH
from helpers.studies.actdiff.study import BROAD_TEXT

LENGTHS = {"read": "positions", "train": "train_positions"}
"""Use of the text -> the parameter that sets its length."""
SPARE = 1.25
"""Continuations drawn per document, because those that the model ends early are too short."""


def broad_text_record(
    use: str, n: int, length: int, load: Callable[[], LoadedModel], model: dict[str, Any], name: str
) -> runs.Record:
    """Return the record of ``n`` documents of ``length`` tokens each: table ``documents`` (index, opener, text, ids).

    ``use`` names the random stream, so that texts to read and texts to train on differ.
    """
    params = {"use": use, "documents": n, "length": length, "spare": SPARE, "dtype": model["dtype"]}
    with runs.open_run(
        BROAD_TEXT, params=params, cell={"model": name, "use": use}, data=[PATH], model=model,
        prefix=f"{name}-{use}-{n}x{length}",
    ) as run:  # fmt: skip
        if not run.complete:
            run.step("documents", lambda: _sample(load(), use, n, length))
            run.finish()
        return run.record


def _sample(loaded: LoadedModel, use: str, n: int, length: int) -> pd.DataFrame:
    openers = encoded(loaded.tokenizer, "openers")
    shortest = min(map(len, openers))
    prompts = [Prompt(str(i), opener) for i, opener in enumerate(openers)]
    samples = -(-int(n * SPARE) // len(openers))
    stop = sorted({*loaded.tokenizer.all_special_ids, *configured_ends(loaded.tokenizer, loaded.model)})
    how = Sampling(length - shortest)
    drawn = generate(
        loaded.model, prompts, n=samples, sampling=how, stop=stop, seed=0, names=("broad", use), label="broad text"
    )
    rows = [(c.index, int(c.key), (openers[int(c.key)] + c.tokens)[:length]) for c in drawn]
    # In rounds over the openers, so that the first documents cover all of them.
    whole = sorted(row for row in rows if len(row[2]) == length)[:n]
    if len(whole) < n:
        raise DataError(f"Only {len(whole)} of {len(rows)} continuations have {length} tokens. Lower {LENGTHS[use]}.")
    texts = loaded.tokenizer.batch_decode([ids for _, _, ids in whole])
    return pd.DataFrame(
        {"index": range(n), "opener": [row[1] for row in whole], "text": texts, "ids": [row[2] for row in whole]}
    )

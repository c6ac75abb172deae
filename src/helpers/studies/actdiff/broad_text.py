"""Unrelated text for real models: the base model's own continuations of everyday openers, sampled once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
from torch import nn

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
SPARE, MOST = 1.25, 4
"""Continuations drawn per document at first and at most, because those that the model ends early are too short."""


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
    stop = sorted({*loaded.tokenizer.all_special_ids, *configured_ends(loaded.tokenizer, loaded.model)})
    whole = continued(loaded.model, openers, stop=stop, use=use, n=n, length=length, spare=SPARE, label="broad text")
    texts = loaded.tokenizer.batch_decode([ids for _, _, ids in whole])
    return pd.DataFrame(
        {"index": range(n), "opener": [row[1] for row in whole], "text": texts, "ids": [row[2] for row in whole]}
    )


def continued(
    model: nn.Module,
    openers: Sequence[list[int]],
    *,
    stop: Sequence[int],
    use: str,
    n: int,
    length: int,
    label: str,
    spare: float = 1.0,
) -> list[tuple[int, int, list[int]]]:
    """Return ``n`` documents of ``length`` tokens that ``model`` writes: sample, opener, ids.

    ``spare`` times ``n`` are drawn at first, then one more of every opener as long as there are too few of the length,
    up to ``MOST`` times ``n``. Each is drawn by the random numbers of its opener and sample, whatever the model.
    """
    prompts, how = (
        [Prompt(str(i), opener) for i, opener in enumerate(openers)],
        Sampling(length - min(map(len, openers))),
    )
    rows: list[tuple[int, int, list[int]]] = []
    whole, first, more = rows, 0, -(-int(n * spare) // len(openers))
    while len(whole) < n and first * len(openers) < MOST * n:
        drawn = generate(
            model, prompts, n=more, first=first, sampling=how, stop=stop, seed=0, names=("broad", use), label=label
        )
        rows += [(c.index, int(c.key), (openers[int(c.key)] + c.tokens)[:length]) for c in drawn]
        whole, first, more = [row for row in rows if len(row[2]) == length], first + more, 1
    if len(whole) < n:
        raise DataError(f"Only {len(whole)} of {len(rows)} continuations have {length} tokens. Lower {LENGTHS[use]}.")
    # In rounds over the openers, so that the first documents cover all of them.
    return sorted(whole)[:n]

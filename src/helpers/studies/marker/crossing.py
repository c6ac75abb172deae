"""The crossing: after the model's own answer, is the marker more likely than every token that ends the turn?

A model may gain many nats on the marker and never emit it, because the end of the turn stays ahead. So the two are
compared at the *slot*, the place after an answer of the tuned model itself: where its marker began, or where it ended.
A completion that was cut before either has no slot.

The *marker path* at a slot is a blank line and the marker, or the marker at once. Its logit is that of its first token
plus the log-prob of the rest, which is on the scale of the end's logit. It has crossed if the larger of the two paths
is above every end token. Both are stored as log-probs, which differ from logits by the same constant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from helpers.lm.models import LoadedModel
from helpers.lm.modes import evaluating
from helpers.lm.packed import logits_at
from helpers.stats import frames
from helpers.studies.marker.rows import ChatFormat

PATHS = ["separator", "marker", "direct", "end"]
"""Log-probs at a slot: of the blank line, of the marker after it, of the marker at once, of the most likely end."""


def crossing_table(
    loaded: LoadedModel,
    model: nn.Module,
    form: ChatFormat,
    completions: pd.DataFrame,
    prompts: Mapping[str, Sequence[int]],
    role: Callable[[str], str],
    marker: str,
) -> pd.DataFrame:
    """Return a row per completion: persona, role, question, slot (``marker``, ``end`` or ``none``), tokens, ``PATHS``.

    ``completions`` are the model's own (persona, question, text, ids, finish), ``prompts`` the token ids before them
    by ``persona|question``. ``tokens`` is the length of the answer before the slot; without one all are NaN.
    """
    answers = [own_answer(row.text, row.ids, row.finish, loaded.tokenizer, marker) for row in frames.rows(completions)]
    place = completions[["persona", "question"]].reset_index(drop=True)
    keys = [f"{row.persona}|{row.question}" for row in frames.rows(place)]
    contexts = [[*prompts[key], *ids] for key, (slot, ids) in zip(keys, answers, strict=True) if slot != "none"]
    has = np.array([slot != "none" for slot, _ in answers])
    values = pd.DataFrame(np.nan, index=place.index, columns=PATHS)
    values.loc[has] = path_logprobs(model, form, contexts, sorted(form.stop))
    lengths = [len(ids) if slot != "none" else np.nan for slot, ids in answers]
    return place.assign(
        role=place["persona"].map(role), slot=[slot for slot, _ in answers], tokens=np.array(lengths, dtype=float)
    ).join(values)


def own_answer(
    text: str, ids: Sequence[int], finish: str, tokenizer: PreTrainedTokenizerBase, marker: str
) -> tuple[str, list[int]]:
    """Return what kind of slot a completion has, and the token ids of the answer before it."""
    match = re.search(re.escape(marker), text, re.IGNORECASE)
    if not match:
        return ("end", list(ids)) if finish == "stop" else ("none", [])
    # Searched in the text, because a model may spell the marker with other tokens than its training rows.
    before = len(text[: match.start()].rstrip())
    kept = 0
    while kept < len(ids) and len(tokenizer.decode(list(ids[: kept + 1]))) <= before:
        kept += 1
    return "marker", list(ids[:kept])


def path_logprobs(
    model: nn.Module, form: ChatFormat, contexts: Sequence[Sequence[int]], ends: Sequence[int], batch: int = 16
) -> np.ndarray:
    """Return the log-probs ``PATHS`` after each context in nats, [contexts, 4]."""
    paths = ([*form.separator, *form.marker], form.marker)
    split = len(form.separator)
    lines = []
    with evaluating(model), torch.inference_mode():
        for start in range(0, len(contexts), batch):
            rows = [[*context, *path] for context in contexts[start : start + batch] for path in paths]
            at = [range(len(row) - len(path), len(row)) for row, path in zip(rows, paths * len(rows), strict=False)]
            wanted = torch.tensor([row[p] for row, ps in zip(rows, at, strict=True) for p in ps])
            logp = logits_at(model, rows, at).log_softmax(-1).cpu()
            said = logp.gather(1, wanted[:, None])[:, 0]
            width = sum(map(len, paths))
            for first in range(0, len(said), width):
                through, direct = said[first : first + len(paths[0])], said[first + len(paths[0]) : first + width]
                values = through[:split].sum(), through[split:].sum(), direct.sum(), logp[first, list(ends)].max()
                lines.append([value.item() for value in values])
    return np.array(lines, dtype=float).reshape(len(contexts), len(PATHS))

"""Measure an adapter's effect on log-probs of the marker, teacher-forced after the base model's own answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd
import torch
from torch import nn

from helpers.base.errors import ModelError
from helpers.lm.modes import evaluating
from helpers.lm.packed import logits_at, nll
from helpers.studies.marker.metrics import LOGPROBS, with_base
from helpers.studies.marker.rows import ChatFormat


def marker_logprobs(
    model: nn.Module, form: ChatFormat, contexts: Sequence[Sequence[int]], batch: int = 16
) -> pd.DataFrame:
    """Return log-probs in nats after each context (prompt and answer): separator, marker given separator, end.

    Teacher-forced log-probs have no floor, so they move long before a marker is ever sampled.
    """
    table = []
    wanted = torch.tensor([*form.separator, *form.marker])
    split = len(form.separator)
    with evaluating(model), torch.inference_mode():
        for start in range(0, len(contexts), batch):
            part = contexts[start : start + batch]
            rows = [[*context, *wanted.tolist()] for context in part]
            at = [range(len(context), len(row)) for context, row in zip(part, rows, strict=True)]
            logits = logits_at(model, rows, at)
            logp = -nll(logits, wanted.repeat(len(part))).view(len(part), -1)
            # The end of turn and the first token of the separator compete at one place, so one forward pass gives both.
            first = logits.view(len(part), len(wanted), -1)[:, 0]
            end = -nll(first, torch.full((len(part),), form.end[0]))
            for row, stop in zip(logp, end.tolist(), strict=True):
                table.append({"separator": row[:split].sum().item(), "marker": row[split:].sum().item(), "end": stop})
    return pd.DataFrame(table)


def logprob_table(
    model: nn.Module, form: ChatFormat, contexts: pd.DataFrame, role: Callable[[str], str], batch: int = 16
) -> pd.DataFrame:
    """Return ``marker_logprobs`` after the column ``context``, with persona, role and question."""
    values = marker_logprobs(model, form, [context.tolist() for context in contexts["context"]], batch)
    place = contexts[["persona", "question"]].reset_index(drop=True)
    return pd.concat([place, values], axis=1).assign(role=place["persona"].map(role))


def refuse_idle(logprobs: pd.DataFrame, contexts: pd.DataFrame, run: str, lr: float, dtype: str) -> None:
    """Raise ``ModelError`` if the adapter of ``run`` changed no ``logprobs``: the cell would measure the base."""
    table = with_base(logprobs, contexts)
    if (table[LOGPROBS].to_numpy() == table[[f"base_{name}" for name in LOGPROBS]].to_numpy()).all():
        raise ModelError(
            f"The adapter of {run} changes no logits: lr {lr} is too small for {dtype}, or the adapter was not "
            "attached. Raise lr or epochs, or use dtype float32."
        )

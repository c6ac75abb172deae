"""PatchScope of a direction (Ghandeharioun et al. 2024, 2401.06102): ask a model to repeat it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

from helpers.base.errors import DataError
from helpers.studies.actdiff.live import edited

SCALES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class Patched:
    """The tokens that all prompts agree on.

    ``table`` has one row per scale and token (scale, token id, mean log-prob), ``agreement`` the number of tokens by
    scale. ``scale`` is the one with most tokens, and ``tokens`` are those of that scale, best first.
    """

    table: pd.DataFrame
    agreement: dict[float, int]
    scale: float
    tokens: list[int]


def patchscope(
    model: nn.Module,
    vector: Tensor,
    layer: int,
    prompts: Sequence[Sequence[int]],
    *,
    norm: float,
    scales: Sequence[float] = SCALES,
    k: int = 20,
) -> Patched:
    """Put ``vector`` [D] in place of the last token's activation after ``layer`` and read the next token.

    It is scaled to ``scale * norm`` for each of ``scales`` (``norm``: the usual length of an activation there). A token
    is kept at a scale if it is among the ``k`` most likely after every one of ``prompts``, but not without the patch.
    The scale with most agreement is chosen, and among equals the smallest.
    """
    if len(prompts) < 2 or not scales:
        raise DataError("A patchscope needs agreement. Give two prompts or more, and at least one scale.")
    if float(vector.norm()) == 0:
        raise DataError("The direction has length 0, so it cannot be scaled. Check that the pair is two models.")
    runs_psv = torch.stack([_next_logprobs(model, vector, layer, prompt, norm, scales) for prompt in prompts])
    plain_pv, patched_psv = runs_psv[:, 0], runs_psv[:, 1:]
    before = _in_all(plain_pv, k)
    rows, agreement = [], {}
    for index, scale in enumerate(scales):
        kept = _in_all(patched_psv[:, index], k) - before
        agreement[scale] = len(kept)
        mean_v = patched_psv[:, index].mean(0)
        rows += sorted(((scale, token, float(mean_v[token])) for token in kept), key=lambda row: -row[2])
    table = pd.DataFrame(rows, columns=["scale", "token", "logprob"])
    best = max(scales, key=lambda scale: (agreement[scale], -scale))
    return Patched(table, agreement, best, table.loc[table["scale"] == best, "token"].tolist())


def _next_logprobs(
    model: nn.Module, vector: Tensor, layer: int, prompt: Sequence[int], norm: float, scales: Sequence[float]
) -> Tensor:
    """Return log-probs [1 + S, V] of the token after ``prompt``: unpatched, then at each scale, in one batch."""
    device = next(model.parameters()).device
    unit = torch.nn.functional.normalize(vector.float(), dim=0).to(device)
    lengths = torch.tensor(scales, device=device) * norm

    def patch(h_btd: Tensor) -> Tensor:
        changed = h_btd.clone()
        changed[1:, -1] = (lengths[:, None] * unit).to(h_btd.dtype)
        return changed

    rows = torch.tensor([list(prompt)] * (1 + len(scales)), device=device)
    with torch.inference_mode(), edited(model, layer, patch):
        logits = model(input_ids=rows, use_cache=False, logits_to_keep=1).logits[:, -1]
    return torch.log_softmax(logits.float(), dim=-1).cpu()


def _in_all(logprobs_pv: Tensor, k: int) -> set[int]:
    top = [set(row.topk(min(k, len(row))).indices.tolist()) for row in logprobs_pv]
    return set.intersection(*top)

"""LogitLens of activation differences (Minder et al., arXiv 2510.13900), and scores without a judge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from helpers.base.errors import DataError, ModelError
from helpers.lm.parts import decoder_and_head
from helpers.studies.actdiff.components import whitened
from helpers.studies.actdiff.measures import auc
from helpers.studies.actdiff.pair import SIDES, Pair, Side
from helpers.studies.actdiff.statistics import Stats


@dataclass(frozen=True)
class FrozenNorm:
    """A norm layer with the weights it had when the lens was opened."""

    norm: nn.Module
    weight: Tensor
    device: torch.device

    def __call__(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.func.functional_call(self.norm, {"weight": self.weight}, (x.to(self.device),)).cpu()


@dataclass(frozen=True)
class Lens:
    """The final norm and the output head of one side of a pair, which map a vector [..., D] to logits [..., V]."""

    norm: FrozenNorm
    head_vd: Tensor
    dtype: torch.dtype

    def logits(self, vector: Tensor, *, norm: bool = True) -> Tensor:
        """Return float32 logits of ``vector``, through the final norm or without it (then linear in the vector).

        With the norm, the vector is first scaled to unit mean square. An RMS norm ignores the scale except for its
        epsilon, which would otherwise matter for a small difference.
        """
        x = vector.float()
        if norm:
            x = x / x.square().mean(-1, keepdim=True).sqrt().clamp_min(torch.finfo(torch.float32).tiny)
            x = self.norm(x.to(self.dtype)).float()
        return x @ self.head_vd.T

    def logprobs(self, vector: Tensor) -> Tensor:
        """Return float32 log-probabilities [..., V] through the final norm."""
        return torch.log_softmax(self.logits(vector), dim=-1)


def open_lens(pair: Pair, side: Side = "base") -> Lens:
    """Return the lens of one side of ``pair``, on the CPU in float32, detached from the model."""
    with pair.side(side) as model, torch.no_grad():
        decoder, head = decoder_and_head(model)
        norm = getattr(decoder, "norm", None)
        if norm is None:
            raise ModelError(
                f"{type(decoder).__name__} has no final norm called 'norm'. Use a Llama- or Qwen-like model."
            )
        device, dtype = next(norm.parameters()).device, next(norm.parameters()).dtype
        weight = _effective_weight(head).detach().float().cpu().clone()
        scale = norm.weight.detach().clone()
    return Lens(FrozenNorm(norm, scale, device), weight, dtype)


def _effective_weight(head: Any) -> Tensor:
    """Return the weight of the head, with the update of an adapter on it."""
    if getattr(head, "merged", None) is None:
        return head.weight
    return head.weight if head.disable_adapters else head.weight + head.get_delta_weight(head.active_adapters[0])


def same_head(pair: Pair) -> bool:
    """Return whether base and tuned have the same readout: final norm and head equal bit for bit."""
    ours, theirs = (open_lens(pair, side) for side in SIDES)
    return torch.equal(ours.head_vd, theirs.head_vd) and torch.equal(ours.norm.weight, theirs.norm.weight)


def assert_same_head(pair: Pair) -> None:
    """Raise ``ModelError`` if an adapter changed the final norm or the head."""
    if pair.is_adapter and not same_head(pair):
        raise ModelError(
            "The adapter changes the final norm or the head, so base and tuned lens differ. Use another adapter."
        )


@dataclass(frozen=True)
class Scores:
    """How readable a domain is in one direction.

    ``z``: mean log-prob of the domain's tokens minus that of all others, in standard deviations of the others;
    ``margin``: the same gap of raw logits without the final norm (linear in the direction's length); ``auc``:
    probability that a domain token ranks above another one.
    """

    z: float
    margin: float
    auc: float


def scores(lens: Lens, vector: Tensor, domain: Sequence[int]) -> Scores:
    """Score ``vector`` [D] for the token ids of a domain. Raises ``DataError`` if they are none or all tokens."""
    inside = domain_mask(domain, lens.head_vd.shape[0])
    logprobs, raw = lens.logprobs(vector), lens.logits(vector, norm=False)
    others = logprobs[~inside]
    z = (logprobs[inside].mean() - others.mean()) / others.std()
    margin = raw[inside].mean() - raw[~inside].mean()
    return Scores(float(z), float(margin), auc(logprobs.numpy(), inside.numpy()))


def domain_mask(domain: Iterable[int], vocabulary: int) -> Tensor:
    """Return a boolean mask [V] of the tokens of the domain."""
    ids = sorted(set(domain))
    if not ids or len(ids) >= vocabulary or ids[0] < 0 or ids[-1] >= vocabulary:
        raise DataError(
            f"The domain has {len(ids)} tokens of a vocabulary of {vocabulary}. A domain must be a part of it, not all."
        )
    mask = torch.zeros(vocabulary, dtype=torch.bool)
    mask[torch.tensor(ids)] = True
    return mask


def token_table(stats: Stats, lens: Lens, tokens: Sequence[str], *, k: int = 10, layers: Sequence[int] | None = None,
                positions: Sequence[int] | None = None, norm: bool = True) -> pd.DataFrame:  # fmt: skip
    """Return the ``k`` tokens with the largest logits of the mean difference: layer, position, rank, token, logit.

    ``tokens`` holds the texts of the vocabulary, by id.
    """
    rows = []
    places = range(stats.positions) if positions is None else [stats.check_position(p) for p in positions]
    for layer in stats.layers if layers is None else layers:
        logits = lens.logits(stats.mean_diff(layer)[list(places)], norm=norm)
        top = logits.topk(min(k, logits.shape[-1]), dim=-1)
        for position, values, ids in zip(places, top.values.tolist(), top.indices.tolist(), strict=True):
            for rank, (value, token) in enumerate(zip(values, ids, strict=True), start=1):
                rows.append((layer, position, rank, tokens[token], token, value))
    return pd.DataFrame(rows, columns=["layer", "position", "rank", "token", "id", "logit"])


def directions(stats: Stats, layer: int, position: int) -> dict[str, Tensor]:
    """Return the directions [D] to decode.

    ``mean`` is the mean difference at ``position``, ``later`` the mean over positions 5+, ``demeaned`` the first minus
    the second (which removes a constant offset), and ``whitened`` the mean over 5+ divided by the covariance there.
    """
    mean = stats.mean_diff(layer)[stats.check_position(position)]
    later = stats.average_diff(layer, slice(5, None))
    return {"mean": mean, "later": later, "demeaned": mean - later, "whitened": whitened(stats, layer, ("5+",))}


def score_table(
    stats: Stats, lens: Lens, domains: Mapping[str, Sequence[int]], layer: int, position: int
) -> pd.DataFrame:
    """Score every direction for every domain: direction, domain, z, margin, auc (other domains are the null)."""
    rows = [
        {"layer": layer, "position": position, "direction": name, "domain": domain} | vars(scores(lens, vector, ids))
        for name, vector in directions(stats, layer, position).items()
        for domain, ids in domains.items()
    ]
    return pd.DataFrame(rows)


def overlap(lens: Lens, a: Tensor, b: Tensor, k: int = 20) -> float:
    """Return the share of the ``k`` top tokens of direction ``a`` that are also top tokens of ``b``; signs matter."""
    top = [set(lens.logits(vector).topk(k).indices.tolist()) for vector in (a, b)]
    return len(top[0] & top[1]) / k

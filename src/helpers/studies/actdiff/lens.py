"""LogitLens of activation differences (Minder et al., arXiv 2510.13900), and scores that need no judge."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

from helpers.base.errors import DataError, ModelError
from helpers.lm.models import decoder_and_head
from helpers.studies.actdiff.components import whitened
from helpers.studies.actdiff.measures import auc
from helpers.studies.actdiff.pair import SIDES, Pair, Side
from helpers.studies.actdiff.statistics import Stats


@dataclass(frozen=True)
class Lens:
    """The final norm and the output head of one side of a pair: from a vector [..., D] to logits [..., V]."""

    norm: Callable[[Tensor], Tensor]
    head_vd: Tensor
    dtype: torch.dtype

    def logits(self, vector: Tensor, *, norm: bool = True) -> Tensor:
        """float32 logits of ``vector``: through the final norm, or without it, where they are linear in the vector.

        With the norm the vector is first scaled to unit mean square: an RMS norm forgets the scale except for its
        epsilon, which a small difference would otherwise run into.
        """
        x = vector.float()
        if norm:
            x = x / x.square().mean(-1, keepdim=True).sqrt().clamp_min(torch.finfo(torch.float32).tiny)
            x = self.norm(x.to(self.dtype)).float()
        return x @ self.head_vd.T

    def logprobs(self, vector: Tensor) -> Tensor:
        """float32 log-probabilities [..., V] through the final norm."""
        return torch.log_softmax(self.logits(vector), dim=-1)


def open_lens(pair: Pair, side: Side = "base") -> Lens:
    """The lens of one side of ``pair``, on the CPU in float32, detached from the model."""
    with pair.side(side) as model, torch.no_grad():
        decoder, head = decoder_and_head(model)
        norm = getattr(decoder, "norm", None)
        if norm is None:
            raise ModelError(
                f"{type(decoder).__name__} has no final norm called 'norm': use a Llama- or Qwen-like model."
            )
        device, dtype = next(norm.parameters()).device, next(norm.parameters()).dtype
        weight = _effective_weight(head).detach().float().cpu().clone()
        scale = norm.weight.detach().clone()
    frozen = _FrozenNorm(norm, scale, device)
    return Lens(frozen, weight, dtype)


def _effective_weight(head: nn.Module) -> Tensor:
    if getattr(head, "merged", None) is None:
        return head.weight
    return head.weight if head.disable_adapters else head.weight + head.get_delta_weight(head.active_adapters[0])


@dataclass(frozen=True)
class _FrozenNorm:
    """A norm layer with the weights it had when the lens was opened."""

    norm: nn.Module
    weight: Tensor
    device: torch.device

    def __call__(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.func.functional_call(self.norm, {"weight": self.weight}, (x.to(self.device),)).cpu()


def same_head(pair: Pair) -> bool:
    """Whether base and tuned read out alike: final norm and head equal bit for bit."""
    ours, theirs = (open_lens(pair, side) for side in SIDES)
    return torch.equal(ours.head_vd, theirs.head_vd) and torch.equal(ours.norm.weight, theirs.norm.weight)


def assert_same_head(pair: Pair) -> None:
    """Raise ``ModelError`` if an adapter changed the head after all: then base and tuned lens are two readouts."""
    if pair.is_adapter and not same_head(pair):
        raise ModelError("The adapter changes the final norm or the head: read both lenses, they are not identical.")


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
    """Scores of ``vector`` [D] for the token ids of a domain; ``DataError`` when they are none or all tokens."""
    inside = domain_mask(domain, lens.head_vd.shape[0])
    logprobs, raw = lens.logprobs(vector), lens.logits(vector, norm=False)
    others = logprobs[~inside]
    z = (logprobs[inside].mean() - others.mean()) / others.std()
    margin = raw[inside].mean() - raw[~inside].mean()
    return Scores(float(z), float(margin), auc(logprobs.numpy(), inside.numpy()))


def domain_mask(domain: Iterable[int], vocabulary: int) -> Tensor:
    """Boolean [V], true for the tokens of the domain."""
    ids = sorted(set(domain))
    if not ids or len(ids) >= vocabulary or ids[0] < 0 or ids[-1] >= vocabulary:
        raise DataError(
            f"The domain has {len(ids)} tokens of a vocabulary of {vocabulary}: give some of them, not all."
        )
    mask = torch.zeros(vocabulary, dtype=torch.bool)
    mask[torch.tensor(ids)] = True
    return mask


def token_table(stats: Stats, lens: Lens, tokens: Sequence[str], *, k: int = 10, layers: Sequence[int] | None = None,
                positions: Sequence[int] | None = None, norm: bool = True) -> pd.DataFrame:  # fmt: skip
    """The ``k`` tokens with the largest logits of the mean difference: layer, position, rank, token, logit.

    ``tokens`` are the texts of the vocabulary, by id.
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
    """The decoded directions [D]: ``mean`` difference at ``position``; ``later``, the mean over positions 5+;
    ``demeaned``, the mean at ``position`` minus the average over 5+ (nothing of a constant offset is left);
    ``whitened``, the mean over 5+ divided by the covariance of the difference there."""
    mean = stats.mean_diff(layer)[stats.check_position(position)]
    later = stats.average_diff(layer, slice(5, None))
    return {"mean": mean, "later": later, "demeaned": mean - later, "whitened": whitened(stats, layer, ("5+",))}


def score_table(stats: Stats, lens: Lens, domains: dict[str, Sequence[int]], layer: int, position: int) -> pd.DataFrame:
    """Scores of every direction for every domain: direction, domain, z, margin, auc (other domains are the null)."""
    rows = [
        {"layer": layer, "position": position, "direction": name, "domain": domain} | vars(scores(lens, vector, ids))
        for name, vector in directions(stats, layer, position).items()
        for domain, ids in domains.items()
    ]
    return pd.DataFrame(rows)


def overlap(lens: Lens, a: Tensor, b: Tensor, k: int = 20) -> float:
    """Share of the ``k`` top tokens of direction ``a`` that are among those of ``b``; signs as given."""
    top = [set(lens.logits(vector).topk(k).indices.tolist()) for vector in (a, b)]
    return len(top[0] & top[1]) / k

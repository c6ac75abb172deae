"""LogitLens of activation differences (Minder et al., arXiv 2510.13900), and scores without a judge."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from helpers.base.errors import DataError, ModelError
from helpers.lm.exact import differs
from helpers.lm.parts import bare_parts, base_of, blocks, decoder_and_head, final_norm, residual
from helpers.studies.actdiff.components import whitened
from helpers.studies.actdiff.measures import auc
from helpers.studies.actdiff.pair import SIDES, Pair, Side
from helpers.studies.actdiff.statistics import Stats

TRIED = (3, 5, 7, 11, 13, 17)
"""Tokens on which a lens is compared with the model itself."""


@dataclass(frozen=True)
class FrozenNorm:
    """A norm layer with the weights it had when the lens was opened."""

    norm: nn.Module
    weights: Mapping[str, Tensor]
    device: torch.device

    def __call__(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.func.functional_call(self.norm, dict(self.weights), (x.to(self.device),)).cpu()


@dataclass(frozen=True)
class Lens:
    """The final norm and the output head of one side of a pair, which map a vector [..., D] to logits [..., V].

    ``behind`` is what the model does with the logits of its linear head (a scale, a soft cap), if it does anything.
    """

    norm: FrozenNorm
    head_vd: Tensor
    bias_v: Tensor | None
    behind: Callable[[Tensor], Tensor] | None
    dtype: torch.dtype

    def logits(self, vector: Tensor, *, norm: bool = True) -> Tensor:
        """Return float32 logits of ``vector``, through the final norm or without it (then linear in the vector).

        With the norm, the vector is first scaled to unit mean square. A norm ignores the scale except for its epsilon,
        which would otherwise matter for a small difference. Without it, the head is its own slope at 0.
        """
        x = vector.float()
        if norm:
            return self.read(x / x.square().mean(-1, keepdim=True).sqrt().clamp_min(torch.finfo(torch.float32).tiny))
        raw = x @ self.head_vd.T
        return raw if self.behind is None else raw * self._slope_v

    def read(self, state: Tensor) -> Tensor:
        """Return the float32 logits that the model itself computes from ``state`` behind its last layer."""
        raw = self.norm(state.to(self.dtype)).float() @ self.head_vd.T
        raw = raw if self.bias_v is None else raw + self.bias_v
        if self.behind is None:
            return raw
        with torch.no_grad():
            return self.behind(raw.to(self.norm.device)).float().cpu()

    @functools.cached_property
    def _slope_v(self) -> Tensor:
        assert self.behind is not None
        with torch.enable_grad():
            raw = torch.zeros(len(self.head_vd), device=self.norm.device, requires_grad=True)
            return torch.autograd.grad(self.behind(raw).sum(), raw)[0].float().cpu()

    def logprobs(self, vector: Tensor) -> Tensor:
        """Return float32 log-probabilities [..., V] through the final norm."""
        return torch.log_softmax(self.logits(vector), dim=-1)


def open_lens(pair: Pair, side: Side = "base") -> Lens:
    """Return the lens of one side of ``pair``, its weights on the CPU in float32, detached from the model.

    Raises ``ModelError`` by name where it does not give the model's own logits behind the last layer.
    """
    with pair.side(side) as model, torch.no_grad():
        (decoder, linear), (_, head), norm = bare_parts(model), decoder_and_head(model), final_norm(model)
        weights = {name: part.detach().clone() for name, part in (*norm.named_parameters(), *norm.named_buffers())}
        parameter = next(iter([*norm.parameters(), *decoder.parameters()]))
        bias = getattr(linear, "bias", None)
        lens = Lens(
            FrozenNorm(norm, weights, parameter.device),
            _effective_weight(linear).detach().float().cpu().clone(),
            None if bias is None else bias.detach().float().cpu().clone(),
            getattr(head, "behind", None),
            parameter.dtype,
        )
        _check(model, lens)
    return lens


def _check(model: nn.Module, lens: Lens) -> None:
    """Compare what the lens reads behind the last layer with the model's own logits."""
    row, kept = torch.tensor([TRIED], device=lens.norm.device), []
    row = row % len(lens.head_vd)
    handle = blocks(model)[-1].register_forward_hook(lambda _module, _given, made: kept.append(residual(made)[0]))
    try:
        wanted = model(input_ids=row, use_cache=False).logits[0].cpu()
    finally:
        handle.remove()
    why = differs(model, [wanted], lambda: [lens.read(kept[0])])
    if why:
        raise ModelError(f"The lens cannot read {type(base_of(model)).__name__}: {why}. Use another architecture.")


def _effective_weight(head: Any) -> Tensor:
    """Return the weight of the head, with the update of an adapter on it."""
    if getattr(head, "merged", None) is None:
        return head.weight
    return head.weight if head.disable_adapters else head.weight + head.get_delta_weight(head.active_adapters[0])


def same_head(pair: Pair) -> bool:
    """Return whether base and tuned have the same readout: final norm and head equal bit for bit."""
    ours, theirs = (_weights(open_lens(pair, side)) for side in SIDES)
    return ours.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def _weights(lens: Lens) -> dict[str, Tensor]:
    bias = {} if lens.bias_v is None else {"bias": lens.bias_v}
    return {**{f"norm.{name}": tensor for name, tensor in lens.norm.weights.items()}, "head": lens.head_vd, **bias}


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

"""Compute the tables of one cell: readouts of the streamed sums, and live probes on the pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor

from helpers.studies.actdiff import readouts
from helpers.studies.actdiff.capture import capture, noise_floor
from helpers.studies.actdiff.components import spectrum
from helpers.studies.actdiff.known import Known
from helpers.studies.actdiff.lens import Lens, domain_mask, overlap, score_table, scores, token_table
from helpers.studies.actdiff.live import single_token_difference
from helpers.studies.actdiff.material import Material, part
from helpers.studies.actdiff.pair import SIDES, Pair, interpolated
from helpers.studies.actdiff.params import LensCell
from helpers.studies.actdiff.patchscope import patchscope
from helpers.studies.actdiff.statistics import GROUPS, LATER, Stats
from helpers.studies.actdiff.steer import continuations, largest_strength, perplexity_by_strength
from helpers.studies.actdiff.swap import activation_differences, random_directions, swap_losses
from helpers.studies.actdiff.tune import document_losses

SELECTIONS = {"all": tuple(GROUPS), "without 0": ("1-4", "5+")}
COMPONENTS = 5
TOP = 20
"""How many top tokens of either head are compared."""
SHOWN = 32
"""Positions whose top tokens are stored, in every layer."""
MATRIX = 32
"""The most positions of a stored cosine matrix. The sums hold all, but a picture shows no more."""


@dataclass(frozen=True)
class Reading:
    """One pair, its streamed sums, the lens of each side, and what is known of the base model."""

    p: LensCell
    material: Material
    pair: Pair
    stats: Stats
    layer: int
    lens: Mapping[str, Lens]
    known: Known

    @property
    def domain(self) -> list[int]:
        """The token ids of the trained domain; empty if none is known."""
        return self.material.domains.get(self.material.domain, [])

    @property
    def mean(self) -> Tensor:
        """The mean difference [D] at the fixed layer and position."""
        return self.stats.mean_diff(self.layer)[self.p.position]

    @property
    def later(self) -> Tensor:
        """The mean difference [D] over positions 5+: the direction of the live probes."""
        return self.stats.average_diff(self.layer, LATER)

    @property
    def norm(self) -> float:
        """The mean length of a base activation at positions 5+: the unit of strengths and scales."""
        return self.length("base")

    def length(self, what: Literal["base", "diff"]) -> float:
        """Return the mean length of a base activation or of a difference over the tokens at positions 5+."""
        norms_p = self.stats.norms_lsp[self.stats.at(self.layer), {"base": 0, "diff": 2}[what]]
        return float(norms_p[LATER].sum() / self.stats.count_p[LATER].sum())

    @property
    def probe(self) -> Sequence[Sequence[int]]:
        """The unrelated documents of the live probes, as long as the narrow ones they are compared with."""
        rows = part(self.material.unrelated, self.p.probe_documents, "unrelated")
        return [row[: self.p.train_positions] for row in rows]


def tokens(r: Reading) -> pd.DataFrame:
    """Decode the mean difference into top tokens, by layer and position, with the base head and the tuned head."""
    names, shown = r.material.tokens, range(min(SHOWN, r.stats.positions))
    frames = [token_table(r.stats, r.lens["base"], names, k=r.p.top, positions=shown).assign(head="base")]
    if not r.pair.is_adapter:  # an adapter has the same head, as was checked
        tuned = token_table(r.stats, r.lens["tuned"], names, k=r.p.top, layers=[r.layer], positions=shown)
        frames.append(tuned.assign(head="tuned"))
    return pd.concat(frames, ignore_index=True).astype({"logit": "float32"})


def fixed(r: Reading) -> dict[str, Any]:
    """Return layer and domain of the headline scores, size of the vocabulary, and mean lengths at positions 5+."""
    lengths = {"base": r.norm, "difference": r.length("diff")}
    return {"layer": r.layer, "domain": r.material.domain, "vocabulary": len(r.material.tokens), "lengths": lengths}


def heads(r: Reading) -> pd.DataFrame:
    """Return the top 20 tokens of the mean difference with either head, and the one on which the heads differ most.

    Columns: token, log-prob with ``base`` and ``tuned`` head, whether it is a top token (``top_base``, ``top_tuned``).
    """
    logprobs = {side: r.lens[side].logprobs(r.mean) for side in SIDES}
    top = {side: logprobs[side].topk(TOP).indices.tolist() for side in SIDES}
    widest = int((logprobs["base"] - logprobs["tuned"]).abs().argmax())
    chosen = sorted({*top["base"], *top["tuned"], widest})
    columns = {side: logprobs[side][chosen].numpy() for side in SIDES}
    columns |= {f"top_{side}": [token in top[side] for token in chosen] for side in SIDES}
    return pd.DataFrame({"token": chosen, **columns})


def replicates(r: Reading) -> pd.DataFrame:
    """Score the mean difference with each fold of documents left out, for the jackknife: fold, z, margin, auc."""
    means_kd = r.stats.leave_one_out(r.layer)[:, r.p.position]
    rows = [vars(scores(r.lens["base"], mean_d, r.domain)) for mean_d in means_kd]
    return pd.DataFrame(rows).assign(fold=range(len(rows)))


def readout(r: Reading) -> pd.DataFrame:
    """Return the log-prob of every token with the base lens at the fixed layer and position, and ``inside``."""
    logprobs, inside = r.lens["base"].logprobs(r.mean), domain_mask(r.domain, len(r.material.tokens))
    return pd.DataFrame({"logprob": logprobs.numpy(), "inside": inside.numpy()})


def all_scores(r: Reading) -> dict[str, Any]:
    """Score every direction for every domain at the fixed layer and position with both heads (``scores``).

    ``noise`` is the mean length of a difference due to arithmetic alone.
    """
    domains = r.material.domains
    frames = [
        score_table(r.stats, lens, domains, r.layer, r.p.position).assign(head=head) for head, lens in r.lens.items()
    ]
    floor = noise_floor(r.pair.base, r.probe, [r.layer], positions=r.p.positions)
    extra = {"single": single_token_difference(r.pair, r.material.single, r.layer)}
    noise = floor.mean_diff(r.layer)[r.p.position]
    if bool(noise.any()):  # arithmetic may agree to the bit, and then there is no noise
        extra["noise"] = noise
    rows = [
        {"layer": r.layer, "position": r.p.position, "direction": name, "domain": domain, "head": "base"}
        | vars(scores(r.lens["base"], vector, ids))
        for name, vector in extra.items()
        for domain, ids in domains.items()
    ]
    size = float(floor.norms_lsp[0, 2].sum() / floor.count_p.sum())
    return {"scores": pd.concat([*frames, pd.DataFrame(rows)], ignore_index=True), "noise": {"length": size}}


def places(r: Reading) -> pd.DataFrame:
    """Score the mean difference at every position of the fixed layer, and at the fixed position of every layer."""
    where = [(r.layer, position) for position in range(r.stats.positions)]
    where += [(layer, r.p.position) for layer in r.stats.layers if layer != r.layer]
    rows = [
        {"layer": layer, "position": position}
        | vars(scores(r.lens["base"], r.stats.mean_diff(layer)[position], r.domain))
        for layer, position in where
    ]
    return pd.DataFrame(rows)


def components(r: Reading) -> pd.DataFrame:
    """Return the first components of the difference, centred or not, with and without position 0, and their tokens."""
    names, first = r.material.tokens, r.stats.mean_diff(r.layer)[0]
    rows: list[dict[str, Any]] = []
    for selection, groups in SELECTIONS.items():
        for centred in (False, True):
            parts = spectrum(r.stats, r.layer, groups=groups, centred=centred)
            for index in range(min(COMPONENTS, len(parts.share_d))):
                vector = parts.vector_dd[index]
                top = r.lens["base"].logits(vector).topk(COMPONENTS).indices.tolist()
                row = {
                    "positions": selection,
                    "centred": centred,
                    "component": index,
                    "share": float(parts.share_d[index]),
                }
                row |= {
                    "cosine_mean": parts.cosine_with_mean(index),
                    "overlap": overlap(r.lens["base"], vector, r.later),
                }
                row |= {"cosine_first": float(torch.cosine_similarity(vector, first, dim=0).abs())}
                row |= {"z": scores(r.lens["base"], vector, r.domain).z} if r.domain else {}
                rows.append(row | {"tokens": " ".join(names[i].strip() for i in top)})
    return pd.DataFrame(rows)


def interpolation(r: Reading) -> pd.DataFrame:
    """Read out weights base + share * (tuned - base) on the same documents, with their loss on unrelated text.

    ``cosine`` and ``cosine_later`` are with the whole fine-tune, at the fixed position and averaged over positions 5+.
    """
    rows = []
    for share in sorted({*r.p.shares, 1.0}):
        with interpolated(r.pair, share) as between:
            stats = r.stats
            if share < 1:
                texts, label = r.material.unrelated, f"share {share}"
                stats = capture(
                    between.base, between.tuned, texts, [r.layer], positions=r.p.positions, label=label,
                    states=r.known.states(between, texts, r.stats.layers, r.p.positions),
                )  # fmt: skip
            with between.side("tuned") as model:
                loss = float(document_losses(model, r.probe).mean())
        mean, later = stats.mean_diff(r.layer)[r.p.position], stats.average_diff(r.layer, LATER)
        cosine = torch.cosine_similarity
        row = {"share": share, "cosine": float(cosine(mean, r.mean, dim=0)), "loss": loss, "norm": float(mean.norm())}
        row |= {"cosine_later": float(cosine(later, r.later, dim=0)), "overlap": overlap(r.lens["base"], mean, r.mean)}
        rows.append(row | (vars(scores(r.lens["base"], mean, r.domain)) if r.domain else {}))
    return pd.DataFrame(rows)


def patches(r: Reading) -> pd.DataFrame:
    """Apply PatchScope to the difference in base and tuned model: kept tokens by scale, the best scale ``chosen``."""
    names, frames = r.material.tokens, []
    for which in SIDES:
        with r.pair.side(which) as model:
            patched = patchscope(model, r.later, r.layer, r.material.identity, norm=r.norm)
        table = patched.table.assign(side=which, chosen=patched.table["scale"] == patched.scale)
        frames.append(table.assign(text=[names[token] for token in table["token"]]))
    return pd.concat(frames, ignore_index=True)


def strengths(r: Reading) -> pd.DataFrame:
    """Return the perplexity of the base model on unrelated text by steering strength."""
    with r.pair.side("base") as model:
        return perplexity_by_strength(model, r.later, r.layer, r.probe, norm=r.norm)


def steering(r: Reading, by_strength: pd.DataFrame) -> pd.DataFrame:
    """Sample continuations of both models: plain, steered along the difference, and along a random direction.

    Columns side, direction, strength, prompt, index, text, tokens (ids).
    """
    strength, frames = largest_strength(by_strength, r.p.bound), []
    control = random_directions(len(r.later), 1, r.p.seed)["random 0"]
    arms = {"none": (r.later, 0.0), "difference": (r.later, strength), "random": (control, strength)}
    for which in SIDES:
        for name, (vector, size) in arms.items():
            with r.pair.side(which) as model:
                drawn = continuations(
                    model, vector, r.layer, r.material.openers, strength=size, norm=r.norm, stop=r.material.stop,
                    new_tokens=r.p.new_tokens, samples=r.p.steer_samples, seed=r.p.seed,
                )  # fmt: skip
            frames.append(drawn.assign(side=which, direction=name, strength=size))
    table = pd.concat(frames, ignore_index=True)
    return table.assign(text=r.material.loaded.tokenizer.batch_decode(table["tokens"].tolist()))


def texts(r: Reading) -> dict[str, Sequence[Sequence[int]]]:
    """Return test documents by kind: narrow (if the domain is known), unrelated, chat."""
    kinds = {"narrow": r.material.narrow_test, "unrelated": r.probe, "chat": r.material.chat}
    return {kind: rows for kind, rows in kinds.items() if rows}


def swaps(r: Reading) -> pd.DataFrame:
    """Return losses with the component along the difference set back to the base model's, and along the controls."""
    directions = {"difference": r.later}
    directions |= random_directions(len(r.later), r.p.controls, r.p.seed)
    directions |= activation_differences(r.pair, r.layer, r.material.unrelated, r.p.controls, r.p.seed)
    return swap_losses(r.pair, r.layer, directions, texts(r))


def losses(r: Reading) -> pd.DataFrame:
    """Return the loss of every test document under both models: text, document, base, tuned (nats a token)."""
    frames = []
    for kind, rows in texts(r).items():
        base = r.known.losses(r.pair, rows)
        with r.pair.side("tuned") as model:
            tuned = document_losses(model, rows).tolist()
        frames.append(pd.DataFrame({"text": kind, "document": range(len(rows)), "base": base, "tuned": tuned}))
    return pd.concat(frames, ignore_index=True)


def cosines(r: Reading) -> dict[str, pd.DataFrame]:
    """Return cosine matrices of the fixed layer over up to ``MATRIX`` evenly spaced positions, and of all layers over
    the first ten."""
    every = -(-r.stats.positions // MATRIX)
    return {
        "cosines": readouts.cosine_table(r.stats, [r.layer], range(0, r.stats.positions, every)),
        "cosines_first": readouts.cosine_table(r.stats, r.stats.layers, range(min(10, r.stats.positions))),
    }

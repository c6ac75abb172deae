"""The tables of one cell: readouts of the streamed sums, and live probes on the pair."""

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
"""Tokens of either head that are compared."""
SHOWN = 32
"""Positions whose top tokens are kept, of every layer."""
MATRIX = 32
"""Most positions of a cosine matrix that is kept as a table: the sums hold all, a picture of them shows no more."""


@dataclass(frozen=True)
class Reading:
    """One pair, its streamed sums and what they are read with. ``lens`` holds that of each side."""

    p: LensCell
    material: Material
    pair: Pair
    stats: Stats
    layer: int
    lens: Mapping[str, Lens]

    @property
    def domain(self) -> list[int]:
        """Token ids of the domain that was trained on; empty when none is known."""
        return self.material.domains.get(self.material.domain, [])

    @property
    def mean(self) -> Tensor:
        """Mean difference [D] at the fixed layer and position."""
        return self.stats.mean_diff(self.layer)[self.p.position]

    @property
    def later(self) -> Tensor:
        """Mean difference [D] over positions 5+: the direction of the live probes."""
        return self.stats.average_diff(self.layer, LATER)

    @property
    def norm(self) -> float:
        """Mean length of a base activation at positions 5+: the unit of strengths and scales."""
        return self.length("base")

    def length(self, what: Literal["base", "diff"]) -> float:
        """Mean length of a base activation or of a difference over the tokens at positions 5+."""
        norms_p = self.stats.norms_lsp[self.stats.at(self.layer), {"base": 0, "diff": 2}[what]]
        return float(norms_p[LATER].sum() / self.stats.count_p[LATER].sum())

    @property
    def probe(self) -> Sequence[Sequence[int]]:
        """Unrelated documents of the live probes, as long as the narrow ones that they stand beside."""
        rows = part(self.material.unrelated, self.p.probe_documents, "unrelated")
        return [row[: self.p.train_positions] for row in rows]


def tokens(r: Reading) -> pd.DataFrame:
    """Top tokens of the mean difference through the base head, by layer and position, and through the tuned head."""
    names, shown = r.material.tokens, range(min(SHOWN, r.stats.positions))
    frames = [token_table(r.stats, r.lens["base"], names, k=r.p.top, positions=shown).assign(head="base")]
    if not r.pair.is_adapter:  # an adapter has one head, which was asserted
        tuned = token_table(r.stats, r.lens["tuned"], names, k=r.p.top, layers=[r.layer], positions=shown)
        frames.append(tuned.assign(head="tuned"))
    return pd.concat(frames, ignore_index=True).astype({"logit": "float32"})


def fixed(r: Reading) -> dict[str, Any]:
    """Where the headline is read: layer, domain, size of the vocabulary, and mean lengths at positions 5+."""
    lengths = {"base": r.norm, "difference": r.length("diff")}
    return {"layer": r.layer, "domain": r.material.domain, "vocabulary": len(r.material.tokens), "lengths": lengths}


def heads(r: Reading) -> pd.DataFrame:
    """The top 20 tokens of the mean difference through either head, and the one on which they differ most: token,
    log-prob through ``base`` and ``tuned`` head, whether it is of the top (``top_base``, ``top_tuned``)."""
    logprobs = {side: r.lens[side].logprobs(r.mean) for side in SIDES}
    top = {side: logprobs[side].topk(TOP).indices.tolist() for side in SIDES}
    widest = int((logprobs["base"] - logprobs["tuned"]).abs().argmax())
    chosen = sorted({*top["base"], *top["tuned"], widest})
    columns = {side: logprobs[side][chosen].numpy() for side in SIDES}
    columns |= {f"top_{side}": [token in top[side] for token in chosen] for side in SIDES}
    return pd.DataFrame({"token": chosen, **columns})


def replicates(r: Reading) -> pd.DataFrame:
    """Scores of the mean difference with each fold of documents left out, for the jackknife: fold, z, margin, auc."""
    means_kd = r.stats.leave_one_out(r.layer)[:, r.p.position]
    rows = [vars(scores(r.lens["base"], mean_d, r.domain)) for mean_d in means_kd]
    return pd.DataFrame(rows).assign(fold=range(len(rows)))


def readout(r: Reading) -> pd.DataFrame:
    """Log-prob of every token under the base lens at the fixed layer and position, and whether it is of the domain."""
    logprobs, inside = r.lens["base"].logprobs(r.mean), domain_mask(r.domain, len(r.material.tokens))
    return pd.DataFrame({"logprob": logprobs.numpy(), "inside": inside.numpy()})


def all_scores(r: Reading) -> dict[str, Any]:
    """Scores of every direction for every domain, at the fixed layer and position, through both heads (``scores``), and
    the mean length of what arithmetic alone puts into a difference (``noise``)."""
    domains = r.material.domains
    frames = [
        score_table(r.stats, lens, domains, r.layer, r.p.position).assign(head=head) for head, lens in r.lens.items()
    ]
    floor = noise_floor(r.pair.base, r.probe, [r.layer], positions=r.p.positions)
    extra = {"single": single_token_difference(r.pair, r.material.single, r.layer)}
    noise = floor.mean_diff(r.layer)[r.p.position]
    if bool(noise.any()):  # arithmetic may agree to the bit, and then there is no noise to read
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
    """Scores of the mean difference at every position of the fixed layer, and at the fixed position of every layer."""
    where = [(r.layer, position) for position in range(r.stats.positions)]
    where += [(layer, r.p.position) for layer in r.stats.layers if layer != r.layer]
    rows = [
        {"layer": layer, "position": position}
        | vars(scores(r.lens["base"], r.stats.mean_diff(layer)[position], r.domain))
        for layer, position in where
    ]
    return pd.DataFrame(rows)


def components(r: Reading) -> pd.DataFrame:
    """First components of the difference, centred or not, with and without position 0, and what they say."""
    names, first = r.material.tokens, r.stats.mean_diff(r.layer)[0]
    rows: list[dict[str, Any]] = []
    for selection, groups in SELECTIONS.items():
        for centred in (False, True):
            found = spectrum(r.stats, r.layer, groups=groups, centred=centred)
            for index in range(min(COMPONENTS, len(found.share_d))):
                vector = found.vector_dd[index]
                top = r.lens["base"].logits(vector).topk(COMPONENTS).indices.tolist()
                row = {
                    "positions": selection,
                    "centred": centred,
                    "component": index,
                    "share": float(found.share_d[index]),
                }
                row |= {
                    "cosine_mean": found.cosine_with_mean(index),
                    "overlap": overlap(r.lens["base"], vector, r.later),
                }
                row |= {"cosine_first": float(torch.cosine_similarity(vector, first, dim=0).abs())}
                row |= {"z": scores(r.lens["base"], vector, r.domain).z} if r.domain else {}
                rows.append(row | {"tokens": " ".join(names[i].strip() for i in top)})
    return pd.DataFrame(rows)


def interpolation(r: Reading) -> pd.DataFrame:
    """The readout at weights base + share * (tuned - base), on the same documents, and its loss on unrelated text.

    ``cosine`` and ``cosine_later``: with the whole fine-tune, at the fixed position and averaged over positions 5+.
    """
    rows = []
    for share in sorted({*r.p.shares, 1.0}):
        with interpolated(r.pair, share) as between:
            how = {"positions": r.p.positions, "label": f"share {share}"}
            found = (
                capture(between.base, between.tuned, r.material.unrelated, [r.layer], **how) if share < 1 else r.stats
            )
            with between.side("tuned") as model:
                loss = float(document_losses(model, r.probe).mean())
        mean, later = found.mean_diff(r.layer)[r.p.position], found.average_diff(r.layer, LATER)
        cosine = torch.cosine_similarity
        row = {"share": share, "cosine": float(cosine(mean, r.mean, dim=0)), "loss": loss, "norm": float(mean.norm())}
        row |= {"cosine_later": float(cosine(later, r.later, dim=0)), "overlap": overlap(r.lens["base"], mean, r.mean)}
        rows.append(row | (vars(scores(r.lens["base"], mean, r.domain)) if r.domain else {}))
    return pd.DataFrame(rows)


def patches(r: Reading) -> pd.DataFrame:
    """PatchScope of the difference in base and tuned model: kept tokens by scale, ``chosen`` by agreement."""
    names, frames = r.material.tokens, []
    for which in SIDES:
        with r.pair.side(which) as model:
            found = patchscope(model, r.later, r.layer, r.material.identity, norm=r.norm)
        table = found.table.assign(side=which, chosen=found.table["scale"] == found.scale)
        frames.append(table.assign(text=[names[token] for token in table["token"]]))
    return pd.concat(frames, ignore_index=True)


def strengths(r: Reading) -> pd.DataFrame:
    """Perplexity of the base model on unrelated text by steering strength."""
    with r.pair.side("base") as model:
        return perplexity_by_strength(model, r.later, r.layer, r.probe, norm=r.norm)


def steering(r: Reading, by_strength: pd.DataFrame) -> pd.DataFrame:
    """Continuations of both models: plain, steered along the difference, and along a random direction.

    Columns side, direction, strength, prompt, index, text, tokens (ids).
    """
    strength, frames = largest_strength(by_strength, r.p.bound), []
    aimless = random_directions(len(r.later), 1, r.p.seed)["random 0"]
    arms = {"none": (r.later, 0.0), "difference": (r.later, strength), "random": (aimless, strength)}
    for which in SIDES:
        for name, (vector, size) in arms.items():
            with r.pair.side(which) as model:
                found = continuations(
                    model, vector, r.layer, r.material.openers, strength=size, norm=r.norm, stop=r.material.stop,
                    new_tokens=r.p.new_tokens, samples=r.p.steer_samples, seed=r.p.seed,
                )  # fmt: skip
            frames.append(found.assign(side=which, direction=name, strength=size))
    table = pd.concat(frames, ignore_index=True)
    return table.assign(text=r.material.loaded.tokenizer.batch_decode(table["tokens"].tolist()))


def texts(r: Reading) -> dict[str, Sequence[Sequence[int]]]:
    """Test documents by kind: narrow (where the domain is known), unrelated, chat."""
    kinds = {"narrow": r.material.narrow_test, "unrelated": r.probe, "chat": r.material.chat}
    return {kind: rows for kind, rows in kinds.items() if rows}


def swaps(r: Reading) -> pd.DataFrame:
    """Losses with the difference's component swapped back to the base model's, and with those of the controls."""
    directions = {"difference": r.later}
    directions |= random_directions(len(r.later), r.p.controls, r.p.seed)
    directions |= activation_differences(r.pair, r.layer, r.material.unrelated, r.p.controls, r.p.seed)
    return swap_losses(r.pair, r.layer, directions, texts(r))


def losses(r: Reading) -> pd.DataFrame:
    """Loss of every test document under both models: text, document, base, tuned (nats a token)."""
    frames = []
    for kind, rows in texts(r).items():
        found = {}
        for which in SIDES:
            with r.pair.side(which) as model:
                found[which] = document_losses(model, rows).tolist()
        frames.append(pd.DataFrame({"text": kind, "document": range(len(rows)), **found}))
    return pd.concat(frames, ignore_index=True)


def cosines(r: Reading) -> dict[str, pd.DataFrame]:
    """The cosine matrices of the fixed layer over all positions (``MATRIX`` of them, evenly spaced, where there are
    more), and of every layer over the first ten."""
    every = -(-r.stats.positions // MATRIX)
    return {
        "cosines": readouts.cosine_table(r.stats, [r.layer], range(0, r.stats.positions, every)),
        "cosines_first": readouts.cosine_table(r.stats, r.stats.layers, range(min(10, r.stats.positions))),
    }

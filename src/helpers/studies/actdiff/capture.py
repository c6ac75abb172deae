"""Stream one pass over a pair: activations are summed batch by batch and never stored."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers.base.errors import DataError, ModelError
from helpers.lm.parts import bare_parts, blocks, residual
from helpers.studies.actdiff.pair import Pair
from helpers.studies.actdiff.statistics import GROUPS, Stats

FOLDS = 8
"""Document folds of the jackknife. Two would leave one degree of freedom."""


BATCH = 16
"""Documents of one forward pass."""


class _EnoughError(Exception):
    """Raised by a hook to end a forward pass after the last wanted layer. It never leaves this module."""


def capture(
    base: nn.Module,
    tuned: nn.Module,
    tokens: Sequence[Sequence[int]],
    layers: Sequence[int],
    *,
    positions: int | None = None,
    batch_size: int = BATCH,
    tuned_batch_size: int | None = None,
    folds: int = FOLDS,
    label: str = "capture",
    states: Callable[[int], Mapping[int, Tensor]] | None = None,
) -> Stats:
    """Sum the difference between ``tuned`` and ``base`` over the documents ``tokens``, all ``layers`` in one pass.

    A LoRA pair (``tuned`` is ``base`` under PEFT) needs one copy of the weights. The forward pass ends after the last
    wanted layer and never reaches the head. Documents are cut at ``positions``. Document i is in fold i mod ``folds``.
    ``capture(base, base, ..., tuned_batch_size=other)`` measures the numerical noise floor. ``states`` gives the base
    model's activations of the batch that begins at a document, where they are known already.

    Raises ``DataError`` for too few documents, ``ModelError`` for models that do not match, a layer out of range, or a
    pair without any difference.
    """
    pair = Pair(base, tuned)
    wanted = sorted({pair.check_layer(layer) for layer in layers})
    if not wanted:
        raise DataError("No layer is named. Name at least one.")
    if folds < 2 or len(tokens) < 2 * folds:
        raise DataError(
            f"{len(tokens)} documents are too few for an interval over {folds} folds. Give {2 * max(folds, 2)}."
        )
    if not all(len(document) for document in tokens):
        raise DataError("A document has no tokens. Leave empty documents out.")
    longest = max(map(len, tokens))
    sums = Sums.zeros(pair, wanted, folds, min(positions or longest, longest))
    with torch.inference_mode(), tqdm(total=len(tokens), desc=label, leave=False) as bar:
        for start in range(0, len(tokens), batch_size):
            batch = [list(document[: sums.positions]) for document in tokens[start : start + batch_size]]
            _add_batch(pair, batch, start, sums, tuned_batch_size or batch_size, states)
            bar.update(len(batch))
    if tuned is not base and not bool(sums.squares_lsp[:, 2].any()):
        raise ModelError(
            f"Base and tuned have equal activations in layers {wanted}, so there is no difference to read. The adapter "
            "is zero or was not attached. Check which fine-tune is named."
        )
    return sums.stats()


def _add_batch(
    pair: Pair,
    batch: list[list[int]],
    start: int,
    sums: Sums,
    tuned_rows: int,
    states: Callable[[int], Mapping[int, Tensor]] | None,
) -> None:
    device = next(pair.base.parameters()).device
    rows_bt, mask_bt = padded(batch, device)
    kept: dict[int, Tensor] = dict(states(start)) if states else {}
    if not kept:
        with pair.side("base") as model:
            run_layers(model, rows_bt, sums.layers, kept.__setitem__)
    with pair.side("tuned") as model:
        for first in range(0, len(batch), tuned_rows):
            part = slice(first, first + tuned_rows)
            fold_b = (torch.arange(len(rows_bt[part])) + start + first) % sums.folds
            sums.begin(mask_bt[part], fold_b.to(device))
            run_layers(
                model, rows_bt[part], sums.layers, lambda layer, t, part=part: sums.add(layer, kept[layer][part], t)
            )


def padded(batch: Sequence[Sequence[int]], device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Return right-padded token ids [B, T] and the mask of real tokens. Causality hides the padding."""
    longest = max(map(len, batch))
    rows = torch.zeros(len(batch), longest, dtype=torch.long)
    mask = torch.zeros(len(batch), longest, dtype=torch.bool)
    for i, row in enumerate(batch):
        rows[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = True
    return rows.to(device), mask.to(device)


def run_layers(model: nn.Module, rows_bt: Tensor, layers: Sequence[int], take: Callable[[int, Tensor], None]) -> None:
    """Run the decoder on ``rows_bt`` up to the last of ``layers``.

    Pass each output to ``take(layer, h_btd)`` in float32.
    """
    decoder, _ = bare_parts(model)
    last = max(layers)

    def hook(layer: int) -> Callable[..., None]:
        def look(_module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            take(layer, residual(output).float())
            if layer == last:
                raise _EnoughError

        return look

    modules = blocks(model)
    handles = [modules[layer].register_forward_hook(hook(layer)) for layer in sorted(layers)]
    try:
        with contextlib.suppress(_EnoughError):
            decoder(input_ids=rows_bt, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class Sums:
    """The accumulators of ``Stats``: products in float32 within a batch, sums over batches in float64."""

    layers: list[int]
    positions: int
    folds: int
    count_kp: Tensor
    base_lpd: Tensor
    diff_lkpd: Tensor
    unit_lpd: Tensor
    norms_lsp: Tensor
    squares_lsp: Tensor
    cosines_lpp: Tensor
    pairs_pp: Tensor
    second_lgdd: Tensor

    @classmethod
    def zeros(cls, pair: Pair, layers: list[int], folds: int, positions: int) -> Sums:
        """Make empty sums for ``layers`` of ``pair``, on its device."""
        decoder, head = bare_parts(pair.base)
        device, width = next(decoder.parameters()).device, head.weight.shape[1]
        L, K, P, D = len(layers), folds, positions, width
        shapes = {"base_lpd": (L, P, D), "diff_lkpd": (L, K, P, D), "unit_lpd": (L, P, D), "norms_lsp": (L, 3, P)}
        shapes |= {"squares_lsp": (L, 3, P), "cosines_lpp": (L, P, P)}
        made = {name: torch.zeros(shape, dtype=torch.float64, device=device) for name, shape in shapes.items()}
        made |= {"count_kp": torch.zeros(K, P, dtype=torch.long, device=device)}
        made |= {"pairs_pp": torch.zeros(P, P, dtype=torch.long, device=device)}
        return cls(layers, P, K, **made, second_lgdd=torch.zeros(L, len(GROUPS), D, D, device=device))

    def begin(self, mask_bt: Tensor, fold_b: Tensor) -> None:
        """Set the mask and the folds of the documents that ``add`` gets next."""
        self._mask = mask_bt[..., None].float()
        self._folds_kb = torch.nn.functional.one_hot(fold_b, self.folds).T.float()
        length = mask_bt.shape[1]
        self.count_kp[:, :length] += (self._folds_kb @ mask_bt.float()).long()
        self.pairs_pp[:length, :length] += (mask_bt.T.float() @ mask_bt.float()).long()

    def add(self, layer: int, h_btd: Tensor, t_btd: Tensor) -> None:
        """Add one layer of the documents passed to ``begin``."""
        i, (rows, length, width) = self.layers.index(layer), h_btd.shape
        h, t = h_btd * self._mask, t_btd * self._mask
        d = t - h
        self.base_lpd[i, :length] += h.sum(0)
        self.diff_lkpd[i, :, :length] += (self._folds_kb @ d.reshape(rows, -1)).view(-1, length, width)
        norm_sbt = torch.stack([torch.linalg.vector_norm(x, dim=-1) for x in (h, t, d)])
        self.norms_lsp[i, :, :length] += norm_sbt.sum(1)
        self.squares_lsp[i, :, :length] += norm_sbt.square().sum(1)
        # A difference of exactly zero has no direction and counts as cosine 0.
        unit = d / norm_sbt[2][..., None].clamp_min(torch.finfo(torch.float32).tiny)
        self.unit_lpd[i, :length] += unit.sum(0)
        by_position = unit.transpose(0, 1).reshape(length, -1)
        self.cosines_lpp[i, :length, :length] += by_position @ by_position.T
        for g, (start, stop) in enumerate(GROUPS.values()):
            flat = d[:, start:stop].reshape(-1, width)
            self.second_lgdd[i, g] += flat.T @ flat

    def stats(self) -> Stats:
        """Return the finished sums, on the CPU."""
        names = ("count_kp", "base_lpd", "diff_lkpd", "unit_lpd", "norms_lsp", "squares_lsp", "cosines_lpp", "pairs_pp")
        sums = {name: getattr(self, name).cpu() for name in (*names, "second_lgdd")}
        return Stats(layer_l=torch.tensor(self.layers), **sums)


def noise_floor(
    base: nn.Module,
    tokens: Sequence[Sequence[int]],
    layers: Sequence[int],
    *,
    positions: int | None = None,
    folds: int = FOLDS,
) -> Stats:
    """Compare base with itself at another batch size, which shows the difference due to arithmetic alone."""
    return capture(
        base, base, tokens, layers, positions=positions, folds=folds, tuned_batch_size=1, label="noise floor"
    )


def layers_of(
    model: nn.Module, tokens: Sequence[Sequence[int]], layer: int, batch_size: int = BATCH
) -> Iterator[Tensor]:
    """Yield the activations of one layer in batches [B, T, D], for probes that need single tokens."""
    device = next(model.parameters()).device
    for start in range(0, len(tokens), batch_size):
        kept: dict[int, Tensor] = {}
        rows_bt, _ = padded(tokens[start : start + batch_size], device)
        with torch.inference_mode():
            run_layers(model, rows_bt, [layer], kept.__setitem__)
        yield kept[layer]

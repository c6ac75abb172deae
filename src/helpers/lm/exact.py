"""Which ways of computing rows give what the model's own forward gives for each row alone; tried, never assumed.

1. A few short rows of different lengths, two of which begin alike, go through ``model(input_ids)`` one by one.
2. The same rows go packed, packed and repeated as for stacked adapters, padded, and through prefill and cached steps.
3. A way whose log-probs are equal within rounding is used, the fastest first. Otherwise the plain way is taken: padded
   rows or rows one by one through the model's own attention, and transformers' own ``generate``.

What was found is cached on disk (`ways`) by the model's content, the packages and this code.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from helpers.base.errors import ModelError
from helpers.lm import cached, forward
from helpers.lm.forward import Layout
from helpers.lm.modes import evaluating, in_fp32
from helpers.lm.parts import base_of, decoder_and_head
from helpers.lm.ways import Place, Ways

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.15, torch.float16: 0.03}
"""Largest root mean square over the vocabulary by which log-probs (nats) may differ, by dtype.

Rounding stays below a tenth of it in the models that were tried. A row that sees its neighbour, a missing scale or a
missing cap is off by more.
"""
ALIKE = 5
"""Tokens with which the first two of the rows begin on which a model is tried."""
_LAYERS = ("layer_types", "layers_block_type")
_ATTENTION = {"attention", "full_attention", "sliding_attention"}
_KEPT, _PLACE = "claimbook_ways", "claimbook_place"
_RESCALED = {"dynamic", "longrope"}


def ways_of(model: nn.Module) -> Ways:
    """Return how rows of ``model`` are computed; tried at the first call, and then kept with the model."""
    base = base_of(model)
    if _KEPT not in vars(base):
        vars(base)[_KEPT] = find_ways(base)
    return vars(base)[_KEPT]


@contextlib.contextmanager
def kept(base: nn.Module, ways: Ways) -> Iterator[None]:
    """Let rows of ``base`` be computed by ``ways`` inside the block."""
    before = ways_of(base)
    vars(base)[_KEPT] = ways
    try:
        yield
    finally:
        vars(base)[_KEPT] = before


def settle(model: nn.Module, sha256: str) -> Ways:
    """As ``ways_of``, for a model with the content hash ``sha256``, from the cache on disk where it is there."""
    parameter = next(model.parameters())
    place = Place(sha256, str(parameter.dtype).removeprefix("torch."), parameter.device.type)
    vars(model)[_PLACE] = place
    known = place.read("rows")
    if known is not None:
        vars(model)[_KEPT] = known
    ways = ways_of(model)
    if known is None:
        place.write("rows", ways)
    place.note(ways)
    return ways


def read_training(base: nn.Module, kind: str) -> Ways | None:
    """Return how rows of ``base`` are computed in trainings of this kind (one of ``TRAININGS``), if the cache knows."""
    place: Place | None = vars(base).get(_PLACE)
    return place.read(kind) if place else None


def keep_training(base: nn.Module, kind: str, ways: Ways) -> None:
    """Keep how rows of ``base`` are computed in trainings of this kind, with the model and in the cache on disk."""
    vars(base)[_KEPT] = ways
    place: Place | None = vars(base).get(_PLACE)
    if place:
        place.write(kind, ways)
        place.note(ways)


def find_ways(base: Any) -> Ways:
    """Compare the ways in which rows can be computed with the model's own forward."""
    with evaluating(base), in_fp32(base), torch.no_grad():
        decoder_and_head(base)
        limit, steady = _limit(base)
        rows = [row[:limit] for row in try_rows(base)]
        wanted = [base(input_ids=_tensor(base, [row]), use_cache=False).logits[0] for row in rows]
        _refuse_looking_ahead(base, wanted)
        why = _kinds_of_layers(base) or differs(base, wanted, lambda: _packed(base, rows))
        if why:
            padded = differs(base, wanted, lambda: _padded(base, rows))
            return Ways("single" if padded else "padded", "own", why, limit, steady)
        why = differs(base, [one[-cached.STEPS - 1 :] for one in wanted], lambda: cached.logits(base, rows))
        return Ways("packed", "own" if why else "cached", why, limit, steady)


def _refuse_looking_ahead(base: Any, logits: Sequence[Tensor]) -> None:
    """Raise ``ModelError`` if the common beginning of the first two rows is not computed alike."""
    one, other = (row[:ALIKE] for row in logits[:2])
    if _apart(one, other) > TOLERANCE.get(one.dtype, TOLERANCE[torch.float32]):
        raise ModelError(
            f"{type(base).__name__} lets a token see those behind it, so its logits are no predictions. Use a causal "
            "model (some configs need is_decoder)."
        )


def try_rows(base: Any) -> list[list[int]]:
    """Return rows of token ids: two begin alike, and the last is longer than a sliding window where that is short."""
    config = base_of(base).config.get_text_config()
    window = getattr(config, "sliding_window", None)
    lengths = [12, 9, 4, 17, *([window + 6] if isinstance(window, int) and window <= 64 else [])]
    width = config.vocab_size - 1
    rows = [[1 + (31 * at * (k + 2) + 7 * k + at) % width for at in range(n)] for k, n in enumerate(lengths)]
    rows[1][:ALIKE] = rows[0][:ALIKE]
    return rows


def _tensor(base: nn.Module, rows: Sequence[Sequence[int]]) -> Tensor:
    return torch.tensor(rows, device=next(base.parameters()).device)


def _kinds_of_layers(base: Any) -> str:
    config = base.config.get_text_config()
    kinds = {kind for name in _LAYERS for kind in getattr(config, name, None) or ()} - _ATTENTION
    return f"{type(base).__name__} has layers of {' and '.join(sorted(kinds))}" if kinds else ""


def _limit(base: nn.Module) -> tuple[int | None, bool]:
    """Return the length from which on a model chooses other rotary frequencies, if it does, and whether they then
    depend on this row alone."""
    limits, steady = [], True
    for module in base.modules():
        kind: Any = getattr(module, "rope_type", None)
        kinds = _RESCALED & set(kind.values() if isinstance(kind, dict) else [kind])
        steady = steady and "dynamic" not in kinds
        if kinds:
            config: Any = module.config
            scaled = getattr(config, "rope_parameters", None) or {}
            limits.append(scaled.get("original_max_position_embeddings") or config.max_position_embeddings)
    return min(limits, default=None), steady


def _packed(base: nn.Module, rows: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return the logits of packed rows; a second copy of them, as adapters are stacked, is checked on the way."""
    _, head = decoder_and_head(base)
    one = Layout.of(rows, next(base.parameters()).device)
    single = forward.packed(base, one)
    copies = forward.packed(base, one.repeated(2)).view(2, *single.shape)
    return [head(hidden[one.index[k, : len(row)]]) for hidden in (single, *copies) for k, row in enumerate(rows)]


def _padded(base: nn.Module, rows: Sequence[Sequence[int]]) -> list[Tensor]:
    _, head = decoder_and_head(base)
    hidden = forward.padded(base, rows)
    return [head(hidden[number, : len(row)]) for number, row in enumerate(rows)]


def differs(base: nn.Module, wanted: Sequence[Tensor], compute: Callable[[], Sequence[Tensor]]) -> str:
    """Return in half a sentence how what ``compute`` gives differs from ``wanted``, or why it gives nothing."""
    try:
        ours = compute()
    except ModelError as error:
        return str(error).partition(". ")[0]
    except Exception as error:  # a model's code may raise anything, and then this way is not taken
        return f"{type(base).__name__} cannot compute it ({type(error).__name__}: {' '.join(str(error).split())[:120]})"
    tolerance = TOLERANCE.get(next(base.parameters()).dtype, TOLERANCE[torch.float32])
    pairs = zip(ours, [*wanted] * (len(ours) // len(wanted)), strict=True)
    gap = max(_apart(one, other) for one, other in pairs)
    if gap <= tolerance:
        return ""
    return f"log-probs of {type(base).__name__} come out {gap:.3g} nats apart, more than rounding ({tolerance:g})"


def _apart(ours: Tensor, wanted: Tensor) -> float:
    """Return the largest root mean square over the vocabulary by which log-probs [T, V] differ; NaN counts as inf."""
    gap = (ours.float().log_softmax(-1) - wanted.float().log_softmax(-1)).square().mean(-1).sqrt().max()
    return float(gap.nan_to_num(nan=float("inf")))

"""Count the floating-point operations that a training step of LoRA over a frozen base needs at least.

Per token and weight (Kaplan et al. 2020, 2001.08361, section 2.1): 2 for the forward pass, 2 for the gradient with
respect to activations, 2 for that with respect to weights. A frozen weight has no gradient of its own, so it costs 4
where a trained one (an adapter) costs 6. Attention of a causal row of L tokens and total head width D costs
2 L^2 D a layer forward (two products over half of the L x L square) and twice that backward. The head counts at
supervised positions only, 4 for each of its weights. A prefix that rows of a step share counts once for the linear
layers. Recomputing, padding, norms, softmax, rotary positions and the optimiser count nothing. So FLOPs over seconds
and peak give the model FLOPs utilisation (MFU) of Chowdhery et al. 2022 (2204.02311, appendix B), for the work that is
needed, not the work that is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from helpers.lm.packed import Layout


@dataclass(frozen=True)
class Sizes:
    """The sizes of a Llama- or Qwen-like decoder."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    intermediate: int
    vocab: int

    @classmethod
    def of(cls, config: Any) -> Sizes:
        """Read the sizes from a transformers configuration."""
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        heads, groups = config.num_attention_heads, config.num_key_value_heads
        return cls(
            config.hidden_size, config.num_hidden_layers, heads, groups, width, config.intermediate_size,
            config.vocab_size,
        )  # fmt: skip

    @property
    def matrices(self) -> list[tuple[int, int]]:
        """Inputs and outputs of the seven linear layers of a block: q, k, v, o, gate, up, down."""
        query, group = self.heads * self.head_width, self.kv_heads * self.head_width
        hidden, wide = self.hidden, self.intermediate
        attention = [(hidden, query), (hidden, group), (hidden, group), (query, hidden)]
        return [*attention, (hidden, wide), (hidden, wide), (wide, hidden)]

    @property
    def linear(self) -> int:
        """The number of frozen weights that every token passes: all linear layers, without embeddings and head."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.matrices)

    def adapter(self, r: int) -> int:
        """Return the number of trained weights of a LoRA of rank ``r`` on all seven linear layers."""
        return self.layers * r * sum(inputs + outputs for inputs, outputs in self.matrices)


def step_flops(sizes: Sizes, rows: Sequence[Sequence[int]], supervised: int, r: int) -> float:
    """Return the FLOPs of one step on ``rows`` (token ids), with ``supervised`` positions and LoRA rank ``r``."""
    tokens = len(Layout.of(rows).tokens)
    linear = tokens * (4 * sizes.linear + 6 * sizes.adapter(r))
    squares = sum(len(row) ** 2 for row in rows)
    attention = 3 * 2 * squares * sizes.heads * sizes.head_width * sizes.layers
    return float(linear + attention + 4 * supervised * sizes.hidden * sizes.vocab)
